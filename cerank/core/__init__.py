"""Pure data: what a recipe, plan, group, ranking and reading are. Nothing here reads a file or a clock."""
