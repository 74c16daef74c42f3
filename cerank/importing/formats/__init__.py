"""Readers of training data, a module per family of formats."""
