"""Evaluate: what is measured, accuracy against sparsity, and the very examples that broke."""

from kick_core.explorer import evaluate, frame

frame.page(evaluate.page)
