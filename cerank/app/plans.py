"""From a recipe to a plan: every name checked, every path absolute, every input found and hashed, the work counted.

Invariant: nothing here writes to a lab, so a recipe that cannot be carried out leaves no half-made run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import cerank
from cerank.datasets.aliases import ALIASES, FIRST_STAGES
from cerank.errors import RecipeError
from cerank.files.hashing import hashed_inputs
from cerank.machine.devices import explain_device, physical_cores
from cerank.models.bases import BASES, locate
from cerank.models.preflight import check_base
from cerank.planning.workload import WorkItem, count_work
from cerank.recipes.loss_specs import loss_mistakes
from cerank.recipes.plan import Input, Plan
from cerank.recipes.schema import Recipe, rate_mistakes
from cerank.registry import nearest
from cerank.runs import run_store
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.datasets.query_overlaps import Overlap

__all__ = ["WorkItem", "count_work"]  # from planning; the functions of plans are below


def parts_of(dataset: str) -> tuple[str, str, tuple[str, ...]]:
    """Return (train, validation, tests) that one dataset stands for.

    Its own splits, else disjoint parts of its queries.
    """
    if dataset == "pydocs":
        return "pydocs/train", "pydocs/validation", ("pydocs/test",)
    return f"{dataset}[:60%]", f"{dataset}[60%:80%]", (f"{dataset}[80%:]",)


def checked(recipe: Recipe) -> Recipe:
    """Return the recipe, after checking its losses, the targets they get, and its learning rates.

    Raises:
        RecipeError: with all such mistakes.
    """
    mistakes = loss_mistakes(recipe)
    hint = "see `cerank recipes losses`" if mistakes else ""
    mistakes += rate_mistakes(recipe)
    if mistakes:
        raise RecipeError("\n".join(mistakes), where=f"recipe {recipe.name}", hint=hint)
    return recipe


def plan_of(
    recipe: Recipe,
    settings: Settings,
    *,
    now: datetime,
    label: str = "",
    tell: Callable[[str], object] = str,
) -> Plan:
    """Return the recipe as a plan.

    Args:
        recipe: recipe to plan; settings that it does not make get their defaults.
        settings: settings in force, such as the device, the number of threads and the cache.
        now: time at which the plan is made, with a time zone.
        label: label that the user gave the run; "" for none.
        tell: called with the name of each part that may take a while, such as "opening pydocs/train".

    Raises:
        CerankError: anything in the recipe that could not be carried out.
    """
    from cerank.datasets import query_overlaps
    from cerank.datasets.open_datasets import open_dataset
    from cerank.planning.inputs import dataset_names, extensions_used, hash_inputs
    from cerank.scheduler.executors import EXECUTORS

    run_store.check_no_token(label, "the label")
    complete = absolute(checked(recipe))
    datasets: dict[str, Dataset] = {}
    for name in dataset_names(complete):
        tell(f"opening {name}")
        datasets[name] = open_dataset(name, settings.cache)
    tell("looking for queries that the datasets share")
    query_overlaps.check_test_queries(query_overlaps.overlaps(complete, datasets), complete)
    measured, each = measures_checked(complete, datasets)
    device, reason = explain_device(settings.device)
    tell(f"device {device}: {reason}")
    for name, stage in complete.chained():
        if device.startswith("cuda") and stage.precision == "fp32":
            tell(f'stages.{name}: fp32 uses a small part of a GPU; precision = "auto" uses bf16 where it is fast')
    executor = EXECUTORS.extension(settings.executor)
    tell(f"reading the base model {complete.base} and hashing the inputs")
    inputs = hash_inputs(complete, datasets, fetch=True)
    check_base_of(complete, inputs)
    filled, reasons = _fill_gpu_settings(measured, device, inputs)
    for setting, reason in reasons.items():
        tell(f"{setting}: {reason}")
    return Plan(
        recipe=filled,
        reasons=reasons,
        measures=each,
        inputs=inputs,
        hashed=hashed_inputs(),
        device=device,
        threads=settings.threads or physical_cores(),
        cache=str(settings.cache.resolve()),
        extensions=(*extensions_used(measured), *([executor] if executor else [])),
        label=label,
        created=now.isoformat(timespec="seconds"),
        versions={"python": sys.version.split()[0], "cerank": cerank.__version__},
    )


def _fill_gpu_settings(recipe: Recipe, device: str, inputs: Sequence[Input]) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the settings that it leaves to a GPU, and why they were chosen; see `gpu_settings`."""
    from cerank.machine.gpu_properties import smallest_gpu
    from cerank.planning.gpu_settings import fill_gpu_settings

    gpu = smallest_gpu(device, os.environ) if device.startswith("cuda") else None
    return fill_gpu_settings(recipe, device, _base_folder(inputs), gpu)


