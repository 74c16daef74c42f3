"""Measure speed: cerank and sentence-transformers on the same work, each in a process of its own."""
