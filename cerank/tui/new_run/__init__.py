"""The form of a new run or matrix."""
