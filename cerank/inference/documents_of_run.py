"""How the run that left a model read documents: by which template, and in which passages; from the plan beside it.

Invariant: a model of no run reads documents as the dataset has them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.core.passage_scores import Aggregation
from cerank.datasets.document_fields import titles_of, with_template
from cerank.datasets.open_datasets import open_dataset
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.text.plain_names import plain_name, slug
from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.inference.rerank import Scorer


class _StoredPlan(msgspec.Struct, frozen=True):
    """What is needed of a run's plan.json."""

    plan: Plan


class _ChosenAggregation(msgspec.Struct, frozen=True):
    """What is needed of a run's record of a choice on validation."""

    chosen: Aggregation


class ModelDocuments(msgspec.Struct, frozen=True, kw_only=True):
    """How a model read documents in the run that trained it."""

    template: str = ""  # text of a document from its fields; "": as the dataset has it
    passages: PassageSpec | None = None  # None: whole documents
    is_of_run: bool = False  # whether a run left the model; one of no run reads what it is given

    @property
    def is_plain(self) -> bool:
        """Return whether documents are read whole, as the dataset has them."""
        return not self.template and self.passages is None

    def written(self, dataset: Dataset, where: str) -> Dataset:
        """Return the dataset with its documents as the model reads them.

        Args:
            dataset: the dataset, whose documents the recipe that asks may have written by a template of its own.
            where: what names the model, for errors.

        Raises:
            UsageError: the template names a field that the documents do not have.
        """
        if self.template or not self.is_of_run or dataset.cache is None:
            return with_template(dataset, self.template, where)
        return replace(dataset, documents=open_dataset(dataset.name, dataset.cache).documents)

    def __str__(self) -> str:
        own = self.passages
        parts = [f"documents as {self.template}"] if self.template else []
        if own is not None:
            parts.append(f"{own.max_passages} passages of {own.length} tokens, stride {own.stride}, {own.aggregation}")
        return ", in ".join(parts)


def documents_of(folder: Path) -> ModelDocuments:
    """Return how the run that left the model in `folder` read documents.

    Raises:
        DamagedError: the plan of that run cannot be read.
    """
    parents = folder.resolve().parents
    path = parents[2] / "plan.json" if len(parents) > 2 else None
    if path is None or parents[1].name != "stages" or not path.is_file():
        return ModelDocuments()
    try:
        recipe = json_records.decode(path.read_bytes(), _StoredPlan).plan.recipe
    except (OSError, *json_records.DECODE_ERRORS) as error:
        what = f"the plan of the run that trained {folder} cannot be read: {error}"
        raise DamagedError(
            what, where=str(path), hint="without it nobody knows how the model read documents"
        ) from error
    stage = _stage_of(recipe, parents[0].name)
    if not stage:
        return ModelDocuments()
    own = recipe.passages_of(stage)
    template = recipe.base_template or recipe.data.document_template
    if not own.has_passages:
        return ModelDocuments(template=template, is_of_run=True)
    choice = json_records.load_if_there(path.parent / "aggregations" / f"{slug(stage)}.json", _ChosenAggregation)
    aggregation = own.first_aggregation if choice is None else choice.chosen
    passages = msgspec.structs.replace(own, aggregation=aggregation)
    return ModelDocuments(template=template, passages=passages, is_of_run=True)


def _stage_of(recipe: Recipe, name: str) -> str:
    """Return the stage whose folder is called so; "" for none."""
    named = {f"{index}-{plain_name(stage)}": stage for index, stage in enumerate(recipe.chain, 1)}
    return named.get(name, "")


def use_passages(spec: PassageSpec | None, scorer: Scorer, dataset: Dataset, where: str) -> None:
    """Let the scorer cut documents into passages, if that is asked for.

    Args:
        spec: how documents are cut; None for not at all.
        scorer: the model.
        dataset: where titles are.
        where: what asks for titles, for errors.

    Raises:
        UsageError: passages do not fit beside a query, or titles are asked for and there are none.
    """
    if spec is None or (windows := PassageWindows.of_spec(spec)) is None:
        return
    titles = titles_of(dataset, where) if windows.title else None
    scorer.use_passages(WindowsInUse(windows, titles), spec.first_aggregation, spec.top)
