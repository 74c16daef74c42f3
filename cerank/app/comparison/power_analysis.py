"""What queries can show before anything is trained, from a spread that is given, assumed, or measured on rankings.

Invariant: every figure says where its spread came from, and nothing here trains or re-ranks.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from cerank.app.comparison import comparisons, named_systems
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.errors import CerankError, UsageError
from cerank.recipes.plan import Plan
from cerank.registry import nearest
from cerank.runs import run_store, run_summaries
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.power import PowerEstimate
    from cerank.evaluation.systems import Condition, System

# Sd of per-query differences of two neural re-rankers over the same candidates on DL-HARD's 50 queries, from public
# runs: nDCG@10 .103, RR(rel=2)@10 .31, AP(rel=2) .07. Against BM25 it is larger: .19 for nDCG@10.
ASSUMED = {"nDCG": 0.10, "RR": 0.31, "AP": 0.07}
# What was seen, from DL-HARD to the embedded dataset, where one document is relevant (RR: MS MARCO's dev queries).
SEEN: dict[str, dict[str, tuple[float, float]]] = {
    "stage against stage": {"nDCG": (0.10, 0.21), "RR": (0.31, 0.37), "AP": (0.07, 0.07)},
    "stage against first stage": {"nDCG": (0.19, 0.32), "RR": (0.31, 0.37)},
}
ASSUMPTION = (
    "sd assumed: that of per-query differences of two neural re-rankers on DL-HARD (nDCG .10, RR .31, AP .07); "
    "a re-ranker against BM25 differs more (nDCG .19 there, .32 where one document is relevant); "
    "`cerank power A B` takes it from rankings of yours"
)
_EARLIER = 30  # runs of the lab whose spread is looked at, the newest first

Kind = Literal["stage against stage", "stage against first stage"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_Spreads = dict[tuple[Kind, str], tuple[float, ...]]  # sds by kind of comparison and measure


class PowerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The difference and margin to plan for, with power and significance level."""

    difference: float | None = None  # a true one one hopes to see
    margin: float | None = None
    power: float = 0.8
    alpha: float = 0.05
    tests: int = 1  # corrected together; each is given alpha / tests


class PowerCase(msgspec.Struct, frozen=True, kw_only=True):
    """The power of a number of queries by one measure."""

    measure: str
    spread: Literal["given", "assumed", "measured"]
    estimate: PowerEstimate
    dataset: str = ""
    first_stage: str = ""
    left: str = ""  # the rankings whose spread was measured
    right: str = ""

    headroom: float | None = None  # the largest difference that is left to gain, by the rankings measured

    @property
    def can_show(self) -> bool | None:
        """Return whether equivalence within the margin would be shown with this power; None without a margin."""
        chance = self.estimate.power_for_margin
        return None if chance is None else chance >= self.estimate.power


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan's test queries can show of one kind of comparison, from the smallest to the largest spread known."""

    dataset: str
    kind: Kind
    measure: str
    source: str  # of the spreads, in words
    low: PowerEstimate
    high: PowerEstimate

    @property
    def can_show(self) -> bool | None:
        """Return whether equivalence within the margin would be shown by every spread; None without a margin."""
        chance = self.high.power_for_margin
        return None if chance is None else chance >= self.high.power


def assumed_sd(measure: str) -> float | None:
    """Return the sd that is assumed for a measure's per-query differences; None where none is published."""
    return ASSUMED.get(measure.partition("@")[0].partition("(")[0].strip())


def of_numbers(queries: int, sd: float | None, request: PowerRequest, measure: str = "nDCG@10") -> PowerCase:
    """Return the power on so many queries; without an sd the measure's assumed one.

    Raises:
        UsageError: a number out of its range, or no sd is known for the measure.
    """
    from cerank.evaluation.measures import canonical

    name = canonical(measure, "--measure")
    spread = sd if sd is not None else assumed_sd(name)
    if spread is None:
        hint = f"give --sd, or take it from rankings with `cerank power A B`; assumed for {', '.join(ASSUMED)} only"
        raise UsageError(f"the spread of {name} is not known", where="--sd", hint=hint, code="spread-unknown")
    return PowerCase(
        measure=name,
        spread="assumed" if sd is None else "given",
        estimate=_power_estimate(queries, spread, request, name),
    )


