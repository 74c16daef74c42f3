"""What compared runs cost to train: time, pairs, device hours, and money where an hour has a price.

Invariant: a figure that is not known is left out, never taken for 0; a first stage costs no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cerank.app.comparison import stage_costs
from cerank.app.comparison.comparisons import FIRST_STAGE, FileTarget, RunTarget, Target, targets_of
from cerank.retrieval.reference_orders import REFERENCE_ORDERS
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.answers import Cost
    from cerank.evaluation.compare import Comparison

NOTE = (
    "training of the whole chain up to the system, on one device; of several seeds the mean; "
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
    """Return the cost of each system by its label, the mean of its runs; those without a known one are left out."""
    costs = {label: _mean_cost(members, hour_price) for label, members in runs.items()}
    return {label: cost for label, cost in costs.items() if cost is not None}


def _of_target(target: Target, hour_price: float) -> Cost | None:
    if isinstance(target, FileTarget):
        return None
    return _mean_cost((target,) if isinstance(target, RunTarget) else target.members, hour_price)


def _mean_cost(runs: Sequence[RunTarget], hour_price: float) -> Cost | None:
    from cerank.evaluation.answers import Cost

    each = [_of_run(run) for run in runs]
    known = [cost for cost in each if cost is not None]
    if len(known) < len(each):
        return None
    seconds = sum(cost[0] for cost in known) / len(known)
    pairs = round(sum(cost[1] for cost in known) / len(known))
    return Cost(seconds=seconds, pairs=pairs, money=seconds / 3600 * hour_price if hour_price else None)


def _of_run(target: RunTarget) -> tuple[float, int] | None:
    """Return the seconds and pairs of training up to the target's stage; None where a stage's are not known."""
    chain = target.plan.recipe.chain
    if target.system not in chain:  # no run trained a finished re-ranker; what no model ordered cost nothing
        return (0.0, 0) if target.system in {FIRST_STAGE, *REFERENCE_ORDERS} else None
    needed = chain[: chain.index(target.system) + 1]
    costs = {cost.stage: cost for cost in stage_costs.of_run(target.folder, target.plan)}
    own = [costs[name] for name in needed if name in costs]
    seconds = [cost.seconds for cost in own if cost.seconds is not None]
    if len(seconds) < len(needed):
        return None
    return sum(seconds), sum(cost.pairs for cost in own)


def table(costs: Mapping[str, Cost]) -> Table:
    """Return what each system cost."""
    has_money = any(cost.money is not None for cost in costs.values())
    columns = (
        Column("system", "system"),
        Column("seconds", "training time", "seconds"),
        Column("device_hours", "device hours", "number", 2),
        Column("pairs", "training pairs", "number", 0),
        *([Column("money", "money", "number", 2)] if has_money else []),
    )
    rows = tuple(
        (label, cost.seconds, cost.seconds / 3600, cost.pairs, *([cost.money] if has_money else []))
        for label, cost in costs.items()
    )
    return Table("cost", columns, rows, "Cost", (NOTE,))
