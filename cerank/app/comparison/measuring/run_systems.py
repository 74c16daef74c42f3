"""From runs of the lab, and the runs of all folds together, to measured systems.

Invariant: a number on screen has files: a run's measures are read as its worker stored them, under their checksums, and
any other is computed from rankings and qrels. `cerank verify` computes the stored ones again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from cerank.app.comparison import system_tuning
from cerank.app.comparison.measuring.named_judgments import Qrels, identity
from cerank.app.comparison.named_systems import (
    FIRST_STAGE,
    FoldsTarget,
    RunTarget,
    runs_of,
    short_name,
    systems_of,
)
from cerank.datasets.folds import whole_of_fold
from cerank.errors import MissingError, UsageError
from cerank.recipes.plan import Plan
from cerank.registry import nearest
from cerank.retrieval.reference_orders import REFERENCE_ORDERS, reference_order
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import decode_measures

if TYPE_CHECKING:
    from cerank.core.rankings import Ranking
    from cerank.evaluation.systems import Measured, System


def check_tested(folder: RunFolder, plan: Plan) -> None:
    """Check that a run tests at all, which a trial of a sweep does not.

    Raises:
        MissingError: it is such a trial.
    """
    if not plan.recipe.data.test:
        hint = "it is a trial of a sweep, measured on validation alone; `cerank sweep FILE --results` shows that"
        raise MissingError("the run has no test set", where=run_store.title(folder), hint=hint, code="run-untested")


def conditions_of(runs: Sequence[RunTarget | FoldsTarget], only: str) -> list[tuple[str, str]]:
    """Return the first run's test datasets (all, or the one asked for) with each of its first stages."""
    if not runs:
        return []
    for run in runs:
        check_tested(run.folder, run.plan)
    data, names = runs[0].plan.recipe.data, tests_of(runs[0])
    tests = [test for test, called in names.items() if not only or only in called]
    if not tests:
        known = [name for called in names.values() for name in called]
        raise UsageError(f"run {run_store.title(runs[0].folder)} was not tested on '{only}'", hint=nearest(only, known))
    return [(test, first) for test in tests for first in data.first_stages]


def tests_of(target: RunTarget | FoldsTarget) -> dict[str, set[str]]:
    """Return what a run was tested on, or the runs of all folds together -> the names by which to ask for it."""
    if isinstance(target, RunTarget):
        return {test: {test, short_name(test)} for test in target.plan.recipe.data.test}
    whole = whole_of_fold(target.plan.recipe.data.test[0])
    return {target.test: {target.test, short_name(target.test), whole, short_name(whole)}}


def whole_tests(target: RunTarget | FoldsTarget) -> tuple[str, ...]:
    """Return the datasets that a run was tested on; of folds the one that all of them are of."""
    data = target.plan.recipe.data
    return (whole_of_fold(data.test[0]),) if isinstance(target, FoldsTarget) else data.test


def of_run(target: RunTarget | FoldsTarget, names: Sequence[str], only: str = "") -> System:
    """Return a system of a run, or of the runs of all folds together, measured on what it was tested on.

    Args:
        target: the system.
        names: canonical names of measures.
        only: one dataset to measure on; "" for all.

    Raises:
        MissingError: it has not come so far; DamagedError: a file is not what was written; UsageError: it was not
            tested on `only`.
    """
    from cerank.evaluation.systems import Condition, System, measured

    rows: list[Measured] = []
    is_reference = _is_reference(target)
    for test, first in conditions_of([target], only):
        ranking = ranking_of(target, test, first)
        qrels = qrels_of(target, test)
        condition = Condition(short_name(test), short_name(first))
        stored = _stored_measures(target, test, first, names)
        rows.append(measured(names, condition, qrels, identity(qrels), ranking, values=stored))
    is_baseline = target.system in target.plan.recipe.untrained_systems()
    is_fixed = target.system == FIRST_STAGE or is_baseline or is_reference
    return System(
        label=target.label,
        measured=tuple(rows),
        run=target.folder.name if isinstance(target, RunTarget) else "",
        seed=None if is_fixed else target.plan.recipe.seed,
        shares=tuple(dict.fromkeys(share for run in runs_of(target) for share in _decided_by_seed(run))),
        is_fixed=is_fixed,
        is_baseline=is_baseline,
        notes=(REFERENCE_ORDERS[target.system],) if is_reference else (),
        tuning=None if is_fixed else system_tuning.of_system(target.plan.recipe, target.system),
        folds=_queries_by_fold(target) if isinstance(target, FoldsTarget) else (),
    )


def _queries_by_fold(target: FoldsTarget) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(qrels_of_run(run.folder, run.plan.recipe.data.test[0])) for run in target.members)


