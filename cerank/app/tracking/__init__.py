"""Send runs to experiment trackers, from processes of their own that only read what the worker writes."""
