"""From a checked draft to plans, their work, and runs in the queue; every refusal named beside the field it is about.

Invariant: nothing is launched that was not planned whole, and every run of a matrix is planned before the first starts.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from cerank.app import estimates, fold_runs, plans
from cerank.app.lab import Lab
from cerank.app.matrix.drafts import DraftRun, FieldError
from cerank.app.plans import WorkItem
from cerank.errors import CerankError, RunFailedError
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.safe_text import counted

ReportProgress = Callable[[str], None]


class PlannedMatrix(msgspec.Struct, frozen=True):
    """The runs of a draft, planned; or the errors that planning found."""

    cells: tuple[DraftRun, ...] = ()
    plans: tuple[Plan, ...] = ()  # one a cell
    work: tuple[WorkItem, ...] = ()  # work of all runs together, part by part; shared work counts once
    shared: tuple[WorkItem, ...] = ()  # what is not done again, for another run of the matrix does it
    errors: tuple[FieldError, ...] = ()

    @property
    def pairs(self) -> int:
        """Return the number of pairs through the model, at most."""
        return sum(part.pairs for part in self.work)

    @property
    def minutes(self) -> float | None:
        """Return how long all of it takes on one device; None where a part of it was never timed here."""
        return estimates.total(self.work)


def plan_runs(cells: Sequence[DraftRun], settings: Settings, now: datetime, say: ReportProgress) -> PlannedMatrix:
    """Open and hash what the cells read. Cells that differ in the seed alone are planned once.

    Args:
        cells: the runs.
        settings: settings to plan with, as `Lab.plan_settings` returns them.
        now: time at which they are planned, with a time zone.
        say: called with a text for each step.
    """
    from cerank.planning import stage_keys

    made: dict[bytes, Plan] = {}
    work: dict[bytes, tuple[WorkItem, ...]] = {}
    errors: list[FieldError] = []
    planned: list[Plan] = []
    for cell in cells:
        but_for_seed = _recipe_key(msgspec.structs.replace(cell.recipe, seed=0))
        anywhere = _recipe_key(msgspec.structs.replace(cell.recipe, seed=0, base=""))
        if but_for_seed not in made:
            say(f"{cell.recipe.name} on {cell.recipe.base}: reading its data and models, and computing their checksums")
            try:
                made[but_for_seed] = plans.plan_of(cell.recipe, settings, now=now)
                work[anywhere] = work.get(anywhere) or plans.work_of(made[but_for_seed])
            except CerankError as error:
                errors.append(FieldError(field_of_error(cell.recipe, settings, error), one_line(error)))
                continue
        plan = made[but_for_seed]
        recipe = msgspec.structs.replace(plan.recipe, seed=cell.recipe.seed)
        planned.append(msgspec.structs.replace(plan, recipe=recipe, label=cell.label, shares=len(cells) > 1))
    if errors:
        return PlannedMatrix(errors=tuple(dict.fromkeys(errors)))
    totals = WorkTotals()
    for cell, plan in zip(cells, planned, strict=True):
        parts = work[_recipe_key(msgspec.structs.replace(cell.recipe, seed=0, base=""))]
        known = estimates.rates(settings.lab, plan.recipe, plan.device, plan.threads)
        totals.add(plan.recipe, stage_keys.stage_keys(plan), estimates.timed(parts, known))
    return PlannedMatrix(tuple(cells), tuple(planned), totals.done, totals.shared)


class WorkTotals:
    """Sums the work of several runs, part by part, where equal stages are trained, and so re-ranked by, once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._done: dict[str, WorkItem] = {}
        self._shared: dict[str, WorkItem] = {}

    @property
    def done(self) -> tuple[WorkItem, ...]:
        """Return the work that has to be done."""
        return tuple(self._done.values())

    @property
    def shared(self) -> tuple[WorkItem, ...]:
        """Return the work that is done for another of the runs already."""
        return tuple(self._shared.values())

    def add(
        self, recipe: Recipe, cache_keys: Sequence[str], work: Sequence[WorkItem], given: Container[str] = ()
    ) -> tuple[WorkItem, ...]:
        """Enter a run's work; return the parts that it does itself, because no run before it did.

        Args:
            recipe: recipe of the run to add.
            cache_keys: cache keys of its stages, in order; see `planning.stage_keys`.
            work: work of the run, part by part, with the stages in order.
            given: cache keys of stages that runs of the lab have finished already.
        """
        keys = dict(zip(recipe.chain, cache_keys, strict=True))
        data = recipe.data
        tested = repr((data.test, data.first_stages, data.depth))
        # a baseline is no training: the runs share its scores where they give it the same texts
        last = recipe.stages[recipe.chain[-1]].precision  # a baseline is scored as the last stage is
        for system, model in recipe.baseline_models().items():
            keys[system] = repr((model, recipe.passages_of(system), data.document_template, last))
        is_finished = all(stage in given for stage in cache_keys)
        own = []
        for part in work:
            stage = keys[part.stage]
            key = f"{stage} {part.part} {tested if part.part.startswith('re-rank ') else ''}"
            is_shared = key in self._seen or stage in given or is_finished
            sums = self._shared if is_shared else self._done
            own += [] if is_shared else [part]
            self._seen.add(key)
            before = sums.get(part.part)
            sums[part.part] = sum_of_work(before, part) if before else part
        return tuple(own)


