"""Commands that show what stands behind a verdict, and seal a plan before it."""
