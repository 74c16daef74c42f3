"""Widgets that draw what the lab computed."""
