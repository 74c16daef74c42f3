"""How far a difference, and the verdict on it, hang on unjudged documents and on the order of tied ones.

Unjudged documents are those that a ranking of the row has within the measure's cutoff (anywhere, for AP and Rprec
without one); each may have any grade from 0 to the largest of the qrels, and the ideal order, or the number of relevant
documents, counts it, too. Documents that neither ranking has there stay as they are. Tied documents, whose scores are
equal or one float32 apart, may stand in any order.

A judging is judged as the row is: by the t of its interval, and where few queries differ, or all by the same, by exact
sign flips at the same level.

Invariant: "holds" is proven for every judging (or order), by a bound or by trying them all; "flips" comes from
judgments under which the verdict was computed to be another one. Their number comes from a greedy search: fewer may do.
Whatever is neither is said to be unknown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from cerank.core.rankings import Ranking, float32_below
from cerank.evaluation import measures as by_name
from cerank.evaluation.sensitivity import document_shares as by_document
from cerank.evaluation.sensitivity.document_shares import SummedMeasure
from cerank.evaluation.sensitivity.extreme_statistics import is_always_reached, is_never_reached, t_of
from cerank.evaluation.sensitivity.relevant_totals import KINDS, JudgedTotals
from cerank.evaluation.significance import FEW, NOISE, SignFlips, needs_exact_test, p_equivalent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Answer = Literal["holds", "flips", "unknown", ""]  # "": no statement, see `why_not`
BOUNDED = ("nDCG", "RR", "P", "R", "Success", "AP", "Rprec")  # none falls where a better document moves up
_MOST_GRADINGS = 60_000  # of one query's unjudged documents; beyond, a bound that is too wide rather than exact
_MOST_STEPS = 200  # documents that the greedy search makes relevant
_MOST_JUDGINGS = 4096  # of all queries together that are tried one by one


class VerdictRule(msgspec.Struct, frozen=True, kw_only=True):
    """When a row shows a difference, and when it lies within the margin: by t, or by exact flips at the same level."""

    critical: float  # t of the interval beside the verdict
    margin: float | None = None
    critical_within: float | None = None  # t of the interval that must lie within the margin

    def states(self, d: Floats) -> tuple[bool, bool, bool]:
        """Return whether differences show a gain, show a loss, and lie within the margin."""
        import numpy as np

        d = np.where(np.abs(d) < NOISE, 0.0, d)
        if needs_exact_test(int(np.count_nonzero(d)), 0.0 if np.ptp(d) < NOISE else 1.0):
            flips = _flips(d)
            return self.shows_above(flips), self.shows_below(flips), self.shows_within(flips)
        t = t_of(d)
        is_within = False
        if self.margin is not None and self.critical_within is not None:
            nearer = min(t_of(self.margin - d), t_of(self.margin + d))
            is_within = nearer >= self.critical_within
        return t >= self.critical, -t >= self.critical, is_within

    def level(self, df: float) -> float:
        """Return the level of the interval beside the verdict, of both its sides."""
        from scipy.special import stdtr

        return float(2 * stdtr(df, -self.critical)) * (1 + 1e-9)  # the inverse of what gave the t, but for rounding

    def level_within(self, df: float) -> float:
        """Return the level of one side of the interval that must lie within the margin; 0 without a margin."""
        from scipy.special import stdtr

        return 0.0 if self.critical_within is None else float(stdtr(df, -self.critical_within)) * (1 + 1e-9)

    def shows_above(self, flips: SignFlips) -> bool:
        """Return whether an exact test shows a gain."""
        return 2 * flips.p_above(0.0) <= self.level(flips.df)

    def shows_below(self, flips: SignFlips) -> bool:
        """Return whether an exact test shows a loss."""
        return 2 * flips.p_below(0.0) <= self.level(flips.df)

    def shows_within(self, flips: SignFlips) -> bool:
        """Return whether exact tests show that the difference lies within the margin, with one more query, too."""
        return self.margin is not None and p_equivalent(flips, self.margin) <= self.level_within(flips.df)


def _flips(d: Floats) -> SignFlips:
    """Return the exact test of differences of a measure between 0 and 1, as all are that have bounds."""
    return SignFlips(values=tuple(d[d != 0].tolist()), n=d.size, least=0.0, most=1.0)


class VerdictBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the order of ties and unjudged documents can change in one row."""

    ties_low: float | None = None  # mean difference over all orders of tied documents; None where nothing is tied
    ties_high: float | None = None
    tied_queries: int = 0  # queries whose difference depends on the order of tied documents
    ties: Answer = ""
    unjudged: int = 0  # unjudged documents within the cutoff, each counted once a query
    unjudged_low: float | None = (
        None  # mean difference over all judgments of them; None where the measure has no bounds
    )
    unjudged_high: float | None = None
    is_exact: bool = True  # else the limits are wider than they need be: a query has too many unjudged documents
    judgments: Answer = ""
    flips_at: int | None = None  # unjudged documents that, found relevant, change the verdict; fewer may do
    why_not: str = ""  # why there is no statement on the verdict, or are no bounds

    @property
    def text(self) -> str:
        """Return what unjudged documents and ties can do to the verdict, in words."""
        parts = []
        if self.judgments == "holds":
            parts.append("holds under every judging" if self.unjudged else "all judged")
        elif self.judgments == "flips":
            verb = "is" if self.flips_at == 1 else "are"
            parts.append(f"flips if {self.flips_at} of {self.unjudged} unjudged documents {verb} relevant")
        elif self.judgments == "unknown":
            parts.append(f"not settled for {self.unjudged} unjudged documents")
        if self.ties_low is not None and self.ties:
            words = {"holds": "holds for every order of ties", "flips": "flips by the order of ties"}
            parts.append(words.get(self.ties, "not settled for the order of ties"))
        return "; ".join(parts) or self.why_not


class JudgingCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """An unjudged document, with how much its judgment can move the mean difference."""

    query: str
    document: str
    gain: float


class _JudgedQuery(msgspec.Struct, frozen=True):
    """One query's two lists and its judgments."""

    name: str
    grades: Mapping[str, int]
    left: Sequence[str]
    right: Sequence[str]
    unjudged: tuple[str, ...]


def bounds_of(
    measure: str,
    qrels: Mapping[str, Mapping[str, int]],
    left: Ranking,
    right: Ranking,
    rule: VerdictRule | None,
    *,
    why_not: str = "",
) -> tuple[VerdictBounds, tuple[JudgingCandidate, ...]]:
    """Return the bounds of one row, and its unjudged documents, those first whose judgment can move most.

    Args:
        measure: canonical.
        qrels: what the row was measured on.
        left: the baseline's ranking.
        right: the other's.
        rule: of the row's verdict; None where its interval does not decide it.
        why_not: why there is no rule.
    """
    import numpy as np

    shape = by_name.additive(measure)
    if shape is None or shape.kind not in BOUNDED:
        return VerdictBounds(why_not=f"no bounds for {measure}"), ()
    by_ties, tied_queries = _tie_limits(measure, qrels, left, right)
    bounds = VerdictBounds(why_not=why_not)
    if tied_queries:
        low, high = by_ties
        sides = [by_name.per_query((measure,), qrels, side)[measure] for side in (left, right)]
        now = np.array([sides[1][query] - value for query, value in sides[0].items()])
        bounds = msgspec.structs.replace(
            bounds,
            ties_low=float(low.mean()),
            ties_high=float(high.mean()),
            tied_queries=tied_queries,
            ties=_by_order(rule, now, low, high) if rule else "",
        )
    if by_name.is_condensed(measure):
        return msgspec.structs.replace(bounds, why_not=why_not or f"{measure} looks at judged documents only"), ()
    summed = by_document.shape_of(measure)
    queries = [_query(name, grades, left, right, summed) for name, grades in qrels.items()]
    largest = max((grade for grades in qrels.values() for grade in grades.values()), default=1)
    limits = [_limits(summed, query, largest) for query in queries]
    low, high = np.array([each[0] for each in limits]), np.array([each[1] for each in limits])
    count = sum(len(query.unjudged) for query in queries)
    bounds = msgspec.structs.replace(
        bounds,
        unjudged=count,
        unjudged_low=float(low.mean()),
        unjudged_high=float(high.mean()),
        is_exact=all(each[2] for each in limits),
    )
    search = _Search(summed, queries, max(largest, summed.rel))
    if rule is not None:
        answer, steps = _by_judgments(rule, search, low, high)
        bounds = msgspec.structs.replace(bounds, judgments=answer, flips_at=steps)
    return bounds, search.candidates()


