"""The list of runs, and the screen of one run with its tabs."""
