"""What queries can show before anything is trained, from a spread that is given, assumed, or measured on rankings.

Invariant: every figure says where its spread came from, and nothing here trains or re-ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from cerank.app.comparison import comparisons
from cerank.errors import UsageError
from cerank.recipes.plan import Plan
from cerank.registry import nearest
from cerank.settings import Settings
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.evaluation.power import Outlook
    from cerank.evaluation.systems import Condition, System

# Sd of per-query differences of two neural re-rankers over the same candidates on DL-HARD's 50 queries, from public
# runs: nDCG@10 .103, RR(rel=2)@10 .31, AP(rel=2) .07. Against BM25 it is larger: .19 for nDCG@10.
ASSUMED = {"nDCG": 0.10, "RR": 0.31, "AP": 0.07}
ASSUMPTION = (
    "sd assumed: that of per-query differences of two neural re-rankers on DL-HARD (nDCG .10, RR .31, AP .07); "
    "`cerank power A B` takes it from rankings of yours"
)


class PowerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The difference and margin to plan for, with power and significance level."""

    difference: float | None = None  # a true one one hopes to see
    margin: float | None = None
    power: float = 0.8
    alpha: float = 0.05
    tests: int = 1  # corrected together; each is given alpha / tests


class PowerCase(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of queries can show of one measure."""

    measure: str
    spread: Literal["given", "assumed", "measured"]
    outlook: Outlook
    dataset: str = ""
    first_stage: str = ""
    left: str = ""  # the rankings whose spread was measured
    right: str = ""

    @property
    def can_show(self) -> bool | None:
        """Whether equivalence within the margin would be shown with the power asked for; None without a margin."""
        chance = self.outlook.power_for_margin
        return None if chance is None else chance >= self.outlook.power


def assumed_sd(measure: str) -> float | None:
    """The sd that is assumed for a measure's per-query differences; None for a measure without a published one."""
    return ASSUMED.get(measure.partition("@")[0].partition("(")[0].strip())


def of_numbers(queries: int, sd: float | None, asked: PowerRequest, measure: str = "nDCG@10") -> PowerCase:
    """The outlook on so many queries; without an sd the measure's assumed one.

    Raises:
        UsageError: a number out of its range, or no sd is known for the measure.
    """
    from cerank.evaluation.measures import canonical

    name = canonical(measure, "--measure")
    spread = sd if sd is not None else assumed_sd(name)
    if spread is None:
        hint = f"give --sd, or take it from rankings with `cerank power A B`; assumed for {', '.join(ASSUMED)} only"
        raise UsageError(f"the spread of {name} is not known", where="--sd", hint=hint)
    return PowerCase(
        measure=name, spread="assumed" if sd is None else "given", outlook=_outlook(queries, spread, asked)
    )


def of_rankings(
    settings: Settings,
    texts: Sequence[str],
    asked: PowerRequest,
    *,
    measures: Sequence[str] = (),
    dataset: str = "",
    qrels: str = "",
    queries: int | None = None,
) -> tuple[PowerCase, ...]:
    """The outlook by the spread between what `texts` name: each against the first, by condition and measure.

    Args:
        queries: how many there will be; None takes those the spread was measured on.

    Raises:
        UsageError: they cannot be compared, or two of them score the same on every query.
    """
    from cerank.evaluation.power import spread_of

    if len(texts) < 2:
        raise UsageError("a spread is measured between at least two rankings", hint="such as `cerank power A B`")
    targets = comparisons.targets_of(settings.lab, texts)
    systems, names = comparisons.measured_systems(settings, targets, measures=measures, dataset=dataset, qrels=qrels)
    cases = []
    for entry in systems[0].measured:
        for other in systems[1:]:
            for name in names:
                left, right = _values(systems[0], other, entry.condition, name)
                try:
                    sd = spread_of(left, right)
                except UsageError as error:
                    where = f"{systems[0].label} and {other.label}, {name} on {entry.condition}"
                    raise UsageError(error.what, where=where, hint="give --queries and --sd") from None
                cases.append(
                    PowerCase(
                        measure=name,
                        spread="measured",
                        outlook=_outlook(queries or len(left), sd, asked),
                        dataset=entry.condition.dataset,
                        first_stage=entry.condition.first_stage,
                        left=systems[0].label,
                        right=other.label,
                    )
                )
    return tuple(cases)


def of_plan(plan: Plan) -> tuple[PowerCase, ...]:
    """Whether the plan's test datasets could show the margins it declares, by the assumed spreads; none without one.

    The family is the run's own table: each stage with the one before it and with the first stage, over
    each first stage on each test dataset, for each margin. A
    measure without an assumed spread is left out.
    """
    from cerank.datasets.open_datasets import open_dataset

    recipe = plan.recipe
    margins = {name: value for name, value in recipe.evaluate.margins.items() if assumed_sd(name) is not None}
    data = recipe.data
    pairs = 2 * len(recipe.chain) - 1  # each stage with the one before it and, from the second on, with the first stage
    tests = pairs * len(data.first_stages) * len(data.test) * len(recipe.evaluate.margins)
    cases = []
    for test in data.test if margins else ():
        queries = len(open_dataset(test, Path(plan.cache)).qrels)
        for measure, margin in margins.items():
            sd = assumed_sd(measure)
            if sd is None or queries < 2:
                continue
            outlook = _outlook(queries, sd, PowerRequest(margin=margin, tests=tests))
            case = PowerCase(measure=measure, spread="assumed", outlook=outlook, dataset=comparisons.short_name(test))
            cases.append(case)
    return tuple(cases)


def sentences(cases: Sequence[PowerCase]) -> tuple[str, ...]:
    """What the cases come to, a sentence each, for those with a margin; and where an assumed spread comes from."""
    lines = []
    for case in cases:
        found = case.outlook
        if found.margin is None or found.power_for_margin is None:
            continue
        who = counted(found.queries, "query") + (f" of {case.dataset}" if case.dataset else "")
        by = f"by {case.measure}" + (f" of {case.right} with {case.left}" if case.left else "")
        verb = "can show" if case.can_show else "cannot show"
        chance = f"{100 * found.power_for_margin:.0f} % power at a true difference of 0"
        text = f"{who} {verb} equivalence within ±{found.margin:g} {by}: {chance}"
        if not case.can_show:
            needed = found.queries_for_margin
            wanted = counted(needed, "query") if needed else "more than 100 million queries"
            text += f"; they can within ±{found.smallest_margin:.4f}, and ±{found.margin:g} takes {wanted}"
        lines.append(text)
    if any(case.spread == "assumed" for case in cases):
        lines.append(ASSUMPTION)
    return tuple(lines)


def _outlook(queries: int, sd: float, asked: PowerRequest) -> Outlook:
    from cerank.evaluation.power import outlook

    for name, value in (("--delta", asked.difference), ("--margin", asked.margin)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"a number above 0 is wanted, not {value}", where=name)
    return outlook(
        queries,
        sd,
        difference=asked.difference,
        margin=asked.margin,
        power=asked.power,
        alpha=asked.alpha,
        tests=asked.tests,
    )


def _values(left: System, right: System, condition: Condition, measure: str) -> tuple[list[float], list[float]]:
    """Both systems' values by query id, in the left one's order."""
    rows = []
    for system in (left, right):
        found = next((entry for entry in system.measured if entry.condition == condition), None)
        if found is None:
            known = [str(entry.condition) for entry in system.measured]
            raise UsageError(f"'{system.label}' was not measured on {condition}", hint=nearest(str(condition), known))
        rows.append(found.values[measure])
    first, second = rows
    if first.keys() != second.keys():
        raise UsageError(f"'{left.label}' and '{right.label}' were measured on different queries of {condition}")
    return list(first.values()), [second[query] for query in first]
