"""Sample the groups that a stage trains on: queries in order, positives, and negatives from one source or several."""
