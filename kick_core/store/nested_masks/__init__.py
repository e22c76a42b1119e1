"""Nested masks of one method (5 %, 10 %, ... of the weights) share files: their format, and the sharing itself."""