def _base_folder(inputs: Sequence[Input]) -> Path:
    return next(Path(entry.location) for entry in inputs if entry.role == "base")


def check_base_of(recipe: Recipe, inputs: Sequence[Input]) -> None:
    """Check what the files of the base model say against what the recipe asks of it.

    Raises:
        UsageError: a run could not use it; the error says why.
    """
    folder = _base_folder(inputs)
    lengths = {f"stages.{name}.max_length": stage.max_length for name, stage in recipe.chained()}
    reading = locate(recipe.base, fetch=False, pooling=recipe.pooling).reading()
    has_one_score = reading.pooling == "classifier" and reading.label is None
    check_base(folder, lengths, needs_one_score=has_one_score, is_language_model=reading.declaration is not None)


def shared_queries(plan: Plan) -> tuple[Overlap, ...]:
    """Return the queries that parts of a plan share; opens its datasets."""
    from cerank.datasets import query_overlaps
    from cerank.planning.inputs import open_datasets

    return query_overlaps.overlaps(plan.recipe, open_datasets(plan.recipe, Path(plan.cache)))


def work_of(plan: Plan) -> tuple[WorkItem, ...]:
    """Return the plan's work, part by part; exact for steps, an upper bound where a query has fewer candidates."""
    from cerank.planning.inputs import open_datasets

    datasets = open_datasets(plan.recipe, Path(plan.cache))
    return count_work(plan.recipe, {name: len(dataset.queries) for name, dataset in datasets.items()})


def absolute(recipe: Recipe) -> Recipe:
    """Return the recipe with every path in it made absolute, for the worker runs in another folder."""
    data = recipe.data
    paths = msgspec.structs.replace(
        data,
        train=_absolute(data.train),
        validation=_absolute(data.validation),
        test=tuple(_absolute(name) for name in data.test),
        first_stages=tuple(_absolute(name) for name in data.first_stages),
        validation_first_stage=_absolute(data.validation_first_stage),
    )
    stages = {
        name: msgspec.structs.replace(
            stage,
            dataset=_absolute(stage.dataset),
            first_stage=_absolute(stage.first_stage),
            teacher=_absolute(stage.teacher),
        )
        for name, stage in recipe.stages.items()
    }
    return msgspec.structs.replace(recipe, base=_absolute(recipe.base), data=paths, stages=stages)


_NAMES = {*BASES, *ALIASES, *FIRST_STAGES, "bm25", "scoreddocs", "embedding"}


def _absolute(name: str) -> str:
    """Return `name` with its path made absolute if it is one that exists; a name that is no path stays."""
    path, mark, rest = name.partition("[")
    folder, sharp, split = path.partition("#")
    if not folder or "\0" in folder or folder in _NAMES or folder.startswith("pydocs/"):
        return name  # a file of that name in the working folder does not stand in for it
    path_found = Path(folder).expanduser()
    is_path = "/" in folder or os.sep in folder or folder.startswith((".", "~")) or path_found.is_file()
    return f"{path_found.resolve()}{sharp}{split}{mark}{rest}" if is_path and path_found.exists() else name


