"""How deep to re-rank: one re-ranking measured at several depths, and what the tests say of them.

Candidates are scored once, at the greatest depth. The ranking at a smaller depth holds the candidates of the first
stage down to that depth, in the order of the same scores, and below them the others as the first stage has them.

Invariant: a depth is measured from the scores of the deepest re-ranking; nothing is scored here. Every statement rests
on a verdict of one family, in which each depth is compared with each other one and with the first stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.evaluation.compare import Comparison, Row, compare
from cerank.evaluation.measures import Qrels
from cerank.evaluation.systems import Condition, Measured, System, measured, measured_in
from cerank.evaluation.verdicts.terms import Pairing, Terms
from cerank.text.safe_text import counted, shown

_WITHIN = ("equivalent", "different but negligible", "identical")  # verdicts that keep a difference within the margin
FIRST_STAGE = "first-stage"


class DepthRanking(msgspec.Struct, frozen=True, kw_only=True):
    """One re-ranking in one condition, with the candidates it was made from."""

    system: str
    condition: Condition
    candidates: Ranking
    reranked: Ranking
    qrels: Qrels
    qrels_sha256: str
    seconds_a_pair: float | None = None  # measured while it was scored; None where that is not known


class DepthPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One depth of a curve."""

    depth: int
    mean: float
    low: float | None  # interval of the mean over queries, at the comparison's confidence; None without spread
    high: float | None
    pairs: float  # documents scored for a query, on average; fewer than the depth where lists are shorter
    seconds: float | None  # to re-rank a query, from the speed measured at the greatest depth
    against_first: Row  # with the first stage
    against_deepest: Row | None  # with the greatest depth; None for that depth itself


class DepthCurve(msgspec.Struct, frozen=True, kw_only=True):
    """One re-ranker in one condition by one measure, over its depths."""

    system: str
    condition: Condition
    measure: str
    queries: int
    first_mean: float  # of the first stage as it is
    points: tuple[DepthPoint, ...]
    enough: int | None  # the smallest depth within the margin of the greatest; None where none is shown to be
    hurt_at: tuple[int, int] | None  # a depth that is worse than a smaller one, which follows: the smallest such pair
    below_first: int | None  # the smallest depth that is worse than the first stage
    has_margin: bool


class DepthStudy(msgspec.Struct, frozen=True, kw_only=True):
    """All curves that are tested together, and the comparison that the tests come from."""

    curves: tuple[DepthCurve, ...]
    comparison: Comparison


def check_depths(depths: Sequence[int], greatest: int, where: str) -> tuple[int, ...]:
    """Return the depths in ascending order, the greatest one among them.

    Args:
        depths: as the user names them.
        greatest: the depth at which candidates were scored.
        where: the option or key they come from, for errors.

    Raises:
        UsageError: a depth is below 1, comes twice, or lies beyond the candidates; or only one is left.
    """
    for depth in depths:
        if depth < 1:
            raise UsageError(f"a depth of {depth}", where=where, hint="give 1 or more", code="depth-out-of-range")
        if depth > greatest:
            what = f"depth {depth} lies beyond the {counted(greatest, 'candidate')} that are scored for a query"
            raise UsageError(what, where=where, hint="take more candidates, or leave it out", code="depth-beyond")
    if len(set(depths)) < len(depths):
        raise UsageError("a depth is given twice", where=where, hint="name each depth once", code="depth-twice")
    out = tuple(sorted({*depths, greatest}))
    if len(out) < 2:
        what = f"depth {greatest} alone leaves nothing to compare"
        raise UsageError(what, where=where, hint="name a smaller depth, too", code="depth-alone")
    return out