# --- ties


def tied_groups(scores: Sequence[float]) -> list[tuple[int, int]]:
    """Return [first, end) of each group of neighbors whose scores are equal or one float32 apart."""
    groups, first = [], 0
    for place in range(1, len(scores) + 1):
        if place < len(scores) and scores[place] == float32_below(scores[place - 1]):
            continue
        if place - first > 1:
            groups.append((first, place))
        first = place
    return groups


def _ordered_ties(ranking: Ranking, qrels: Mapping[str, Mapping[str, int]], *, is_best: bool) -> dict[str, list[str]]:
    """Return the queries that have ties, each with its tied documents in the best or the worst order."""
    out = {}
    for query, grades in qrels.items():
        if query not in ranking:
            continue
        docs, groups = list(ranking[query]), tied_groups(ranking.scores(query))
        for first, end in groups:
            docs[first:end] = sorted(docs[first:end], key=lambda doc: grades.get(doc, -1), reverse=is_best)
        if groups:
            out[query] = docs
    return out


def _tie_limits(
    measure: str, qrels: Mapping[str, Mapping[str, int]], left: Ranking, right: Ranking
) -> tuple[tuple[Floats, Floats], int]:
    """Return the smallest and largest difference of each query over all orders of ties, and how many can differ."""
    import numpy as np

    def extreme(ranking: Ranking, *, is_best: bool) -> Floats:
        docs = {**{query: list(ranking[query]) for query in ranking}, **_ordered_ties(ranking, qrels, is_best=is_best)}
        scores = {query: [float(-rank) for rank in range(len(ids))] for query, ids in docs.items()}
        values = by_name.per_query((measure,), qrels, Ranking(docs, scores))[measure]
        return np.array(list(values.values()))

    low = extreme(right, is_best=False) - extreme(left, is_best=True)
    high = extreme(right, is_best=True) - extreme(left, is_best=False)
    return (low, high), int((high - low > 1e-12).sum())


def _by_order(rule: VerdictRule, now: Floats, low: Floats, high: Floats) -> Answer:
    """Return whether the verdict is one and the same for all orders of ties."""
    here = rule.states(now)
    if any(rule.states(each) != here for each in _corners(rule, low, high)):
        return "flips"
    return "holds" if _is_proven(rule, here, low, high) else "unknown"


def _corners(rule: VerdictRule, low: Floats, high: Floats) -> Iterable[Floats]:
    """Return choices that can be had, and where the verdict is likely to be another one."""
    import numpy as np

    yield low
    yield high
    middle = float((low.mean() + high.mean()) / 2)
    far = np.where(np.abs(low - middle) > np.abs(high - middle), low, high)
    yield far  # the largest spread
    for width in (0.5, 1.0, 2.0):  # a little spread for a smaller mean, and the other way around
        yield np.where(low**2 - width * rule.critical * low > high**2 - width * rule.critical * high, low, high)


def _is_proven(rule: VerdictRule, states: tuple[bool, bool, bool], low: Floats, high: Floats) -> bool:
    """Return whether the differences have these states wherever they lie within their limits.

    Where some choices would be judged by t and others by exact flips, nothing is proven.
    """
    if float((high - low).max()) < NOISE:
        return True
    if int(((low < -NOISE) | (high > NOISE)).sum()) < FEW:
        return _is_proven_by_flips(rule, states, low, high)
    if int(((low > 0) | (high < 0)).sum()) < FEW or _may_all_be_equal(rule, low, high):
        return False
    return _is_proven_by_t(rule, states, low, high)


def _may_all_be_equal(rule: VerdictRule, low: Floats, high: Floats) -> bool:
    """Return whether all queries could differ by the same, and be too few for exact flips to show what a t shows."""
    df = low.size - 1
    level = rule.level(df) if rule.margin is None else min(rule.level(df), rule.level_within(df))
    return float(low.max()) <= float(high.min()) and 2.0**-df > level


