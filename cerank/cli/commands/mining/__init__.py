"""The commands that mine candidates for negatives and show them."""
