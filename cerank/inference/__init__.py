"""Score candidates with a cross-encoder, and cache the scores."""
