"""Starting workers: at once as processes, or from the queue, one run a device."""
