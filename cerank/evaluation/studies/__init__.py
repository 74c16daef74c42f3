"""Beyond one comparison: several collections pooled, the size of a new test set, experiments that were repeated."""
