"""Find the extensions that a recipe uses, so that its plan names them with versions and hashes of their code."""

from __future__ import annotations

from typing import Any

from cerank.core.negative_samplers import NEGATIVE_SAMPLERS
from cerank.planning.inputs import training_first_stage, validation_first_stage
from cerank.recipes.loss_specs import LOSSES
from cerank.recipes.schema import Recipe
from cerank.registry import Extension, Registry
from cerank.retrieval.first_stage import RETRIEVERS


def extensions_used(recipe: Recipe) -> tuple[Extension, ...]:
    """Return every extension that decides a number of the recipe, sorted."""
    names: list[tuple[Registry[Any], str]] = []
    for _, stage in recipe.chained():
        names += [(LOSSES, stage.loss), (NEGATIVE_SAMPLERS, stage.negatives)]
        names.append((RETRIEVERS, training_first_stage(recipe, stage)))
    names += [(RETRIEVERS, first) for first in (*recipe.data.first_stages, validation_first_stage(recipe))]
    extensions = (registry.extension(name) for registry, name in names)
    return tuple(sorted({extension for extension in extensions if extension is not None}))
