"""Kernels of gated cells on slabs of time: project the inputs of all steps at once."""

VALUE, DIAGONAL, BLOCKS, PARTIALS = 0, 1, 2, 3  # what `linearise` writes next to the defect
