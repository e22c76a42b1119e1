"""A grid of recipes and tasks: what is asked, its cells, what they cost, and the processes that share them."""
