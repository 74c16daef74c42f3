"""Depths of evaluation against the candidates that there are, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from cerank.datasets.dataset import Dataset
from cerank.errors import UsageError
from cerank.recipes.schema import Recipe
from cerank.retrieval.first_stage import RETRIEVERS, is_built_in_bm25, open_given_run
from cerank.text.safe_text import counted


def check_depths(recipe: Recipe, datasets: Mapping[str, Dataset]) -> None:
    """Check that each first stage of a test has a query with as many candidates as the greatest depth of the recipe.

    A recipe without `[evaluate] depths` is not checked: candidates fewer than data.depth are re-ranked as they are.

    Raises:
        UsageError: a depth lies beyond the longest list of candidates, so that it would equal a smaller one.
    """
    if not recipe.evaluate.depths:
        return
    for test in recipe.data.test:
        for first in recipe.data.first_stages:
            dataset = datasets[test]
            if is_built_in_bm25(dataset, first):
                longest = len(dataset.documents)  # no list is longer; how long it is shows when the index is built
            elif first not in dataset.runs and first in RETRIEVERS:
                continue
            else:
                ranking = open_given_run(dataset, first).ranking.only(list(dataset.queries))
                longest = max((len(ranking[query]) for query in ranking), default=0)
            beyond = [depth for depth in (*recipe.evaluate.depths, recipe.data.depth) if depth > longest]
            if beyond and longest:
                what = f"depth {min(beyond)} lies beyond the candidates: {first} on {test} has {longest} at most"
                hint = f"give depths, and data.depth, up to {counted(longest, 'candidate')}"
                raise UsageError(what, where="evaluate.depths", hint=hint, code="depth-beyond")
