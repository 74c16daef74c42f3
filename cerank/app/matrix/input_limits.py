"""What base models and first stages on this disk hold at most: tokens of an input, documents for a query.

Invariant: nothing is fetched and no index is built; what is not here, or would take long to read, has no limit here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from cerank.app.matrix.drafts import DraftRun, FieldError
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError
from cerank.files.line_reader import local_path
from cerank.models.bases import locate
from cerank.models.preflight import read_sizes
from cerank.recipes.schema import Recipe
from cerank.retrieval.first_stage import open_given_run
from cerank.text.safe_text import counted
from cerank.trec.open_run import is_large


class InputLimits(msgspec.Struct, frozen=True):
    """What was found out; names that are absent have no known limit."""

    tokens: dict[str, int] = {}  # base -> tokens of its longest input
    documents: dict[tuple[str, str], int] = {}  # (test dataset, first stage) -> documents of the longest list


def names_of(runs: Sequence[DraftRun]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the bases, and the pairs of test dataset and first stage, that `find_limits` looks at."""
    bases = dict.fromkeys(run.recipe.base for run in runs)
    pairs = dict.fromkeys(pair for run in runs for pair in _pairs(run.recipe))
    return tuple(bases), tuple(pairs)


def _pairs(recipe: Recipe) -> Iterable[tuple[str, str]]:
    return ((test, first) for test in recipe.data.test for first in recipe.data.first_stages)


def find_limits(bases: Iterable[str], pairs: Iterable[tuple[str, str]], cache: Path) -> InputLimits:
    """Return the limits of bases and first stages as far as their files are here."""
    tokens: dict[str, int] = {}
    for base in bases:
        try:
            longest = read_sizes(locate(base, fetch=False).folder).longest
        except CerankError:
            continue  # planning says why
        if longest:
            tokens[base] = longest
    documents: dict[tuple[str, str], int] = {}
    for test, first in pairs:
        try:
            path = local_path(first)
            if not path.is_file() or is_large(path):
                continue
            ranking = open_given_run(open_dataset(test, cache), first).ranking
        except CerankError:
            continue
        documents[test, first] = max((len(ranking[query]) for query in ranking), default=0)
    return InputLimits(tokens, documents)


def beyond(runs: Sequence[DraftRun], limits: InputLimits) -> tuple[FieldError, ...]:
    """Return a warning for each setting that asks for more than base model or first stage hold."""
    warnings: dict[str, FieldError] = {}
    for run in runs:
        recipe = run.recipe
        tokens = limits.tokens.get(recipe.base, 0)
        for name, stage in recipe.chained():
            if tokens and stage.max_length > tokens:
                path = f"stages.{name}.max_length"
                text = f"{recipe.base} reads at most {counted(tokens, 'token')}; a run of it would be refused"
                warnings.setdefault(path, FieldError(path, text))
        for pair in _pairs(recipe):
            deepest = limits.documents.get(pair)
            if deepest is not None and recipe.data.depth > deepest:
                text = f"{Path(pair[1]).name} has at most {counted(deepest, 'document')} for a query"
                warnings.setdefault("data.depth", FieldError("data.depth", text))
    return tuple(warnings.values())
