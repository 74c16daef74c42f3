"""Plain data and pure functions: groups, rankings, metrics, schedule, seeds. Nothing here reads a file or a clock."""
