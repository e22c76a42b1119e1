"""Compress: what a recipe would weigh before anything is pressed, the jobs that make it, and all that was made."""

from kick_core.explorer import compress, frame

frame.page(compress.page)
