"""Add a loss, a sampler of negatives, an import format, a first stage or an executor; see `cerank guide extending`.

Each decorator enters a function under a name. The module that uses them is named by an entry point in the group
`cerank.extensions` of the distribution that it belongs to. Import torch and other large libraries inside the functions:
the command line and the dashboard import the module, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cerank.recipes.loss_specs import Target

Function = TypeVar("Function", bound=Callable[..., Any])


def loss(
    name: str, *, takes: Sequence[Target] = ("positives",), description: str = "", has_pairs: bool = False
) -> Callable[[Function], Function]:
    """Return a decorator for a loss: (scores, labels, mask) -> one number a group, as `cerank.training.losses` says.

    Args:
        name: value of `loss` in a recipe.
        takes: what the labels may hold, best first: "positives", "grades", "ranks" or "scores".
        description: one line for `cerank recipes losses`.
        has_pairs: whether it is a mean over pairs of documents, so that `mean_over = "pairs"` may pool them.
    """

    def enter(function: Function) -> Function:
        from cerank.recipes.loss_specs import LOSSES, LossNeeds

        LOSSES.add(name)(LossNeeds(name, tuple(takes), description, has_pairs=has_pairs, function=function))
        return function

    return enter


def negatives(name: str) -> Callable[[Function], Function]:
    """Return a decorator for a sampler of negatives: (pool, ranks, size, generator) -> `size` items of the pool.

    Args:
        name: value of `negatives` in a recipe.
    """

    def enter(function: Function) -> Function:
        from cerank.core.negative_samplers import NEGATIVE_SAMPLERS

        NEGATIVE_SAMPLERS.add(name)(function)
        return function

    return enter


def importer(
    name: str, *, description: str, gives: str = "", run: str = "", collection: str = ""
) -> Callable[[Function], Function]:
    """Return a decorator for the reader of a format: (files, writer, run name) -> None; it calls the writer's methods.

    Args:
        name: the format's name for `cerank data import`.
        description: one line about what a row of the format holds.
        gives: one line about what the dataset folder will hold.
        run: name of the run that the files make, where `--name` gives none.
        collection: ir_datasets id with the texts, where the files have ids only.
    """

    def enter(function: Function) -> Function:
        from cerank.importing.format_catalog import FORMATS, Format

        FORMATS.add(name)(
            Format(name=name, description=description, gives=gives, read=function, run=run, collection=collection)
        )
        return function

    return enter


def first_stage(name: str) -> Callable[[Function], Function]:
    """Return a decorator for a first stage: (queries, documents, depth) -> query id -> document id -> score.

    Args:
        name: the name in `data.first_stages` of a recipe.
    """

    def enter(function: Function) -> Function:
        from cerank.retrieval.first_stage import RETRIEVERS

        RETRIEVERS.add(name)(function)
        return function

    return enter


def executor(name: str) -> Callable[[Function], Function]:
    """Return a decorator for an executor: (worker's command, plan) -> the command that is started in its place.

    Args:
        name: the value of the setting `executor` (CERANK_EXECUTOR).
    """

    def enter(function: Function) -> Function:
        from cerank.scheduler.command_wrappers import EXECUTORS

        EXECUTORS.add(name)(function)
        return function

    return enter
