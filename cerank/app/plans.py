"""From a recipe to a plan: every name checked, every path absolute, every input found and hashed, the work counted.

Invariant: nothing here writes to a lab, so a recipe that cannot be carried out leaves no half-made run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import cerank
from cerank.app.test_collections import collection_groups
from cerank.core.ranks import MOST_SHARDS
from cerank.datasets.aliases import ALIASES, FIRST_STAGES, IMPORTED_DATASETS
from cerank.datasets.mixtures import set_number
from cerank.errors import CerankError, RecipeError, UsageError
from cerank.evaluation.verdicts.declared_measures import measures_checked
from cerank.files.hashing import hashed_inputs
from cerank.machine.devices import detect_devices, explain_device, physical_cores
from cerank.models.bases import BASES
from cerank.models.lora.rounded_matrices import check_quantization
from cerank.planning import base_fit, several_devices
from cerank.planning.workload import WorkItem, count_work, sizes_of
from cerank.recipes.loss_specs import loss_mistakes
from cerank.recipes.paths import COUNTED_FOLDS, with_file_of_folds
from cerank.recipes.plan import Input, Plan
from cerank.recipes.recipe_checks import rate_mistakes
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.set_mixtures import is_mixture, with_names
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.datasets.query_overlaps import Overlap

__all__ = ["WorkItem", "count_work"]  # from planning; the functions of plans are below


def check_whole(dataset: str) -> None:
    """Check that a dataset which stands for training, validation and test is no part of one.

    Raises:
        UsageError: it is one, or would be with other bounds.
    """
    from cerank.datasets.dataset import part_size
    from cerank.datasets.open_datasets import whole_and_part

    name, part = whole_and_part(dataset)
    if part and not part.startswith("[fold"):
        part_size(part, 100)  # more than 100 % or no number is said first
        raise UsageError(
            f"'{shown(part, 40)}' is a part; for training, validation and test a dataset is divided as a whole",
            where=shown(dataset, 200),
            hint=f"name all of {shown(name, 80)}, or set each: --set 'data.train={shown(name, 80)}[:50%]' and so on",
            code="part-of-part",
        )


def parts_of(dataset: str, split_by: str = "") -> tuple[str, str, tuple[str, ...]]:
    """Return (train, validation, tests) that one dataset stands for.

    Its own splits, else disjoint parts of its queries.

    Args:
        dataset: the whole dataset.
        split_by: "relevant" or a field of its queries, see `query_splits`; "" for their ids.

    Raises:
        UsageError: `split_by` for a dataset with splits of its own, or that is no name of a field.
    """
    if dataset == "pydocs":
        if split_by:
            what = "pydocs comes in parts of its own"
            raise UsageError(what, where="--split-by", hint="name another dataset", code="options-conflict")
        return "pydocs/train", "pydocs/validation", ("pydocs/test",)
    if re.search(r"[\[\]:]", split_by):
        hint = "give relevant, or the name of a field of the queries such as date"
        what = f"'{shown(split_by, 40)}' is no field"
        raise UsageError(what, where="--split-by", hint=hint, code="query-field-missing")
    by = f" by {split_by}" if split_by else ""
    return f"{dataset}[:60%{by}]", f"{dataset}[60%:80%{by}]", (f"{dataset}[80%:{by}]",)


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
        UsageError: the recipe stands for a run for each fold, which `fold_recipes` makes of it.
    """
    from cerank.datasets import query_overlaps, synthetic
    from cerank.planning.inputs import dataset_names, extensions_used, hash_inputs, open_with_template
    from cerank.scheduler.command_wrappers import EXECUTORS

    run_store.check_no_token(label, "the label")
    if recipe.data.folds:
        what = (
            f"data.folds = '{shown(recipe.data.folds, 120)}' stands for a run for each fold, and one run was asked for"
        )
        hint = "`cerank run` makes all of them"
        raise UsageError(what, where=f"recipe {recipe.name}, data.folds", hint=hint, code="folds-one-run")
    complete, groups = collection_groups.with_tests(absolute(checked(recipe)), settings.cache)
    collection_groups.check_names(complete.data.test, f"recipe {complete.name}, data.test")
    for note in groups:
        tell(f"data.test: {note}")
    datasets: dict[str, Dataset] = {}
    for name in dataset_names(complete):
        tell(f"opening {name}")
        datasets[name] = open_with_template(name, complete, settings.cache)
    synthetic.check_tests({name: datasets[name] for name in complete.data.test}, f"recipe {complete.name}")
    tell("looking for queries that the datasets share")
    query_overlaps.check_test_queries(query_overlaps.overlaps(complete, datasets), complete)
    _check_tuned_apart(complete, datasets, settings.cache, tell)
    measured, each = measures_checked(complete, datasets)
    device, reason = explain_device(settings.device)
    tell(f"device {device}: {reason}")
    for name, stage in complete.chained():
        if device.startswith("cuda") and stage.precision == "fp32":
            tell(f'stages.{name}: fp32 uses a small part of a GPU; precision = "auto" uses bf16 where it is fast')
    # a plan may be for another machine; whether this one has the devices is asked before a run starts here
    present = detect_devices(os.environ) if settings.devices == "all" else None
    several = several_devices.parse_devices(settings.devices, device, present)
    step_shards = MOST_SHARDS if several or complete.compute.shard_parameters else 0
    several_devices.check_division(complete, step_shards, max(1, len(several)))
    several_devices.check_sharding(complete)
    device = several[0] if several else device
    cores = physical_cores() // len(several) if device == "cpu" and several else physical_cores()
    executor = EXECUTORS.extension(settings.executor)
    tell(f"reading the base model {complete.base} and computing the checksums of the inputs")
    inputs = hash_inputs(complete, datasets, fetch=True)
    base_fit.check_base_of(complete, inputs)
    for name, stage in complete.chained():
        check_quantization(stage.adapter, device, f"stages.{name}.adapter")
    filled, reasons = _fill_gpu_settings(measured, device, inputs)
    for setting, reason in reasons.items():
        tell(f"{setting}: {reason}")
    if groups:
        reasons = {**reasons, "data.test": "; ".join(groups)}
    base_fit.check_baselines_of(inputs)
    inputs = with_unknown_documents(complete, inputs, datasets)
    return Plan(
        recipe=filled,
        reasons=reasons,
        measures=each,
        inputs=inputs,
        hashed=hashed_inputs(),
        device=device,
        devices=several,
        step_shards=step_shards,
        threads=settings.threads or max(1, cores),
        cache=str(settings.cache.resolve()),
        extensions=(*extensions_used(measured), *([executor] if executor else [])),
        label=label,
        created=now.isoformat(timespec="seconds"),
        versions={"python": sys.version.split()[0], "cerank": cerank.__version__},
    )


