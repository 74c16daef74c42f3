"""Base models and the cross-encoder: finding, checking, loading, saving, and scoring a batch."""
