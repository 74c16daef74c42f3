"""Train on the groups that still teach something: chosen by their loss, then by a predictor of it, or at random."""