def of_rankings(
    settings: Settings, rankings: ComparisonRequest, request: PowerRequest, *, queries: int | None = None
) -> tuple[PowerCase, ...]:
    """Return the power by the spread between rankings: each against the first, by condition and measure.

    Args:
        settings: where the lab and caches are.
        rankings: which, and on what data they are measured.
        request: what should be shown.
        queries: how many there will be; None takes those the spread was measured on.

    Raises:
        UsageError: they cannot be compared, or two of them score the same on every query.
    """
    from cerank.evaluation.power import spread_of

    if len(rankings.targets) < 2:
        raise UsageError(
            "a spread is measured between at least two rankings",
            hint="such as `cerank power A B`",
            code="too-few-systems",
        )
    targets = named_systems.targets_of(settings.lab, rankings.targets)
    systems, names = comparisons.measured_systems(settings, targets, rankings)
    cases = []
    for entry in systems[0].measured:
        for other in systems[1:]:
            for name in names:
                left, right = _values(systems[0], other, entry.condition, name)
                try:
                    sd = spread_of(left, right)
                except UsageError as error:
                    where = f"{systems[0].label} and {other.label}, {name} on {entry.condition}"
                    raise UsageError(
                        error.what, where=where, hint="give --queries and --sd", code="no-spread"
                    ) from None
                cases.append(
                    PowerCase(
                        measure=name,
                        spread="measured",
                        estimate=_power_estimate(queries or len(left), sd, request, name),
                        headroom=_headroom(name, left),
                        dataset=entry.condition.dataset,
                        first_stage=entry.condition.first_stage,
                        left=systems[0].label,
                        right=other.label,
                    )
                )
    return tuple(cases)


class SeedGridCell(msgspec.Struct, frozen=True, kw_only=True):
    """The power of a number of queries with a number of paired seeds of each recipe."""

    dataset: str
    first_stage: str
    measure: str
    left: str
    right: str
    queries: int
    seeds: int
    smallest_difference: float  # with the power asked for
    seed_share: float  # of the variance of the mean that comes from seeds: above .5 more seeds help more than queries
    is_pilot: bool  # the queries and seeds that were measured


