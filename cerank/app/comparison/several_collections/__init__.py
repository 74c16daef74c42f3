"""Comparisons on several collections together: pooled, as tables, as forest plots, by where training data came from."""
