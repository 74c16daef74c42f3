"""Queries and judgments of large files, read from memory-mapped copies in the cache."""