def _margins_checked(given: Mapping[str, float], measures: Sequence[str], key: str = "margins") -> dict[str, float]:
    """Return the margins (or gains, or harm margins: the table `key`) under their measures' canonical names."""
    from cerank.evaluation.measures import canonical, limits

    where = f"evaluate.{key}"
    margins: dict[str, float] = {}
    for name, value in given.items():
        measure = canonical(name, f"{where} {name}")
        if measure not in measures:
            hint = f"{nearest(measure, measures)}; add it to evaluate.measures or remove its margin"
            raise RecipeError(
                f"{name}: margin for a measure that is not evaluated", where=where, hint=hint, code="margin-unused"
            )
        if (span := limits(measure)) is not None and value >= span[1] - span[0]:
            raise RecipeError(
                f"{name}: a margin of {value:g} calls any two systems equivalent",
                where=where,
                hint=f"{measure} spans {span[1] - span[0]:g}; name a difference that would not matter, such as .02",
                code="margin-too-large",
            )
        if margins.get(measure, value) != value:
            raise RecipeError(
                f"{name}: {measure} is given twice, under two spellings, with different margins",
                where=where,
                code="margin-twice",
            )
        margins[measure] = value
    return margins


def measures_checked(recipe: Recipe, datasets: dict[str, Dataset]) -> tuple[Recipe, dict[str, tuple[str, ...]]]:
    """Return the recipe with canonical measures, each known and able to differ from 0 on what it is computed on.

    Where it says "auto", each test dataset has its own, which are returned by its name, and the recipe has all of them.
    """
    from cerank.evaluation.measures import check

    measures, each = _measures_of(recipe, datasets)
    dataset = datasets[recipe.data.validation]
    stages = dict(recipe.stages)
    for name, stage in recipe.chained():
        if stage.validation_measure == "loss":  # the stage's own; not a measure
            continue
        queries = list(dataset.queries)[: stage.validation_queries or None]
        validation = {query: dataset.qrels.get(query, {}) for query in queries}
        where = f"stages.{name}.validation_measure"
        (chosen,) = check([stage.validation_measure], validation, where)
        stages[name] = msgspec.structs.replace(stage, validation_measure=chosen)
    margins = _margins_checked(recipe.evaluate.margins, measures)
    worth = _margins_checked(recipe.evaluate.worth, measures, "worth")
    harm = _margins_checked(recipe.evaluate.harm, measures, "harm")
    for name, gain in worth.items():
        if gain < margins.get(name, 0.0):
            what = f"{name}: a gain of {gain:g} cannot be worth it if differences up to {margins[name]:g} do not matter"
            raise RecipeError(what, where="evaluate.worth", hint="declare a gain of at least the margin")
    _check_primary(recipe, measures)
    changes = {"measures": measures, "margins": margins, "worth": worth, "harm": harm}
    evaluate = msgspec.structs.replace(recipe.evaluate, **changes)
    return msgspec.structs.replace(recipe, evaluate=evaluate, stages=stages), each


def _check_primary(recipe: Recipe, measures: Sequence[str]) -> None:
    """Reject primary questions about measures that are not evaluated."""
    from cerank.evaluation.primary_questions import questions

    for question in questions(recipe.evaluate.primary, "evaluate.primary"):
        if question.measure and question.measure not in measures:
            hint = f"{nearest(question.measure, measures)}; add it to evaluate.measures"
            raise RecipeError(f"{question.measure} is not evaluated", where="evaluate.primary", hint=hint)


def _measures_of(recipe: Recipe, datasets: dict[str, Dataset]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return all measures of the recipe, and those of each test dataset where it says "auto"."""
    from cerank.datasets.aliases import AUTO
    from cerank.datasets.open_datasets import measures_of
    from cerank.evaluation.measures import check

    requested = recipe.evaluate.measures
    each = {}
    for test in recipe.data.test:
        own = [name for entry in requested for name in (measures_of(datasets[test]) if entry == AUTO else (entry,))]
        each[test] = check(own, datasets[test].qrels, f"evaluate.measures on {test}")
    everything = tuple(dict.fromkeys(name for names in each.values() for name in names))
    return everything, each if AUTO in requested else {}