def _is_proven_by_t(rule: VerdictRule, states: tuple[bool, bool, bool], low: Floats, high: Floats) -> bool:
    gain, loss, within = states
    c = rule.critical
    for is_shown, a, b in ((gain, low, high), (loss, -high, -low)):
        if not (is_always_reached(a, b, c) if is_shown else is_never_reached(a, b, c)):
            return False
    if rule.margin is None or rule.critical_within is None:
        return True
    below, above = (rule.margin - high, rule.margin - low), (rule.margin + low, rule.margin + high)
    if within:
        return is_always_reached(*below, rule.critical_within) and is_always_reached(*above, rule.critical_within)
    return is_never_reached(*below, rule.critical_within) or is_never_reached(*above, rule.critical_within)


def _is_proven_by_flips(rule: VerdictRule, states: tuple[bool, bool, bool], low: Floats, high: Floats) -> bool:
    """Return whether exact tests say the same wherever so few differences lie within their limits.

    A larger difference makes no sum of a set of them smaller, and so no p for a larger mean larger: the limits decide.
    """
    import numpy as np

    gain, loss, within = states
    least, most = _flips(low), _flips(high)
    if rule.shows_above(least if gain else most) != gain or rule.shows_below(most if loss else least) != loss:
        return False
    if rule.margin is None or rule.critical_within is None:
        return True
    level = rule.level_within(low.size - 1)
    if not within:
        return most.p_above(-rule.margin) > level or least.p_below(rule.margin) > level
    unseen = max(least.unseen, most.unseen)  # one more query that differs as much as any choice asks for, or more
    lower, upper = _flips(np.append(low, -unseen)), _flips(np.append(high, unseen))
    # one more query that gains makes no p for a mean above -margin larger, and one that loses none for one below margin
    above = (least.p_above(-rule.margin), lower.p_above(-rule.margin))
    return max(*above, most.p_below(rule.margin), upper.p_below(rule.margin)) <= level


# --- unjudged documents


def _query(name: str, grades: Mapping[str, int], left: Ranking, right: Ranking, shape: SummedMeasure) -> _JudgedQuery:
    both = [list(side[name])[: shape.cutoff] if name in side else [] for side in (left, right)]
    unjudged = tuple(doc for doc in dict.fromkeys([*both[0], *both[1]]) if doc not in grades)
    return _JudgedQuery(name, grades, both[0], both[1], unjudged)


def _difference(shape: SummedMeasure, query: _JudgedQuery, decided: Mapping[str, int]) -> float:
    grades = {**query.grades, **decided} if decided else query.grades
    return by_document.value(shape, grades, query.right) - by_document.value(shape, grades, query.left)


def _limits(shape: SummedMeasure, query: _JudgedQuery, largest: int) -> tuple[float, float, bool]:
    """Return the smallest and largest difference of a query over all judgments, and whether they are exact."""
    now = _difference(shape, query, {})
    if not query.unjudged:
        return now, now, True
    if shape.kind == "nDCG":
        return _limits_of_ndcg(shape, query, largest)
    if shape.kind in KINDS:
        return _totals(shape, query).limits()
    grade = max(largest, shape.rel)
    if shape.kind in {"RR", "Success"}:
        # The value of a side is that of its first relevant document, so one document does what several can.
        each = [now, *(_difference(shape, query, {doc: grade}) for doc in query.unjudged)]
        return min(each), max(each), True
    low, high = _limits_of_counts(shape, query)
    return low, high, True


def _totals(shape: SummedMeasure, query: _JudgedQuery) -> JudgedTotals:
    sides = (query.left, query.right)
    return JudgedTotals(shape.kind, query.grades, sides, query.unjudged, cutoff=shape.cutoff, rel=shape.rel)