def sum_of_work(work: WorkItem, other: WorkItem) -> WorkItem:
    """Return two parts of one name together; their time is unknown where one's is."""
    is_known = work.minutes is not None and other.minutes is not None
    minutes = (work.minutes or 0.0) + (other.minutes or 0.0) if is_known else None
    stage = work.stage if work.stage == other.stage else ""
    return WorkItem(work.part, work.units + other.units, work.pairs + other.pairs, stage, minutes)


def launch(lab: Lab, matrix: PlannedMatrix) -> tuple[RunFolder, ...]:
    """Put every run of the matrix in the queue, in order.

    Raises:
        CerankError: one was refused; the hint says how many were queued before it.
    """
    folders: list[RunFolder] = []
    for cell, plan in zip(matrix.cells, matrix.plans, strict=True):
        try:
            folders.append(lab.enqueue(plan, cell.toml))
        except CerankError as error:
            if not folders:
                raise
            those = ", ".join(run_store.short_name(folder) for folder in folders)
            hint = f"{len(folders)} of {counted(len(matrix.cells), 'run')} queued: {those}"
            raise RunFailedError(error.what, where=error.where, hint=hint) from error
    return tuple(folders)


def one_line(error: CerankError) -> str:
    """Return an error as one line, to be shown beside a field."""
    return " · ".join([*error.what.split("\n"), *([error.hint] if error.hint else [])])


_OF_FOLDS = ("folds-too-many", "folds-too-few")  # codes of errors that other folds of the same data would not have


def field_of_error(recipe: Recipe, settings: Settings, error: CerankError) -> str:
    """Return the key path that an error of planning is about: the first input that cannot be opened by itself.

    Planning names datasets and files, a form has fields; only what went wrong is opened a second time.
    """
    complete = plans.absolute(recipe)
    for path, look in _inputs(complete, settings.cache):
        try:
            look()
        except CerankError as found:
            return "data.folds" if found.code in _OF_FOLDS else path
    named = error.where.split(" ")[0]
    return named if named.startswith(("evaluate.", "stages.")) else "recipes"


def _inputs(recipe: Recipe, cache: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each thing the recipe reads, as the key path that names it and a look at it."""
    from cerank.datasets.open_datasets import open_dataset
    from cerank.models import bases
    from cerank.planning.inputs import (
        cuts_lists,
        ranks_candidates,
        training_dataset,
        training_first_stage,
        validation_first_stage,
    )
    from cerank.retrieval import first_stage

    data, stages = recipe.data, recipe.chained()
    yield "base", partial(bases.locate, recipe.base, pooling=recipe.pooling)
    named = [("data.train", data.train), ("data.validation", data.validation)]
    tests = [("data.test", test) for test in data.test]
    named = [*tests, *named] if fold_runs.fold_of(recipe) else [*named, *tests]  # folds are made of what is tested
    named += [(f"stages.{name}.dataset", stage.dataset) for name, stage in stages if stage.dataset]
    named += [(f"stages.{name}.validation", stage.validation) for name, stage in stages if stage.validation]
    for path, dataset in named:
        yield path, partial(open_dataset, dataset, cache)

    def candidates(dataset: str, first: str) -> object:
        return first_stage.fingerprint(open_dataset(dataset, cache), first)

    path = "data.validation_first_stage" if data.validation_first_stage else "data.first_stages"
    yield path, partial(candidates, data.validation, validation_first_stage(recipe))
    for first in data.first_stages:
        for test in data.test:
            yield "data.first_stages", partial(candidates, test, first)
    for name, stage in ((name, view) for name, each in stages for view in each.by_source()):
        dataset = training_dataset(recipe, stage)
        if stage.source == "labels" or ranks_candidates(recipe, stage) or cuts_lists(stage):
            path = f"stages.{name}.first_stage" if stage.first_stage else "data.first_stages"
            yield path, partial(candidates, dataset, training_first_stage(recipe, stage))
        if stage.source == "teacher" and not ranks_candidates(recipe, stage):
            yield f"stages.{name}.teacher", partial(_teacher, stage.teacher, dataset, cache)


def _teacher(teacher: str, dataset: str, cache: Path) -> object:
    from cerank.datasets.open_datasets import open_dataset
    from cerank.retrieval.teachers import read_teacher

    return read_teacher(teacher, open_dataset(dataset, cache))


def _recipe_key(recipe: Recipe) -> bytes:
    """Return a key that is equal for equal recipes."""
    return msgspec.json.encode(recipe)
