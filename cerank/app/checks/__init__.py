"""Checks of a run, a lab and this machine."""
