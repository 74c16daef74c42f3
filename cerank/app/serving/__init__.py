"""Serve a re-ranker, and check that a server gives the scores that were measured."""
