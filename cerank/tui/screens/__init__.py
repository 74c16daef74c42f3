"""Screens over the lab beside its runs."""
