"""Compare: any recipe against any other on one task, down to one prompt at every sparsity; by size; live; by model."""

from kick_core.explorer import compare, frame

frame.page(compare.page)
