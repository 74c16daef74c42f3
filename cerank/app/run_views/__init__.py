"""Runs as they are looked at: live state, lists, curves, logs, rankings."""
