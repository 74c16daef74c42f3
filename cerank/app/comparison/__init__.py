"""Comparisons of runs, checkpoints and run files, and the power of a comparison."""
