"""A report of a matrix or of runs: the tables of a paper, curves, what each run recorded, and what others published.

Invariant: no statistic is computed here; every figure is `evaluation`'s, or stands in a file whose hash the report
holds.
"""
