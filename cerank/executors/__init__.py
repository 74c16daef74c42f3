"""Carrying out runs on other machines: Slurm, Ray, a command of the user's, or a plugin's; how their jobs stand."""
