"""Evaluation runs of one model: measuring tasks, fidelity to the dense model, other inference backends."""
