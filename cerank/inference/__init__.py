"""Re-ranking with a cross-encoder, and the cache of scores."""
