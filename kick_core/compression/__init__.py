"""Compressing one model: calibration, input statistics, one block, the walk over all blocks, and the stored form."""
