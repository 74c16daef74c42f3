"""Judging a teacher before it teaches: agreement, position bias, consistency, known training data."""
