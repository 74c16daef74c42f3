"""The screens that compare rankings, and one query in two rankings."""
