"""Publish a trained re-ranker: its files, its model card, and the hub."""
