"""Commands that show what stands behind a verdict, and declare a plan before it."""
