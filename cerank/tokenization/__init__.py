"""Texts as token ids, once each, in memory or on disk."""
