"""From rankings to a verdict: measures per query, paired statistics, comparisons of systems.

Nothing here reads a run directory or knows how a table looks.
"""