def _check_tuned_apart(
    recipe: Recipe, datasets: Mapping[str, Dataset], cache: Path, tell: Callable[[str], object]
) -> None:
    """Check that no sweep chose settings of a recipe by its test queries, as far as the sweep's dataset is here.

    Raises:
        RecipeError: one did, and the recipe does not allow it.
    """
    from cerank.datasets import irds, query_overlaps
    from cerank.planning.inputs import open_with_template

    name = recipe.tuned.validation
    if not recipe.tuned.is_tuned or not name or not recipe.data.test:
        return
    try:
        with irds.offline():
            tuned_on = datasets[name] if name in datasets else open_with_template(name, recipe, cache)
            shared = query_overlaps.with_tuning(recipe, datasets, tuned_on)
    except CerankError:
        sweep = shown(recipe.tuned.sweep, 80)
        tell(f"{shown(name, 120)} is not here, so nobody looked whether sweep {sweep} chose settings by test queries")
        return
    query_overlaps.check_test_queries(shared, recipe)


def _fill_gpu_settings(recipe: Recipe, device: str, inputs: Sequence[Input]) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the settings that it leaves to a GPU, and why they were chosen; see `gpu_settings`."""
    from cerank.machine.gpu_properties import smallest_gpu
    from cerank.planning.gpu_settings import fill_gpu_settings

    gpu = smallest_gpu(device, os.environ) if device.startswith("cuda") else None
    return fill_gpu_settings(recipe, device, base_fit.base_folder(inputs), gpu)


_LOOKED_UP = 10_000  # judged documents of a dataset whose ids are looked up at most; of a pool that has more, the first


def with_unknown_documents(
    recipe: Recipe, inputs: Sequence[Input], datasets: Mapping[str, Dataset]
) -> tuple[Input, ...]:
    """Return the inputs, with a note on each dataset of whose judged documents some are not in its collection.

    Datasets whose qrels are not read (of stages that learn from a teacher) are left out, and so are those of the
    catalog, also as sets of a mixture: looking up a document may mean to fetch the collection. No index is built.

    Raises:
        UsageError: the collection has none of the documents that are judged, so all measures and labels would be 0.
    """
    trained = [stage.dataset or recipe.data.train for _, stage in recipe.sources() if stage.source == "labels"]
    notes: dict[str, str] = {}
    validation = [stage.validation or recipe.data.validation for _, stage in recipe.chained()]
    for name in dict.fromkeys((*recipe.data.test, *validation, *trained)):
        dataset = datasets[name]
        if note := unknown_judged(name, dataset):
            notes[name] = note
    return tuple(
        msgspec.structs.replace(entry, notes=(*entry.notes, notes[entry.name]))
        if entry.role == "dataset" and entry.name in notes
        else entry
        for entry in inputs
    )


def unknown_judged(name: str, dataset: Dataset) -> str:
    """Return how many relevant documents of a dataset its collection lacks, in a sentence; "" where it has all of them.

    The first `_LOOKED_UP` are looked up, of a collection of the catalog none.

    Raises:
        UsageError: the collection has none of them.
    """
    local = {number for number, member in dataset.members.items() if not member.reads_catalog}
    relevant = (
        doc
        for row in dataset.qrels.values()
        for doc, grade in row.items()
        if grade > 0 and (set_number(doc) in local if dataset.members else not dataset.reads_catalog)
    )
    judged: dict[str, None] = {}
    for doc in relevant:  # no further than needed: of a large dataset there are millions
        judged[doc] = None
        if len(judged) > _LOOKED_UP:
            break
    looked_up = list(itertools.islice(judged, _LOOKED_UP))
    unknown = [doc for doc in looked_up if doc not in dataset.documents]
    if not unknown:
        return ""
    first = "first " if len(judged) > _LOOKED_UP else ""
    of = f"{len(unknown):,} of the {first}{len(looked_up):,} relevant documents"
    some = ", ".join(shown(doc, 40) for doc in unknown[:3])
    if len(unknown) == len(looked_up):
        holder = dataset.members[min(local)] if dataset.reads_catalog else dataset
        known = ", ".join(shown(doc, 40) for doc, _ in itertools.islice(holder.documents, 3))
        hint = f"its qrels name {some}, its documents are called {known}"
        raise UsageError(f"{of} in the qrels are not in the collection", where=name, hint=hint, code="judged-unknown")
    return f"{of} in its qrels are not in the collection, such as {some}"


def shared_queries(plan: Plan) -> tuple[Overlap, ...]:
    """Return the queries that parts of a plan share; opens its datasets."""
    from cerank.datasets import query_overlaps
    from cerank.planning.inputs import open_datasets

    return query_overlaps.overlaps(plan.recipe, open_datasets(plan.recipe, Path(plan.cache)))


def work_of(plan: Plan) -> tuple[WorkItem, ...]:
    """Return the plan's work, part by part; exact for steps, an upper bound where a query has fewer candidates."""
    from cerank.planning.inputs import open_datasets

    datasets = open_datasets(plan.recipe, Path(plan.cache))
    return count_work(plan.recipe, *sizes_of(datasets))


