"""Starting workers. A launcher knows run directories and processes, and nothing of what a worker does."""
