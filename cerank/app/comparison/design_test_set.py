"""How many queries a new test set needs, from pilot rankings of the lab, of files, or that a dataset brings.

Invariant: each number of queries stands between those of the variance's two ends, for a pilot does not know it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, named_systems
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.power_analysis import PowerRequest, width_of
from cerank.errors import UsageError
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.studies.topic_set_size import NeededQueries, PilotVariance
    from cerank.evaluation.systems import Condition


class TestSetDesign(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a test set for one measure, by the pilot rankings of one condition."""

    __test__ = False  # pytest takes the name for a test's

    dataset: str
    first_stage: str
    measure: str
    systems: int
    difference: float
    pilot: PilotVariance
    for_test: NeededQueries  # an analysis of variance sees best and worst apart
    for_pair: NeededQueries  # one of all pairs, after Bonferroni's correction, sees the difference
    for_interval: NeededQueries  # the interval of a difference reaches no further than ± difference


def designs(
    settings: Settings, rankings: ComparisonRequest, request: PowerRequest, systems: int
) -> tuple[TestSetDesign, ...]:
    """Return the size of a test set by each measure and condition of the pilot.

    Args:
        settings: where the lab and caches are.
        rankings: the pilot: two rankings at least, or a dataset that brings as many.
        request: the difference to be seen, with power and level.
        systems: to be told apart; 0 for as many as the pilot has.

    Raises:
        UsageError: no difference is given, or the pilot is too small.
    """
    if request.difference is None:
        raise UsageError("the difference that the test set should tell apart is missing", where="--delta")
    if systems < 2:
        raise UsageError(f"a test set tells at least 2 systems apart, not {systems}", where="--systems")
    out = []
    for condition, measure, scores in _pilots(settings, rankings):
        width = width_of(measure)
        if not 0 < request.difference < (width or math.inf):
            raise UsageError(f"a difference of {request.difference:g} is beyond what {measure} allows", where="--delta")
        sizes = _design(condition, measure, scores, request=request, difference=request.difference, systems=systems)
        out.append(sizes)
    return tuple(out)


def _design(
    condition: Condition,
    measure: str,
    scores: Sequence[Sequence[float]],
    *,
    request: PowerRequest,
    difference: float,
    systems: int,
) -> TestSetDesign:
    from cerank.evaluation.power import queries_for_difference
    from cerank.evaluation.studies.topic_set_size import needed, pilot_variance, queries_for_systems, queries_for_width

    pilot, power, alpha = pilot_variance(scores), request.power, request.alpha
    pairs = systems * (systems - 1) // 2
    return TestSetDesign(
        dataset=condition.dataset,
        first_stage=condition.first_stage,
        measure=measure,
        systems=systems,
        difference=difference,
        pilot=pilot,
        for_test=needed(lambda v: queries_for_systems(systems, difference, v, power=power, alpha=alpha), pilot),
        for_pair=needed(lambda v: queries_for_difference(difference, math.sqrt(2 * v), power, alpha / pairs), pilot),
        for_interval=needed(lambda v: queries_for_width(difference, v, alpha), pilot),
    )


def _pilots(settings: Settings, rankings: ComparisonRequest) -> Iterator[tuple[Condition, str, list[list[float]]]]:
    """Return each condition and measure of the pilot with its scores, a row a ranking, a column a query."""
    from cerank.datasets.open_datasets import open_dataset
    from cerank.evaluation.measures import check, per_query
    from cerank.evaluation.systems import Condition, measured_in

    hint = "name two rankings, such as `cerank power A B --systems 5 --delta .05`, or a --dataset with runs"
    if rankings.targets:
        if len(rankings.targets) < 2:
            raise UsageError("a pilot needs at least two rankings", hint=hint)
        targets = named_systems.targets_of(settings.lab, rankings.targets)
        systems, names = comparisons.measured_systems(settings, targets, rankings)
        for condition in (entry.condition for entry in systems[0].measured):
            for name in names:
                rows = [measured_in(system, condition).values[name] for system in systems]
                yield condition, name, [[row[query] for query in rows[0]] for row in rows]
        return
    if not rankings.dataset:
        raise UsageError("a pilot needs at least two rankings", hint=hint)
    opened = open_dataset(rankings.dataset, settings.cache)
    brought = [opened.run(name).ranking for name in opened.runs if name != "scoreddocs"]
    if len(brought) < 2 or not opened.qrels:
        raise UsageError("it does not bring two runs and qrels", where=rankings.dataset, hint=hint)
    names = check(rankings.measures or ("nDCG@10",), opened.qrels, "--measure")
    values = [per_query(names, opened.qrels, ranking) for ranking in brought]
    for name in names:
        yield Condition(named_systems.short_name(opened.name)), name, [list(each[name].values()) for each in values]


def table(designed: Sequence[TestSetDesign], request: PowerRequest) -> Table:
    """Return the designs as a table, with what each number means."""
    columns = [
        Column("dataset", "pilot"),
        Column("first_stage", "first stage", priority=3),
        Column("measure", "measure"),
        Column("systems", "systems", "number", 0),
        Column("difference", "difference", "number", 3),
        Column("pilot_systems", "pilot systems", "number", 0, priority=4),
        Column("pilot_queries", "pilot queries", "number", 0, priority=2),
        Column("sd", "sd", "number", priority=3),
    ]
    for key, heading in (("test", "F-test"), ("pair", "each pair"), ("interval", "interval")):
        columns += [
            Column(f"{key}_queries", heading, "number", 0),
            Column(f"{key}_low", "from", "number", 0, priority=1),
            Column(f"{key}_high", "to", "number", 0, priority=1),
        ]
    rows = tuple(
        (
            *(each.dataset, each.first_stage, each.measure, each.systems, each.difference),
            *(each.pilot.systems, each.pilot.queries, each.pilot.variance**0.5),
            *(
                count
                for need in (each.for_test, each.for_pair, each.for_interval)
                for count in (need.queries, need.low, need.high)
            ),
        )
        for each in designed
    )
    systems, delta = designed[0].systems, designed[0].difference
    percent = f"{100 * request.power:.3g} %"
    notes = (
        f"F-test: queries with which an analysis of variance at {request.alpha:g} sees, with {percent} power, that "
        f"{counted(systems, 'system')} differ whose best is {delta:g} above the worst (Sakai 2016)",
        f"each pair: with which a paired t-test at {request.alpha:g} / {systems * (systems - 1) // 2} sees one "
        f"difference of {delta:g}; interval: with which that of a difference is expected to reach ±{delta:g}",
        "from, to: by the ends of the 95 % interval of the pilot's variance, after systems and queries are taken out; "
        "it is that of normal scores, and of queries like the pilot's",
    )
    return Table("design", tuple(columns), rows, "Queries that a test set needs", notes)
