"""Models: where one lives on disk, what it is (a hash of its files), and how it is opened.

`source` finds and checks a model's files without torch; `loading` opens it; `blocks` finds its decoder
blocks, their matrices and which matrices share an input, by looking and not by name.
"""
