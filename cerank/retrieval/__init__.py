"""Candidates and teachers: BM25, first stages, and rankings from files."""
