"""Encoders over packed pairs, their attention, dropout and matrix products, and what makes them reproducible."""
