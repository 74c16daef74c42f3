"""What a stage's groups are sampled from, put together from a recipe, for a run and for a look at it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cerank.core.rankings import LazyRanking, Ranking
from cerank.datasets.collection_ids import CollectionIds
from cerank.datasets.dataset import Dataset, StoredQueries
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.planning import inputs
from cerank.recipes.schema import Recipe, Stage
from cerank.training.sampling import mixed_negatives, negatives, sampler

CandidatesOf = Callable[[str, str], Ranking]  # (dataset, first stage) -> its ranking, to the depth that a plan needs


def source_rankings(recipe: Recipe, stage: Stage, candidates: CandidatesOf) -> Mapping[str, Ranking]:
    """Return the ranking of each run that a stage's `negative_sources` name, "" for the stage's own first stage."""
    own, dataset = inputs.training_first_stage(recipe, stage), inputs.training_dataset(recipe, stage)
    runs = inputs.negative_runs(stage)
    return {run: candidates(dataset, run or own).top(depth) for run, depth in runs.items()}


def source_collections(stage: Stage, dataset: Dataset) -> dict[str, CollectionIds]:
    """Return the ids of all documents where a stage's negatives come from the collection; read when first used.

    By the number of the set for a mixture, whose queries meet the documents of their own set alone; else under "".
    """
    if not any(source.source == "collection" for source in stage.negative_sources):
        return {}
    sets = {number: CollectionIds(member.documents, f"{number}:") for number, member in dataset.members.items()}
    return sets or {"": CollectionIds(dataset.documents)}


def set_shares(dataset: Dataset, temperature: float) -> dict[str, float]:
    """Return number of each set of a mixture -> its share of the groups, relative to the others; {} for other datasets.

    Args:
        dataset: the training dataset.
        temperature: above 0, a set counts its weight times the number of its queries to the power of 1/temperature.
    """
    sizes = {number: len(member.queries) for number, member in dataset.members.items()}
    return {
        number: weight * (sizes[number] ** (1 / temperature) if temperature else 1.0)
        for number, weight in dataset.weights.items()
    }


def usable_record(
    stage: Stage, dataset: Dataset, ranking: Ranking, sources: Mapping[str, Ranking], cache: Path
) -> RowsRecord | None:
    """Return where it is kept which queries of a dataset a stage can be trained on; None where all is in memory.

    Args:
        stage: the stage, whose labels are the dataset's own.
        dataset: the training dataset.
        ranking: the first stage's or the teacher's ranking of all its queries.
        sources: those of the stage's `negative_sources`.
        cache: folder of caches.
    """
    rankings = [("", ranking), *((f"source {run}", source) for run, source in sources.items())]
    stored = {
        name: [each.sha256, each.depth] for name, each in rankings if isinstance(each, LazyRanking) and each.sha256
    }
    if not isinstance(dataset.queries, StoredQueries) or len(stored) < len(rankings):
        return None
    settings = msgspec.to_builtins({key: getattr(stage, key) for key in sampler.DECIDING_KEYS})
    decided_by = [dataset.fingerprint(), stored, settings]
    counted_by = (*(module.__name__ for module in (sampler, negatives, mixed_negatives)), Ranking.__module__)
    return RowsRecord(cache, "usable-queries", len(dataset.queries), decided_by, counted_by=counted_by)
