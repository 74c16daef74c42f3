"""Checkpoints in other research libraries' own formats."""
