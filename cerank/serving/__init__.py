"""Answer re-ranking requests over HTTP."""