def _decided_by_seed(target: RunTarget) -> tuple[str, ...]:
    """Return what the run's seed decided up to this system: its stages, and the order in which each saw its data."""
    from cerank.planning import inputs, stage_keys

    plan = target.plan
    names = plan.recipe.chain
    chain = names[: names.index(target.system) + 1] if target.system in names else ()
    pinned = {(entry.role, entry.name): entry.sha256 for entry in plan.inputs}
    out = []
    for index, name in enumerate(chain):
        dataset = inputs.training_dataset(plan.recipe, plan.recipe.stages[name])
        if ("dataset", dataset) in pinned:
            out.append(f"order {name} {pinned['dataset', dataset]}")
        with contextlib.suppress(KeyError):  # a plan that does not hold every input's hash says nothing of its stages
            out.append(f"stage {stage_keys.stage_key(plan, index)}")
    return tuple(out)


def _stored_measures(
    target: RunTarget | FoldsTarget, test: str, first: str, names: Sequence[str]
) -> dict[str, dict[str, float]] | None:
    """Return measure -> query -> value as the run's worker stored them; None where one of `names` is not stored.

    `cerank verify` computes them again from rankings and qrels.
    """
    if isinstance(target, FoldsTarget):
        each = [_stored_measures(run, run.plan.recipe.data.test[0], first, names) for run in target.members]
        known = [values for values in each if values is not None]
        if len(known) < len(each):
            return None
        return {name: _together(target, [of[name] for of in known]) for name in names}
    path = target.folder.measures(target.system, test, first)
    if not path.exists():
        return None
    run_store.check_undamaged(target.folder, path)
    try:
        rows = decode_measures(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not rows or any(name not in row.measures for row in rows for name in names):
        return None
    return {name: {row.query_id: row.measures[name] for row in rows} for name in names}


def is_measured(folder: RunFolder, plan: Plan, system: str) -> bool:
    """Return whether a system of a run is measured on all that the run tests."""
    data = plan.recipe.data
    return all(folder.measures(system, test, first).exists() for test in data.test for first in data.first_stages)


def qrels_of_run(folder: RunFolder, test: str) -> Qrels:
    """Return the judgments that a run was measured on.

    Raises:
        MissingError: it has not come so far; DamagedError: the file is not what was written.
    """
    from cerank.trec.text_io import read_qrels

    path = folder.qrels(test)
    if not path.exists():
        hint = f"cerank show {run_store.short_name(folder)}"
        state = run_store.status(folder, datetime.now(UTC)).state
        what = f"the run is {state} and has no results yet"
        raise MissingError(what, where=run_store.title(folder), hint=hint, code="not-measured-yet")
    run_store.check_undamaged(folder, path)
    return read_qrels(path)


def qrels_of(target: RunTarget | FoldsTarget, test: str) -> Qrels:
    """Return the judgments that a run, or the runs of all folds together, were measured on; raises as `qrels_of_run`.

    Raises:
        UsageError: a query is in two folds.
    """
    if isinstance(target, RunTarget):
        return qrels_of_run(target.folder, test)
    return _together(target, [qrels_of_run(run.folder, run.plan.recipe.data.test[0]) for run in target.members])


def ranking_of(target: RunTarget | FoldsTarget, test: str, first: str) -> Ranking:
    """Return the ranking of a run's system, or of that of all folds together; raises as `ranking_of_run`."""
    if isinstance(target, RunTarget):
        return ranking_of_run(target, test, first)
    from cerank.core.rankings import Ranking

    each = [ranking_of_run(run, run.plan.recipe.data.test[0], first) for run in target.members]
    return Ranking(_together(target, each), {query: ranking.scores(query) for ranking in each for query in ranking})


_OfQueries = TypeVar("_OfQueries")


def _together(target: FoldsTarget, parts: Sequence[Mapping[str, _OfQueries]]) -> dict[str, _OfQueries]:
    """Return what is known of the queries of all folds.

    Raises:
        UsageError: a query is in two folds.
    """
    whole = {query: entry for part in parts for query, entry in part.items()}
    if len(whole) < sum(map(len, parts)):
        raise UsageError("a query is in two folds", where=target.label, code="folds-format")
    return whole


def _is_reference(target: RunTarget | FoldsTarget) -> bool:
    """Return whether the target is the first stage's candidates in another order, and no stage that is called so."""
    return target.system in REFERENCE_ORDERS and target.system not in systems_of(target.plan)


def ranking_of_run(target: RunTarget, test: str, first: str) -> Ranking:
    """Return the ranking of a run's system on a test dataset over a first stage.

    Raises:
        MissingError: it has not come so far; DamagedError: the file is not what was written.
    """
    from cerank.trec.text_io import read_run

    is_reference = _is_reference(target)
    path = target.folder.ranking(FIRST_STAGE if is_reference else target.system, test, first)
    if not path.exists():
        hint = f"cerank show {run_store.short_name(target.folder)} says how far it is"
        raise MissingError(f"it has no ranking by {target.system} yet", where=run_store.title(target.folder), hint=hint)
    run_store.check_undamaged(target.folder, path)
    ranking = read_run(path).ranking
    if is_reference:
        qrels = qrels_of_run(target.folder, test)
        ranking = reference_order(target.system, ranking, qrels, target.plan.recipe.seed)
    return ranking