def _limits_of_counts(shape: SummedMeasure, query: _JudgedQuery) -> tuple[float, float]:
    """Return the limits of P and R, which count relevant documents.

    A document of one side alone moves the difference by one count; one of both sides moves none, but R's total.
    """

    def count(docs: Iterable[str]) -> int:
        return sum(query.grades.get(doc, shape.rel - 1) >= shape.rel for doc in docs)

    unjudged, left, right = set(query.unjudged), set(query.left), set(query.right)
    gained, relevant = count(right) - count(left), sum(grade >= shape.rel for grade in query.grades.values())
    both = len(unjudged & left & right)

    def share(more: int, shared: int, sign: int) -> float:
        total = (shape.cutoff or 1) if shape.kind == "P" else relevant + more + shared
        return (gained + sign * more) / total if total else 0.0

    ends = []
    for sign, alone in ((-1, len(unjudged & (left - right))), (1, len(unjudged & (right - left)))):
        values = [share(more, shared, sign) for more in range(alone + 1) for shared in range(both + 1)]
        ends.append(min(values) if sign < 0 else max(values))
    return ends[0], ends[1]


def _limits_of_ndcg(shape: SummedMeasure, query: _JudgedQuery, largest: int) -> tuple[float, float, bool]:
    """Return the limits of nDCG: for each multiset of grades the best and the worst way to hand them out."""
    import numpy as np

    weights = [{doc: 1 / math.log2(rank + 1) for rank, doc in enumerate(side, 1)} for side in (query.left, query.right)]
    delta = np.array(
        sorted((weights[1].get(doc, 0.0) - weights[0].get(doc, 0.0) for doc in query.unjudged), reverse=True)
    )
    fixed = math.fsum(
        max(query.grades[doc], 0) * (weights[1].get(doc, 0.0) - weights[0].get(doc, 0.0))
        for doc in weights[0].keys() | weights[1].keys()
        if doc in query.grades
    )
    judged = sorted((grade for grade in query.grades.values() if grade > 0), reverse=True)
    if math.comb(delta.size + largest, largest) > _MOST_GRADINGS:
        least = by_document.ideal_dcg(judged, shape.cutoff)
        most = by_document.ideal_dcg([*judged, *[largest] * delta.size], shape.cutoff)
        top, bottom = fixed + largest * float(delta[delta > 0].sum()), fixed + largest * float(delta[delta < 0].sum())
        high = _quotient(top, least if top > 0 else most)
        low = _quotient(bottom, least if bottom < 0 else most)
        return max(low, -1.0), min(high, 1.0), False
    grades = np.array(list(itertools.combinations_with_replacement(range(largest, -1, -1), delta.size)), dtype=float)
    width = shape.cutoff or len(judged) + delta.size
    known = np.tile(np.array(judged[:width], dtype=float), (len(grades), 1))
    ideal = -np.sort(-np.hstack([known, grades]), axis=1)[:, :width]
    ideals = (ideal / np.log2(np.arange(2, ideal.shape[1] + 2))).sum(axis=1)
    is_some = ideals > 0
    values = [
        np.divide(fixed + grades @ order, ideals, out=np.zeros_like(ideals), where=is_some)
        for order in (delta, delta[::-1])
    ]
    return float(values[1].min()), float(values[0].max()), True


