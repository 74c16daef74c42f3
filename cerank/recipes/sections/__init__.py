"""Sections of a recipe, one a module: losses, negatives, teachers, adapters, filters, curricula, passages, mixtures."""
