"""Recipes, matrices and plans: their schema, the shipped TOML files, loading with `extends`, writing them out.

Invariant: a recipe leaves this package complete and checked, or an error names every mistake with its place.
"""

from __future__ import annotations

from cerank.recipes.loading import LoadedMatrix, LoadedRecipe, load, load_matrix, shipped, shipped_matrices
from cerank.recipes.rendering import render, template

__all__ = [
    "LoadedMatrix",
    "LoadedRecipe",
    "load",
    "load_matrix",
    "render",
    "shipped",
    "shipped_matrices",
    "template",
]
