"""What a stage's groups are sampled from, put together from a recipe, for a run and for a look at it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cerank.core.rankings import Ranking
from cerank.datasets.collection_ids import CollectionIds
from cerank.datasets.dataset import Dataset
from cerank.planning import inputs
from cerank.recipes.schema import Recipe, Stage

CandidatesOf = Callable[[str, str], Ranking]  # (dataset, first stage) -> its ranking, to the depth that a plan needs


def source_rankings(recipe: Recipe, stage: Stage, candidates: CandidatesOf) -> Mapping[str, Ranking]:
    """Return the ranking of each run that a stage's `negative_sources` name, "" for the stage's own first stage."""
    own, dataset = inputs.training_first_stage(recipe, stage), inputs.training_dataset(recipe, stage)
    runs = inputs.negative_runs(stage)
    return {run: candidates(dataset, run or own).top(depth) for run, depth in runs.items()}


def source_collection(stage: Stage, dataset: Dataset) -> CollectionIds | None:
    """Return the ids of all documents where a stage's negatives come from the collection; read when first used."""
    is_used = any(source.source == "collection" for source in stage.negative_sources)
    return CollectionIds(dataset.documents) if is_used else None