def at_depth(reranked: Ranking, candidates: Ranking, depth: int) -> Ranking:
    """Return what re-ranking the first `depth` candidates gives, from the scores of a deeper re-ranking.

    The candidates below that depth follow in the order of the first stage, so that a measure which looks further than
    the depth compares orders, and not lengths of lists. Their scores are ranks.

    Example:
        >>> first = Ranking({"q": ["d1", "d2", "d3"]}, {"q": [3.0, 2.0, 1.0]})
        >>> deepest = Ranking({"q": ["d3", "d2", "d1"]}, {"q": [9.0, 8.0, 7.0]})
        >>> at_depth(deepest, first, 2)["q"]
        ('d2', 'd1', 'd3')
    """
    documents: dict[str, list[str]] = {}
    for query in reranked:
        within, scored = set(candidates.get(query, ())[:depth]), set(reranked[query])
        below = [doc for doc in candidates.get(query, ())[depth:] if doc in scored]
        documents[query] = [*(doc for doc in reranked[query] if doc in within), *below]
    return Ranking(documents, {query: [float(-rank) for rank in range(len(docs))] for query, docs in documents.items()})


def greatest_depth(candidates: Ranking, reranked: Ranking, where: str) -> int:
    """Return how many candidates of a query were scored at most.

    Raises:
        UsageError: the re-ranking lacks a candidate before its last one, or a query, so that it has no depth.
    """
    deepest = max((len(reranked[query]) for query in reranked), default=0)
    for query in candidates:
        expected = candidates[query][: len(reranked.get(query, ()))]
        lacking = set(expected).difference(reranked.get(query, ()))
        is_short = len(expected) < min(deepest, len(candidates[query]))
        if lacking or is_short:
            what = f"query {shown(query, 40)}: the re-ranking does not hold the first {deepest} candidates"
            if lacking:
                what = f"query {shown(query, 40)}: the re-ranking lacks the candidate {shown(min(lacking), 60)}"
            hint = "give the run that was re-ranked as the first stage"
            raise UsageError(what, where=where, hint=hint, code="candidate-not-scored")
    return deepest


def depth_study(
    rankings: Sequence[DepthRanking], depths: Sequence[int], measures: Sequence[str], terms: Terms
) -> DepthStudy:
    """Return the curves of all rankings by all measures; their tests are one family.

    Args:
        rankings: what was re-ranked, each at the greatest depth; those of one condition share their candidates.
        depths: ascending, the greatest one last, as `check_depths` returns them.
        measures: canonical names.
        terms: margins, correction and confidence; its pairs and primary questions do not count.

    Raises:
        UsageError: as `compare`.
    """
    systems = _systems(rankings, depths, measures)
    pairings = []
    for ranking in rankings:
        labels = [FIRST_STAGE, *(_label(ranking.system, depth) for depth in depths)]
        pairings += [
            Pairing(condition=ranking.condition, measure=measure, left=left, right=right)
            for measure in measures
            for left, right in combinations(labels, 2)
        ]
    terms = msgspec.structs.replace(terms, pairs="all", primary=())
    comparison = compare(systems, measures, pairings=pairings, terms=terms)
    rows = {(row.condition, row.measure, row.left, row.right): row for row in comparison.rows}
    curves = [
        _curve(ranking, depths, measure, systems={system.label: system for system in systems}, rows=rows, terms=terms)
        for ranking in rankings
        for measure in measures
    ]
    return DepthStudy(curves=tuple(curves), comparison=comparison)


def _label(system: str, depth: int) -> str:
    return f"{system} at depth {depth}"


def _systems(rankings: Sequence[DepthRanking], depths: Sequence[int], measures: Sequence[str]) -> list[System]:
    """Return the first stage, then each re-ranker at each depth, measured wherever it re-ranked."""
    by_label: dict[str, list[Measured]] = {FIRST_STAGE: []}
    first: dict[Condition, Measured] = {}
    for each in rankings:
        facts = (each.condition, each.qrels, each.qrels_sha256)
        if each.condition not in first:
            first[each.condition] = measured(measures, *facts, each.candidates.top(depths[-1]))
        for depth in depths:
            ranking = at_depth(each.reranked, each.candidates, depth)
            by_label.setdefault(_label(each.system, depth), []).append(measured(measures, *facts, ranking))
    by_label[FIRST_STAGE] = list(first.values())
    return [System(label=label, measured=tuple(rows), is_fixed=True) for label, rows in by_label.items()]


