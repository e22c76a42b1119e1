"""Where the examples come from: the pocket world's files, and the benchmarks' own data from the hub or a folder."""
