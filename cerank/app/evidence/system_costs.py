"""What compared runs cost to train: time, pairs, device hours, and money where an hour has a price.

Invariant: a figure that is not known is left out, never taken for 0; a first stage costs no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import stage_costs
from cerank.app.comparison.named_systems import (
    FIRST_STAGE,
    FileTarget,
    FoldsTarget,
    RunTarget,
    SeedsTarget,
    Target,
    joined_folds,
    targets_of,
)
from cerank.app.comparison.stage_costs import StageCost
from cerank.retrieval.reference_orders import REFERENCE_ORDERS
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.answers import Cost
    from cerank.evaluation.compare import Comparison

NOTE = (
    "training of the whole chain up to the system, on one device; of several seeds the mean, of folds the sum; "
    f"{stage_costs.NOTE.partition(': ')[2]}"
)


def of_comparison(
    settings: Settings, names: Sequence[str], comparison: Comparison, hour_price: float | None = None
) -> dict[str, Cost]:
    """Return the cost of each system by its label; those without a known one are left out.

    Args:
        settings: where the lab is.
        names: what was compared, in the order of the comparison's systems.
        comparison: the comparison.
        hour_price: what an hour of the device costs, 0 where it has no price; None takes the setting.
    """
    targets = targets_of(settings.lab, names)
    hour_price = settings.hour_price if hour_price is None else hour_price
    costs = {}
    for system, target in zip(comparison.systems, targets, strict=True):
        cost = _of_target(target, hour_price)
        if cost is not None:
            costs[system.label] = cost
    return costs


def of_runs(runs: Mapping[str, Sequence[RunTarget]], hour_price: float) -> dict[str, Cost]:
    """Return the cost of each system by its label, of its runs; those without a known one are left out."""
    costs = {label: _cost(joined_folds(members), hour_price) for label, members in runs.items()}
    return {label: cost for label, cost in costs.items() if cost is not None}


def _of_target(target: Target, hour_price: float) -> Cost | None:
    if isinstance(target, FileTarget):
        return None
    return _cost(target.members if isinstance(target, SeedsTarget) else (target,), hour_price)


def _cost(seeds: Sequence[RunTarget | FoldsTarget], hour_price: float) -> Cost | None:
    """Return the mean over seeds of what each took; what the folds of a cross-validation took is summed."""
    from cerank.evaluation.answers import Cost

    each = [_of_folds(seed.members) if isinstance(seed, FoldsTarget) else _of_folds((seed,)) for seed in seeds]
    known = [cost for cost in each if cost is not None]
    if len(known) < len(each):
        return None
    seconds = sum(cost.seconds for cost in known) / len(known)
    pairs = round(sum(cost.pairs for cost in known) / len(known))
    calls = round(sum(cost.calls for cost in known) / len(known))
    paid = [cost.money for cost in known]
    money = None if None in paid else sum(each for each in paid if each is not None) / len(known)
    if hour_price and money is not None:
        money += seconds / 3600 * hour_price
    elif not calls and not hour_price:
        money = None  # nothing has a price
    return Cost(seconds=seconds, pairs=pairs, money=money, calls=calls)


class _RunCost(msgspec.Struct, frozen=True):
    seconds: float
    pairs: int
    calls: int
    money: float | None  # of the calls: 0 without any, None if they have no price


def _of_folds(runs: Sequence[RunTarget]) -> _RunCost | None:
    """Return what the runs of all folds, or one run, took together; a stage that several share was trained once."""
    trained: dict[tuple[str, str], StageCost] = {}
    for run in runs:
        own = _stages_of(run)
        if own is None:
            return None
        here = run_store.short_name(run.folder)
        trained |= {(cost.reused_from or here, cost.stage): cost for cost in own}
    paid = [cost.teacher.money for cost in trained.values() if cost.teacher.calls]
    return _RunCost(
        seconds=sum(cost.seconds or 0.0 for cost in trained.values()),
        pairs=sum(cost.pairs for cost in trained.values()),
        calls=sum(cost.teacher.calls for cost in trained.values()),
        money=None if None in paid else sum(each for each in paid if each is not None),
    )


def _stages_of(target: RunTarget) -> list[StageCost] | None:
    """Return what training up to the target's stage took, its teachers included; None where a stage's is not known.

    A first stage takes none, and neither does what no model ordered; a teacher takes its calls on the tests.
    """
    if target.system in {FIRST_STAGE, *REFERENCE_ORDERS}:
        return []
    if target.system in target.plan.recipe.baseline_models():
        return None  # another training made it, and what that took is not known
    costs = {cost.stage: cost for cost in stage_costs.of_run(target.folder, target.plan)}
    chain = target.plan.recipe.chain
    needed = chain[: chain.index(target.system) + 1] if target.system in chain else ()
    own = [costs[name] for name in needed or (target.system,) if name in costs]
    return None if sum(cost.seconds is not None for cost in own) < len(needed) else own


def table(costs: Mapping[str, Cost]) -> Table:
    """Return what each system cost."""
    has_money = any(cost.money is not None for cost in costs.values())
    has_calls = any(cost.calls for cost in costs.values())
    columns = (
        Column("system", "system"),
        Column("seconds", "training time", "seconds"),
        Column("device_hours", "device hours", "number", 2),
        Column("pairs", "training pairs", "number", 0),
        *([Column("calls", "teachers' calls", "number", 0)] if has_calls else []),
        *([Column("money", "money", "number", 2)] if has_money else []),
    )
    rows = tuple(
        (
            label,
            cost.seconds,
            cost.seconds / 3600,
            cost.pairs,
            *([cost.calls] if has_calls else []),
            *([_paid(cost)] if has_money else []),
        )
        for label, cost in costs.items()
    )
    return Table("cost", columns, rows, "Cost", (NOTE,))


def _paid(cost: Cost) -> float | None:
    """Return the money of a system beside others that have some: 0 without calls and without a price of an hour."""
    return 0.0 if cost.money is None and not cost.calls else cost.money


def gains_per_cost(comparison: Comparison, costs: Mapping[str, Cost]) -> Table:
    """Return what each row of a comparison gained for what it cost more: by the hour, by 1,000 calls, by money.

    The verdict is given, too: a gain that is not shown is no gain by the hour either. A row whose right system cost no
    more has no such figure. Without calls of teachers the table is empty.
    """
    rows = []
    for row in comparison.rows if any(cost.calls for cost in costs.values()) else ():
        left, right = costs.get(row.left), costs.get(row.right)
        if left is None or right is None:
            continue
        gain = row.paired.difference
        hours, calls = (right.seconds - left.seconds) / 3600, (right.calls - left.calls) / 1000
        paid = [_paid(cost) for cost in (left, right)]
        money = None if paid[0] is None or paid[1] is None else paid[1] - paid[0]
        units = [gain / unit if unit is not None and unit > 0 else None for unit in (hours, calls, money)]
        rows.append((row.condition.dataset, row.measure, row.left, row.right, row.verdict, gain, *units))
    columns = (
        Column("dataset", "dataset", "name", priority=1),
        Column("measure", "measure", "name"),
        Column("left", "against", "name"),
        Column("right", "system", "name"),
        Column("verdict", "verdict", "name"),
        Column("difference", "difference", "number"),
        Column("per_hour", "per training hour", "number"),
        Column("per_call", "per 1,000 calls", "number"),
        Column("per_money", "per money", "number"),
    )
    note = "difference divided by what the system cost more; read it with the verdict, which is about the difference"
    return Table("gain-per-cost", columns, tuple(rows), "Gain for what it cost", (note,) if rows else ())