def _quotient(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else math.copysign(1.0, top) if top else 0.0


class _Search:
    """Makes unjudged documents relevant one by one."""

    def __init__(self, shape: SummedMeasure, queries: Sequence[_JudgedQuery], grade: int) -> None:
        import numpy as np

        self._shape, self._queries, self._grade = shape, queries, grade
        self.start = np.array([_difference(shape, query, {}) for query in queries])
        self._places = [(at, doc) for at, query in enumerate(queries) for doc in query.unjudged]
        first = [self._if_relevant(at, {}) for at in range(len(queries))]
        self._first = np.concatenate([*first, np.zeros(0)])

    def candidates(self) -> tuple[JudgingCandidate, ...]:
        """Return the unjudged documents, those first whose judgment can move the mean difference most."""
        n = len(self._queries)
        out = [
            JudgingCandidate(query=self._queries[at].name, document=doc, gain=abs(float(value - self.start[at])) / n)
            for (at, doc), value in zip(self._places, self._first, strict=True)
        ]
        return tuple(sorted(out, key=lambda each: (-each.gain, each.query, each.document)))

    def fewest(self, rule: VerdictRule, goal: tuple[int, float], most: int) -> int | None:
        """Return how many documents a greedy search takes to change what the verdict says; None if it fails.

        Args:
            rule: of the verdict.
            goal: what each step makes as large as it can: the mean times the first plus its error times the second.
            most: documents after which it gives up.
        """
        import numpy as np

        sign, per_error = goal
        d, values, states = self.start.copy(), self._first.copy(), rule.states(self.start)
        at_query = np.array([at for at, _ in self._places], dtype=np.int64)
        decided: list[dict[str, int]] = [{} for _ in self._queries]
        is_open = np.ones(len(self._places), dtype=bool)
        n = d.size
        for step in range(1, min(most, len(self._places)) + 1):
            sums = d.sum() - d[at_query] + values
            squares = (d**2).sum() - d[at_query] ** 2 + values**2
            error = np.sqrt(np.maximum(squares - sums**2 / n, 0) / (n - 1) / n)
            chosen = int(np.argmax(np.where(is_open, sign * sums / n + per_error * error, -np.inf)))
            at, doc = self._places[chosen]
            is_open[chosen] = False
            decided[at][doc] = self._grade
            d[at] = values[chosen]
            if rule.states(d) != states:
                return step
            values[at_query == at] = self._if_relevant(at, decided[at])
        return None

    def try_all(self, rule: VerdictRule) -> tuple[Answer, int | None]:
        """Return whether the verdict is the same under every judging, or the fewest relevant documents that change it.

        "unknown" where there are too many judgings to try.
        """
        grades, counts = range(self._grade + 1), [len(query.unjudged) for query in self._queries]
        if (self._grade + 1) ** sum(counts) > _MOST_JUDGINGS:
            return "unknown", None
        open_ = [at for at, count in enumerate(counts) if count]
        choices = []
        for at in open_:
            query = self._queries[at]
            each = [dict(zip(query.unjudged, of, strict=True)) for of in itertools.product(grades, repeat=counts[at])]
            choices.append([(_difference(self._shape, query, of), sum(map(bool, of.values()))) for of in each])
        states, d, fewest = rule.states(self.start), self.start.copy(), None
        for judging in itertools.product(*choices):
            d[open_] = [value for value, _ in judging]
            relevant = sum(count for _, count in judging)
            if (fewest is None or relevant < fewest) and rule.states(d) != states:
                fewest = relevant
        return ("holds", None) if fewest is None else ("flips", fewest)

    def _if_relevant(self, at: int, decided: Mapping[str, int]) -> Floats:
        """Return for each unjudged document of a query the difference if it is relevant beside those decided.

        The values of the decided themselves are never read.
        """
        import numpy as np

        query = self._queries[at]
        if self._shape.kind in KINDS:
            places = [place for place, doc in enumerate(query.unjudged) if doc in decided]
            return _totals(self._shape, query).if_relevant(places)
        each = [_difference(self._shape, query, {**decided, doc: self._grade}) for doc in query.unjudged]
        return np.array(each, dtype=np.float64)


def _goals(rule: VerdictRule, states: tuple[bool, bool, bool], mean: float) -> list[tuple[int, float]]:
    """Return what to make large, mean and error weighted, to leave each state or to come into it."""
    gain, loss, within = states
    c, inner = rule.critical, rule.critical_within
    goals = [(-1, c)] if gain else [(1, c)] if loss else [(1, -c), (-1, -c)]
    if inner is not None:
        goals += [(1, inner), (-1, inner)] if within else [(-1 if mean > 0 else 1, -inner)]
    return goals


def _by_judgments(rule: VerdictRule, search: _Search, low: Floats, high: Floats) -> tuple[Answer, int | None]:
    """Return whether the verdict is the same under all judgments, or how many of them were found to change it."""
    here = rule.states(search.start)
    if _is_proven(rule, here, low, high):
        return "holds", None
    fewest: int | None = None
    for goal in _goals(rule, here, float(search.start.mean())):
        steps = search.fewest(rule, goal, _MOST_STEPS if fewest is None else fewest - 1)
        fewest = steps if steps is not None else fewest
    return ("flips", fewest) if fewest is not None else search.try_all(rule)
