"""Sweeps: settings searched on validation alone, with the same number of trials for every arm, and what they found."""
