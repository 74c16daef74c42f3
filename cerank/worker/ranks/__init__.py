"""A run on several devices: start a process for each, join them, notice that one is gone, and follow the first."""
