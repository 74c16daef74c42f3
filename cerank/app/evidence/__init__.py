"""What stands behind a verdict: rankings query by query, bounds, looks at a test set, and plans declared before."""