def _curve(
    ranking: DepthRanking,
    depths: Sequence[int],
    measure: str,
    *,
    systems: Mapping[str, System],
    rows: Mapping[tuple[Condition, str, str, str], Row],
    terms: Terms,
) -> DepthCurve:
    condition = ranking.condition
    lists = [ranking.candidates[query] for query in ranking.reranked]

    def row(left: str, right: str) -> Row:
        return rows[condition, measure, left, right]

    points = []
    for depth in depths:
        label = _label(ranking.system, depth)
        values = list(measured_in(systems[label], condition).values[measure].values())
        pairs = sum(min(depth, len(docs)) for docs in lists) / len(lists)
        low, high = _interval(values, terms.confidence)
        points.append(
            DepthPoint(
                depth=depth,
                mean=math.fsum(values) / len(values),
                low=low,
                high=high,
                pairs=pairs,
                seconds=None if ranking.seconds_a_pair is None else pairs * ranking.seconds_a_pair,
                against_first=row(FIRST_STAGE, label),
                against_deepest=None if depth == depths[-1] else row(label, _label(ranking.system, depths[-1])),
            )
        )
    within = [point.depth for point in points if point.against_deepest and point.against_deepest.verdict in _WITHIN]
    worse = [
        (right, left)
        for left, right in combinations(depths, 2)
        if row(_label(ranking.system, left), _label(ranking.system, right)).verdict == "worse"
    ]
    below = [point.depth for point in points if point.against_first.verdict == "worse"]
    first = list(measured_in(systems[FIRST_STAGE], condition).values[measure].values())
    return DepthCurve(
        system=ranking.system,
        condition=condition,
        measure=measure,
        queries=len(first),
        first_mean=math.fsum(first) / len(first),
        points=tuple(points),
        enough=min(within, default=None),
        hurt_at=min(worse, default=None),
        below_first=min(below, default=None),
        has_margin=measure in terms.margins,
    )


def _interval(values: Sequence[float], confidence: float) -> tuple[float | None, float | None]:
    """Return the t interval of a mean over queries; None where there is no spread to judge by."""
    from scipy.special import stdtrit

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2 or max(values) == min(values):
        return None, None
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    half = -float(stdtrit(count - 1, (1 - confidence) / 2)) * error
    return mean - half, mean + half


def sentences(curve: DepthCurve, *, has_other: bool = False) -> tuple[str, ...]:
    """Return what the tests say of one curve: whether depth hurts, and which depth is enough.

    Args:
        curve: of one re-ranker, in one condition, by one measure.
        has_other: whether other curves stand beside it, so that each says what it is of.
    """
    of = f"{curve.system}, {curve.measure} on {curve.condition}: " if has_other else ""
    first, deepest = curve.points[0].depth, curve.points[-1].depth
    out = []
    if curve.hurt_at is not None:
        deeper, smaller = curve.hurt_at
        out.append(f"{of}depth hurts: re-ranking {deeper} is worse than re-ranking {smaller}")
    else:
        out.append(f"{of}no depth up to {deepest} is shown to be worse than a smaller one")
    if curve.below_first is not None:
        out.append(f"{of}re-ranking {curve.below_first} is worse than not re-ranking at all")
    if curve.enough is not None:
        out.append(f"{of}depth {curve.enough} is enough: within the margin of depth {deepest}, and the smallest such")
    elif curve.has_margin:
        out.append(f"{of}no depth from {first} on is shown to be within the margin of depth {deepest}")
    else:
        out.append(f"{of}which depth is enough takes a margin: declare one in [evaluate] margins, or give --margin")
    return tuple(out)