def absolute(recipe: Recipe) -> Recipe:
    """Return the recipe with every path in it made absolute, for the worker runs in another folder."""
    data = recipe.data
    paths = msgspec.structs.replace(
        data,
        train=_absolute(data.train),
        validation=_absolute(data.validation),
        test=tuple(collection_groups.with_names(name, _absolute) for name in data.test),
        first_stages=tuple(_absolute(name) for name in data.first_stages),
        validation_first_stage=_absolute(data.validation_first_stage),
        folds=_absolute_file(data.folds) if data.folds and not COUNTED_FOLDS.fullmatch(data.folds) else data.folds,
    )
    stages = {
        name: msgspec.structs.replace(
            stage,
            dataset=_absolute(stage.dataset),
            validation=_absolute(stage.validation),
            first_stage=_absolute(stage.first_stage),
            teacher=_absolute(stage.teacher),
            losses=tuple(
                msgspec.structs.replace(part, teacher=_absolute(part.teacher), sets=tuple(map(_absolute, part.sets)))
                for part in stage.losses
            ),
            negative_sources=tuple(
                msgspec.structs.replace(source, run=_absolute(source.run)) for source in stage.negative_sources
            ),
            false_negatives=msgspec.structs.replace(
                stage.false_negatives, scores=_absolute(stage.false_negatives.scores)
            ),
        )
        for name, stage in recipe.stages.items()
    }
    baselines = tuple(map(_absolute, recipe.baselines))
    return msgspec.structs.replace(recipe, base=_absolute(recipe.base), baselines=baselines, data=paths, stages=stages)


_NAMES = {*BASES, *ALIASES, *FIRST_STAGES, *IMPORTED_DATASETS, "bm25", "scoreddocs", "embedding"}


def _absolute(name: str) -> str:
    """Return `name` with its path made absolute if it is one that exists; a name that is no path stays."""
    if is_mixture(name):
        with contextlib.suppress(UsageError):  # what is wrong with it is said when it is opened
            return with_names(name, _absolute)
        return name
    name = with_file_of_folds(name, _absolute_file)
    path, mark, rest = name.partition("[")
    folder, sharp, split = path.partition("#")
    if not folder or "\0" in folder or folder in _NAMES or folder.startswith("pydocs/"):
        return name  # a file of that name in the working folder does not stand in for it
    path_found = Path(folder).expanduser()
    is_path = "/" in folder or os.sep in folder or folder.startswith((".", "~")) or path_found.is_file()
    return f"{path_found.resolve()}{sharp}{split}{mark}{rest}" if is_path and path_found.exists() else name


def _absolute_file(name: str) -> str:
    with contextlib.suppress(OSError, ValueError):  # too long for a path, or with a NUL: opening it says so
        path = Path(name).expanduser()
        return str(path.resolve()) if path.exists() else name
    return name
