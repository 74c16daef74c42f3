"""Sections of a recipe, a module each: losses, negatives, teachers, adapters, filters, passages, mixtures."""
