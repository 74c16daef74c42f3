"""How many documents a plan's stages and baselines would read only in part, said before anything is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cerank.datasets.dataset import CATALOG, Dataset
from cerank.errors import MissingError
from cerank.models.bases import locate
from cerank.planning import inputs
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe, Stage


def truncation_in_words(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each test dataset and each way in which the plan's systems read documents.

    Raises:
        UsageError: a passage and a query do not fit into a pair of one of the models.
    """
    from cerank.models.load_model import tokens_of, tokens_of_reranker
    from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse
    from cerank.tokenization.token_store import open_token_store
    from cerank.tokenization.tokens import TokenLimits
    from cerank.tokenization.truncation import collection_truncation

    recipe, cache = plan.recipe, Path(plan.cache)
    datasets = {name: inputs.open_with_template(name, recipe, cache) for name in recipe.data.test}
    for systems in _alike(recipe):
        stage = recipe.stages.get(systems[0])
        if stage is not None:
            files = locate(recipe.base, fetch=False, pooling=recipe.pooling)
            tokens = tokens_of(files, TokenLimits.of_stage(stage))
        else:
            tokens = tokens_of_reranker(locate(recipe.baseline_models()[systems[0]], fetch=False))
        windows = PassageWindows.of_spec(recipe.passages_of(systems[0]))
        if windows is not None:
            tokens.use_windows(WindowsInUse(windows))
        what = " and ".join(systems)
        reads = f", in {windows.max_passages} passages at most" if windows is not None else ""
        for test, opened in datasets.items():
            dataset = inputs.as_base_reads(opened, recipe) if stage is not None else opened
            store = open_token_store(tokens.tokenizer, dataset, cache)
            try:
                with _without_downloads(dataset):
                    counted = collection_truncation(tokens, dataset.documents, list(dataset.queries.values()), store)
            except MissingError:
                yield f"{what} on {test}{reads}: how many documents will be cut is said once they are here"
                continue
            yield f"{what} on {test}{reads}: {counted.expected()}"


def _without_downloads(dataset: Dataset) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a dataset of the catalog fetches nothing."""
    if dataset.location != CATALOG:
        return contextlib.nullcontext()
    from cerank.datasets import irds

    return irds.offline()


def _alike(recipe: Recipe) -> list[list[str]]:
    """Return the stages and baselines in groups that read the same part of each document."""
    groups: dict[object, list[str]] = {}
    for name in (*recipe.chain, *recipe.baseline_models()):
        stage = recipe.stages.get(name)
        lengths = _lengths(stage) if stage is not None else name
        groups.setdefault((lengths, recipe.passages_of(name)), []).append(name)
    return list(groups.values())


def _lengths(stage: Stage) -> tuple[object, ...]:
    keys = ("max_length", "max_query_length", "max_document_length", "truncation")
    return tuple(msgspec.structs.asdict(stage)[key] for key in keys)
