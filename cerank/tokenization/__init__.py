"""Tokenize each text once, in memory or on disk, and join queries and documents as pairs."""