def seed_grid(
    settings: Settings, rankings: ComparisonRequest, request: PowerRequest, seeds: Sequence[int]
) -> tuple[SeedGridCell, ...]:
    """Return what more queries and more seeds would show, by the spread of two recipes that were run with seeds.

    Args:
        settings: where the lab and caches are.
        rankings: two recipes at least, each LABEL=RUN,RUN,RUN; each is compared with the first.
        request: power, level and number of tests.
        seeds: how many seeds of each recipe, a column each; at least 2.

    Raises:
        UsageError: the two have no seeds that pair, or a number of seeds is out of its range.
    """
    from cerank.evaluation.power import detectable
    from cerank.evaluation.seed_variance import components, pairs_of, planned_error
    from cerank.evaluation.systems import measured_in

    if len(rankings.targets) < 2:
        raise UsageError(
            "seeds are planned between two recipes",
            hint="such as `cerank power A=R1,R2,R3 B=R4,R5,R6`",
            code="too-few-recipes",
        )
    if any(count < 2 for count in seeds):
        raise UsageError(
            "a spread of seeds needs at least 2 of them", where="--seeds", hint="such as 3,5,10", code="too-few-seeds"
        )
    targets = named_systems.targets_of(settings.lab, rankings.targets)
    systems, measures = comparisons.measured_systems(settings, targets, rankings)
    cells = []
    for right in systems[1:]:
        pairs = pairs_of(systems[0], right)
        if not pairs:
            what = f"'{systems[0].label}' and '{right.label}' have no seeds that pair"
            hint = "both need the same three seeds or more, and a stage or the order of its data in common"
            raise UsageError(what, where="--seeds", hint=hint, code="seeds-unpaired")
        for condition in (entry.condition for entry in systems[0].measured):
            for measure in measures:
                both = [
                    [list(measured_in(member, condition).values[measure].values()) for member in side]
                    for side in zip(*pairs, strict=True)
                ]
                spread, pilot = components(*both), len(both[0][0])
                for queries in sorted({max(2, pilot // 2), pilot, 2 * pilot, 4 * pilot}):
                    for count in sorted({*seeds, len(pairs)}):
                        error, df = planned_error(spread, queries, count)
                        size = detectable(error, df, request.power, request.alpha / request.tests)
                        cells.append(
                            SeedGridCell(
                                dataset=condition.dataset,
                                first_stage=condition.first_stage,
                                measure=measure,
                                left=systems[0].label,
                                right=right.label,
                                queries=queries,
                                seeds=count,
                                smallest_difference=size,
                                seed_share=spread.seeds / count / error**2 if error else 0.0,
                                is_pilot=(queries, count) == (pilot, len(pairs)),
                            )
                        )
    return tuple(cells)


def of_plan(plan: Plan, lab: Path, all_folds: Sequence[Plan] = ()) -> tuple[Expected, ...]:
    """Return what the plan's test datasets could show in the run's own table, by the spreads known before it began.

    The family is that of the run's own table: its primary rows (by default each stage with the one before it and the
    first stage), over each first stage on each test dataset, by each measure. A spread comes from earlier runs of the
    lab on the same test dataset and first stages, else from the runs that the dataset brings, two by two, else it is
    assumed; a measure of which none is known is not in it.

    Args:
        plan: plan of the run; of folds, that of any.
        lab: lab of the earlier runs.
        all_folds: plans of all folds, whose test queries are counted together, as `cerank folds` compares them.
    """
    from cerank.datasets.folds import whole_of_fold
    from cerank.datasets.open_datasets import open_dataset
    from cerank.evaluation.primary_questions import questions

    recipe, data = plan.recipe, plan.recipe.data
    systems = (named_systems.FIRST_STAGE, *recipe.chain)
    primary = questions(recipe.evaluate.primary, "evaluate.primary")
    tests = len(data.first_stages) * sum(
        any(question.names(measure, {right}, {left}) for question in primary) if primary else True
        for test in data.test
        for measure in plan.measures_on(test)
        for at, right in enumerate(systems)
        for before, left in enumerate(systems[:at])
        if before in {0, at - 1}
    )
    baselines = recipe.untrained_systems()
    couples = [(named_systems.FIRST_STAGE, name) for name in baselines] + [
        (name, stage) for stage in recipe.chain for name in baselines
    ]
    tests += len(data.first_stages) * sum(
        any(question.names(measure, {right}, {left}) for question in primary)
        for test in data.test
        for measure in plan.measures_on(test)
        for left, right in couples
    )
    kinds = KINDS if len(recipe.chain) > 1 else KINDS[1:]
    expected = []
    for test in data.test:
        cache, name = Path(plan.cache), named_systems.short_name(test)
        if all_folds:
            of_folds = [(fold, fold.recipe.data.test[0]) for fold in all_folds]
            dataset = open_dataset(whole_of_fold(test), cache)
            queries = sum(len(open_dataset(own, cache).qrels) for _, own in of_folds)
            earlier = _joined([_of_earlier_runs(fold, own, lab) for fold, own in of_folds])
            name = f"{named_systems.short_name(whole_of_fold(test))}, {counted(len(all_folds), 'fold')}"
        else:
            dataset = open_dataset(test, cache)
            queries, earlier = len(dataset.qrels), _of_earlier_runs(plan, test, lab)
        for measure in plan.measures_on(test) if queries > 1 else ():
            brought: tuple[float, ...] | None = None
            for kind in kinds:
                spreads, source = earlier.get((kind, measure), ()), "earlier runs of this lab"
                if not spreads:
                    brought = _of_dataset(dataset, measure) if brought is None else brought
                    spreads, source = brought, "the runs that the dataset brings, two by two"
                if not spreads:
                    spreads, source = _assumed_range(measure, kind), "assumed"
                if not spreads:
                    continue
                margin = recipe.evaluate.margins.get(measure)  # a share of a mean has no size before the baseline's
                request = PowerRequest(margin=margin if isinstance(margin, float) else None, tests=max(tests, 1))
                low, high = (_power_estimate(queries, sd, request, measure) for sd in (min(spreads), max(spreads)))
                expected.append(
                    Expected(
                        dataset=name,
                        kind=kind,
                        measure=measure,
                        source=source,
                        low=low,
                        high=high,
                    )
                )
    return tuple(expected)


def _joined(of_each: Sequence[_Spreads]) -> _Spreads:
    """Return the spreads of several folds together."""
    keys = dict.fromkeys(key for spreads in of_each for key in spreads)
    return {key: tuple(sd for spreads in of_each for sd in spreads.get(key, ())) for key in keys}


def _assumed_range(measure: str, kind: Kind) -> tuple[float, ...]:
    """Return the smallest and the largest sd seen elsewhere; empty for a measure without one."""
    return SEEN[kind].get(measure.partition("@")[0].partition("(")[0].strip(), ())


def _of_earlier_runs(plan: Plan, test: str, lab: Path) -> dict[tuple[Kind, str], tuple[float, ...]]:
    """Return the spreads in runs of the lab that were planned before this one, by kind and measure."""
    spreads: dict[tuple[Kind, str], list[float]] = {}
    looked = 0
    for folder in reversed(run_store.folders(lab)):
        try:
            other = run_store.load_plan(folder)
        except CerankError:
            continue
        data = other.recipe.data
        is_same = test in data.test and other.created < plan.created and _content(other, test) == _content(plan, test)
        if not is_same or looked >= _EARLIER:
            continue
        looked += 1
        for first in set(data.first_stages) & set(plan.recipe.data.first_stages):
            for kind, measure, sd in _spreads_in(folder, other, test, first):
                spreads.setdefault((kind, measure), []).append(sd)
    return {key: tuple(sds) for key, sds in spreads.items()}


def _content(plan: Plan, test: str) -> list[str]:
    """Return the hashes of what a plan's test dataset holds."""
    return [entry.sha256 for entry in plan.inputs if (entry.role, entry.name) == ("dataset", test)]


def _spreads_in(folder: RunFolder, plan: Plan, test: str, first: str) -> Iterator[tuple[Kind, str, float]]:
    """Return the sd of each comparison of a run's own table on one test dataset over one first stage."""
    systems = [named_systems.FIRST_STAGE, *plan.recipe.chain]
    values = [run_summaries.load_measures(folder, system, test, first) for system in systems]
    for place in range(1, len(systems)):
        for before in dict.fromkeys((place - 1, 0)):
            kind: Kind = "stage against stage" if before else "stage against first stage"
            left, right = values[before], values[place]
            if left.keys() != right.keys() or len(left) < 2:
                continue
            for measure in next(iter(left.values())):
                gaps = [right[query].get(measure, 0.0) - row.get(measure, 0.0) for query, row in left.items()]
                if sd := statistics.stdev(gaps):
                    yield kind, measure, sd


def _of_dataset(dataset: Dataset, measure: str) -> tuple[float, ...]:
    """Return the sds between the runs that a dataset brings, two by two."""
    from cerank.evaluation.measures import per_query

    if len(dataset.runs) < 2:
        return ()
    rows = [
        per_query([measure], dataset.qrels, dataset.run(name).ranking)[measure]
        for name in dataset.runs
        if name != "scoreddocs"
    ]
    spreads = [
        statistics.stdev([other[query] - value for query, value in first.items()])
        for first, other in combinations(rows, 2)
    ]
    return tuple(sd for sd in spreads if sd > 0)


def told(expected: Sequence[Expected]) -> tuple[str, ...]:
    """Return what a plan's test queries come to, a sentence each."""
    lines = []
    for case in expected:
        low, high = case.low, case.high
        by = f"{case.kind} by {case.measure} on {counted(low.queries, 'query')} of {case.dataset}"
        width = width_of(case.measure)
        if width is not None and low.smallest_difference >= width:
            text = f"no true difference that {case.measure} allows shows in 4 of 5 cases"
        else:
            size = _range(low.smallest_difference, high.smallest_difference)
            text = f"a true difference of {size} shows in 4 of 5 cases"
        if low.power_for_margin is not None and high.power_for_margin is not None:
            verb = "can" if case.can_show else "cannot be counted on to"
            chance = _percent(high.power_for_margin, low.power_for_margin)
            text += f"; they {verb} show equivalence within ±{low.margin:g}: {chance} power at a true difference of 0"
            if not case.can_show:
                needed = high.queries_for_margin
                many = counted(needed, "query") if needed else "more than 100 million queries"
                text += f", and the larger sd takes {many}"
        lines.append(f"{by}: {text} (sd {_range(low.sd, high.sd)}, {case.source})")
    if expected:
        first = expected[0].low
        many = counted(first.tests, "comparison")
        level = f"level {first.alpha:.2g}, the most that adjusting can cost"
        lines.append(f"the run's table will hold {many}: each is taken at {level}")
    return tuple(lines)


def seen(expected: Sequence[Expected], comparison: Comparison) -> tuple[str, ...]:
    """Return the spreads that were planned with beside those of the run's own comparison."""
    lines = []
    for case in expected:
        sds = [
            row.paired.sd
            for row in comparison.rows
            if (row.measure, row.condition.dataset) == (case.measure, case.dataset)
            and ("stage against first stage" if row.left == comparison.baseline else "stage against stage") == case.kind
        ]
        if sds:
            planned, real = _range(case.low.sd, case.high.sd), _range(min(sds), max(sds))
            lines.append(
                f"{case.kind} by {case.measure} on {case.dataset}: planned with sd {planned} ({case.source}), "
                f"seen {real}"
            )
    return tuple(lines)


def _range(low: float, high: float) -> str:
    first, second = f"{low:.4f}", f"{high:.4f}"
    return first if first == second else f"{first} to {second}"


def _percent(low: float, high: float) -> str:
    first, second = f"{100 * low:.0f}", f"{100 * high:.0f}"
    return f"{first} %" if first == second else f"{first} to {second} %"


def sentences(cases: Sequence[PowerCase]) -> tuple[str, ...]:
    """Return a sentence for each case with a margin, and where an assumed spread comes from."""
    lines = []
    for case in cases:
        estimate = case.estimate
        lines += _beyond(case)
        if estimate.margin is None or estimate.power_for_margin is None:
            continue
        who = counted(estimate.queries, "query") + (f" of {case.dataset}" if case.dataset else "")
        by = f"by {case.measure}" + (f" of {case.right} with {case.left}" if case.left else "")
        chance = f"{100 * estimate.power_for_margin:.0f} %"
        text = f"{who} can show equivalence within ±{estimate.margin:g} {by}: {chance} power at a true difference of 0"
        if not case.can_show:
            needed = estimate.queries_for_margin
            many = counted(needed, "query") if needed else "more than 100 million queries"
            text = (
                f"{who} are too few to show equivalence within ±{estimate.margin:g} {by} (chance {chance} even if the "
                f"two are equal); they can within ±{estimate.smallest_margin:.4f}, and ±{estimate.margin:g} "
                f"needs {many}"
            )
        lines.append(text)
    if any(case.spread == "assumed" for case in cases):
        lines.append(ASSUMPTION)
    return tuple(lines)


def _beyond(case: PowerCase) -> list[str]:
    """Return a warning if no difference that shows is within what the measure allows, or what is left to gain."""
    size = case.estimate.smallest_difference
    if is_beyond(case, size):
        lines = [f"no true difference that {case.measure} allows would be seen with this power"]
        if is_beyond(case, case.estimate.smallest_margin):
            lines.append(f"nor can equivalence be shown: it takes a margin as wide as {case.measure} itself")
        return lines
    if case.headroom is not None and size > case.headroom:
        return [f"no gain that {case.measure} allows would be seen: only {case.headroom:.4f} is left above {case.left}"]
    return []


def is_beyond(case: PowerCase, size: float) -> bool:
    """Return whether a difference or margin of this size is beyond what the case's measure spans."""
    width = width_of(case.measure)
    return width is not None and size >= width


def _headroom(measure: str, left: Sequence[float]) -> float | None:
    from cerank.evaluation.measures import limits

    known = limits(measure)
    return None if known is None else known[1] - statistics.fmean(left)


def width_of(measure: str) -> float | None:
    """Return how far two values of a measure can lie apart; None where it has no known range."""
    from cerank.evaluation.measures import limits

    known = limits(measure)
    return None if known is None else known[1] - known[0]


def _refuse_impossible(queries: int, sd: float, request: PowerRequest, measure: str) -> None:
    """Refuse what no two systems could show: differences and spreads beyond the measure's range."""
    width = width_of(measure)
    if width is None:
        return
    for name, value in (("--delta", request.difference), ("--margin", request.margin)):
        if value is not None and value >= width:
            what = f"a difference of {value:g} is beyond what {measure} allows, which spans {width:g}"
            raise UsageError(what, where=name, hint="such as .02", code="difference-too-large")
    mean = request.difference or 0.0
    most = math.sqrt(queries / (queries - 1) * (width**2 - mean**2))
    if sd > most:
        of = f" whose mean is {mean:g}" if mean else ""
        what = (
            f"differences of {measure}{of} have an sd of at most {most:.4f} on {counted(queries, 'query')}, not {sd:g}"
        )
        raise UsageError(what, where="--sd", code="spread-too-large")


def _power_estimate(queries: int, sd: float, request: PowerRequest, measure: str) -> PowerEstimate:
    from cerank.evaluation.power import power_estimate

    for name, value in (("--delta", request.difference), ("--margin", request.margin)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"a number above 0 is wanted, not {value}", where=name)
    if queries > 1:
        _refuse_impossible(queries, sd, request, measure)
    return power_estimate(
        queries,
        sd,
        difference=request.difference,
        margin=request.margin,
        power=request.power,
        alpha=request.alpha,
        tests=request.tests,
    )


def _values(left: System, right: System, condition: Condition, measure: str) -> tuple[list[float], list[float]]:
    """Return both systems' values by query id, in the left one's order."""
    rows = []
    for system in (left, right):
        entry = next((entry for entry in system.measured if entry.condition == condition), None)
        if entry is None:
            known = [str(entry.condition) for entry in system.measured]
            raise UsageError(f"'{system.label}' was not measured on {condition}", hint=nearest(str(condition), known))
        rows.append(entry.values[measure])
    first, second = rows
    if first.keys() != second.keys():
        raise UsageError(f"'{left.label}' and '{right.label}' were measured on different queries of {condition}")
    return list(first.values()), [second[query] for query in first]
