"""Which rows of comparisons on several collections are about the same two systems, and what they come to together.

Where few queries of a collection differ, an equivalence of the mean must hold with one more query in that collection
that differs much, as it must for the collection alone (`significance.with_unseen`).

Invariant: a collection counts once. The rankings of one collection over several first stages share its queries, so they
are made one difference first: averaged query by query where the values are known, and taken as fully dependent else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.compare import Comparison, Row
from cerank.evaluation.measures import limits
from cerank.evaluation.multiple_testing import Correction
from cerank.evaluation.significance import (
    FEW,
    UNSEEN,
    Estimate,
    Inference,
    SignFlips,
    Stricter,
    estimate_of,
    inference_of,
    paired,
    unseen_of,
)
from cerank.evaluation.studies.judge_estimates import judged_estimates
from cerank.evaluation.studies.random_effects import Pooled, pool
from cerank.evaluation.systems import measured_in, ranking_identity, values_by_query
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Judgment, cut
from cerank.text.safe_text import counted

Domain = Literal["", "in-domain", "out-of-domain"]


class CollectionDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What one collection says of a system against another, by one measure."""

    collection: str
    measure: str
    left: str  # the baseline's label
    right: str
    queries: int
    difference: float
    error: float  # standard error
    first_stages: tuple[str, ...] = ()
    qrels_sha256: str = ""  # what makes two collections the same, whatever they are called
    rankings: tuple[tuple[str, str], ...] = ()  # hashes of both sides' rankings, by first stage; () where not known
    unseen: float | None = None  # how much one more query may differ; None where ten or more differ, or it is not known
    exact: SignFlips | None = None  # where few queries differ; None also where values are not known
    over_seeds: Estimate | None = None  # for a claim about recipes
    limits: tuple[float, float] | None = None  # the differences that the measure allows above this baseline

    @property
    def test(self) -> Inference | None:
        """Return the test of the collection's own row; None for the t-test over queries; see `row_tests`."""
        if self.exact is not None and self.over_seeds is not None:
            return Stricter(self.over_seeds, self.exact)
        return self.over_seeds if self.exact is None else self.exact

    def with_one_more(self, sign: float) -> CollectionDifference:
        """Return the difference with one query more that differs by `unseen`; as it is where many queries differ."""
        if self.unseen is None:
            return self
        n, gain = self.queries, sign * self.unseen
        squares = self.error**2 * n * (n - 1) + (gain - self.difference) ** 2 * n / (n + 1)
        difference = (n * self.difference + gain) / (n + 1)
        return msgspec.structs.replace(
            self, queries=n + 1, difference=difference, error=math.sqrt(squares / n / (n + 1)), unseen=None, exact=None
        )


class PooledRow(msgspec.Struct, frozen=True, kw_only=True):
    """A system against another by one measure: each collection, the mean over them, and the verdict on that mean."""

    measure: str
    left: str
    right: str
    collections: tuple[CollectionDifference, ...]
    pooled: Pooled
    judgment: Judgment
    domain: Domain = ""  # which of the collections: "" for all of them

    @property
    def is_of_several(self) -> bool:
        """Return whether the line is another comparison than that of one collection behind one first stage."""
        return len(self.collections) > 1 or len(self.collections[0].first_stages) > 1


class PooledResult(msgspec.Struct, frozen=True, kw_only=True):
    """All pooled rows of one family."""

    rows: tuple[PooledRow, ...]
    alpha: float
    correction: Correction
    notes: tuple[str, ...]
    family: int  # comparisons adjusted together: the rows, and those that were declared beside them


def of_comparison(comparison: Comparison) -> tuple[CollectionDifference, ...]:
    """Return each collection's difference, its first stages averaged query by query.

    A claim about recipes keeps the standard error that counts seeds; over several first stages the largest one.
    """
    systems = {system.label: system for system in comparison.systems}
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for place, row in enumerate(comparison.rows):
        if row.verdict != "identical":
            groups.setdefault((row.condition.dataset, row.measure, row.left, row.right), []).append(place)
    out = []
    for (dataset, measure, left, right), places in groups.items():
        rows = [comparison.rows[place] for place in places]
        by_query: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            queries, values = values_by_query(systems[left], systems[right], row.condition, measure)
            for query, *both in zip(queries, *values, strict=True):
                by_query.setdefault(query, []).append((both[0], both[1]))
        lefts, rights = (
            [math.fsum(pair[side] for pair in pairs) / len(pairs) for pairs in by_query.values()] for side in (0, 1)
        )
        averaged = paired(lefts, rights)
        figures, test = estimate_of(averaged), inference_of(averaged, (lefts, rights), limits(measure))
        exact = test if isinstance(test, SignFlips) else None
        several_recipes = len(rows) > 1 and rows[0].recipes is not None
        with_seeds = [row.recipes.estimate.error for row in rows if row.recipes is not None]
        out.append(
            CollectionDifference(
                collection=dataset,
                measure=measure,
                left=left,
                right=right,
                queries=len(by_query),
                difference=figures.difference,
                error=max([figures.error, *with_seeds]),
                first_stages=tuple(row.condition.first_stage for row in rows if row.condition.first_stage),
                qrels_sha256=measured_in(systems[left], rows[0].condition).qrels_sha256,
                rankings=tuple(
                    (ranking_identity(systems[left], row.condition), ranking_identity(systems[right], row.condition))
                    for row in rows
                ),
                unseen=unseen_of(test),
                exact=None if several_recipes else exact,
                over_seeds=_over_seeds(rows),
                limits=limits_above(measure, averaged.mean_left),
            )
        )
    return tuple(out)


def _over_seeds(rows: Sequence[Row]) -> Estimate | None:
    """Return the test of a claim about recipes; None for another claim, or several first stages."""
    recipes = [row.recipes.estimate for row in rows if row.recipes is not None]
    return recipes[0] if len(recipes) == 1 and recipes[0].error > 0 else None


def limits_above(measure: str, baseline: float) -> tuple[float, float] | None:
    """Return the differences that a measure allows from the mean of a baseline; None where it has no known range."""
    allowed = limits(measure)
    return None if allowed is None else (allowed[0] - baseline, allowed[1] - baseline)


def unseen_in(measure: str, differing: int | None) -> float | None:
    """Return how much one more query may differ where so many did, of which only a summary is known."""
    allowed = limits(measure)
    if differing is None or differing >= FEW or allowed is None:
        return None
    return UNSEEN * (allowed[1] - allowed[0])


def merged(rows: Sequence[CollectionDifference]) -> tuple[CollectionDifference, ...]:
    """Return one difference for each collection, where only summaries of its first stages are known.

    Their standard errors are averaged, as if they were fully dependent: no dependence makes the mean's error larger.
    """
    hashes: dict[str, set[str]] = {}
    for row in rows:
        hashes.setdefault(row.collection, set()).add(row.qrels_sha256)
    groups: dict[tuple[str, str, str, str], list[CollectionDifference]] = {}
    for row in rows:  # two files called qrels are two collections
        is_ambiguous = len(hashes[row.collection]) > 1
        name = f"{row.collection} ({row.qrels_sha256[:6]})" if is_ambiguous else row.collection
        named = msgspec.structs.replace(row, collection=name)
        groups.setdefault((name, row.measure, row.left, row.right), []).append(named)
    out = []
    for same in groups.values():
        names = [name for row in same for name in row.first_stages]
        if len(set(names)) < len(names) or (len(same) > 1 and not names):
            where = f"{same[0].right} against {same[0].left} by {same[0].measure} on {same[0].collection}"
            raise UsageError("one comparison is given twice", where=where, hint="name each saved comparison only once")
        out.append(
            msgspec.structs.replace(
                same[0],
                queries=max(row.queries for row in same),
                difference=math.fsum(row.difference for row in same) / len(same),
                error=math.fsum(row.error for row in same) / len(same),
                first_stages=tuple(names),
                rankings=tuple(pair for row in same for pair in row.rankings)
                if all(row.rankings for row in same)
                else (),
                limits=_mean_limits([row.limits for row in same]),
                unseen=max((row.unseen for row in same if row.unseen is not None), default=None),
            )
        )
    return tuple(out)


def _mean_limits(ends: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [both for both in ends if both is not None]
    if len(known) < len(ends):
        return None
    return math.fsum(low for low, _ in known) / len(known), math.fsum(high for _, high in known) / len(known)


def _limits_of(rows: Sequence[CollectionDifference]) -> tuple[float, float] | None:
    """Return the differences that a mean can be; of several collections whatever the measure's range holds.

    The mean is that over collections like these, and no one knows how much is left above the baseline on the others.
    """
    if len(rows) == 1:
        return rows[0].limits
    allowed = limits(rows[0].measure)
    return None if allowed is None else (allowed[0] - allowed[1], allowed[1] - allowed[0])


def pooled(
    rows: Sequence[CollectionDifference],
    *,
    margins: dict[str, Margin] | None = None,
    alpha: float = 0.05,
    correction: Correction = "holm",
    in_domain: Collection[str] = (),
    family: int = 0,
) -> PooledResult:
    """Return the mean over collections of each system against each other, by each measure, with its verdict.

    Args:
        rows: one for each collection, measure and pair of systems.
        margins: by measure, the largest difference that does not matter.
        alpha: the error rate of all pooled verdicts together.
        correction: over the pooled rows.
        in_domain: collections from which training data came: they and the others get rows of their own, too. Empty, or
            all of them, gives none.
        family: comparisons that share the error rate with the pooled rows, these among them; 0 takes the rows alone.

    Raises:
        UsageError: no two systems were compared on several collections; one collection has two names; a difference
            without spread.
    """
    groups: dict[tuple[str, str, str], list[CollectionDifference]] = {}
    for row in rows:
        groups.setdefault((row.measure, row.left, row.right), []).append(row)
    several = {key: same for key, same in groups.items() if len(same) > 1}
    if not several:
        seen = sorted({row.collection for row in rows})
        what = (
            f"no two systems were compared on several collections by one measure, only on {', '.join(seen) or 'none'}"
        )
        hint = "give comparisons on two test sets or more; the same systems need the same labels in each"
        raise UsageError(what, hint=hint)
    for same in several.values():
        _refuse_twins(same)
        for row in same:
            if row.error <= 0:
                where = f"{row.right} against {row.left} by {row.measure} on {row.collection}"
                raise UsageError("all queries differ by the same, which says nothing of the spread", where=where)
    parts = [part for key, same in several.items() for part in _domains(key, same, in_domain)]
    allowed = [_limits_of(same) for _, _, same in parts]
    results = [_within(_mean(same, alpha), ends) for (_, _, same), ends in zip(parts, allowed, strict=True)]
    chosen = [(margins or {}).get(measure) for _, (measure, _, _), _ in parts]
    own = [same[0].test if len(same) == 1 else None for _, _, same in parts]
    tests = [alone or each.test for alone, each in zip(own, results, strict=True)]
    judgments = judged_estimates(tests, chosen, alpha=alpha, correction=correction, family=family, limits=allowed)
    single = [
        f"{right} against {left} by {measure}" for (measure, left, right), each in groups.items() if len(each) < 2
    ]
    notes = [f"on one collection only, so not pooled: {'; '.join(single)}"] if single else []
    return PooledResult(
        rows=tuple(
            PooledRow(
                measure=measure,
                left=left,
                right=right,
                collections=tuple(same),
                pooled=result,
                judgment=judgment,
                domain=domain,
            )
            for (domain, (measure, left, right), same), result, judgment in zip(parts, results, judgments, strict=True)
        ),
        alpha=alpha,
        correction=correction,
        notes=tuple(notes),
        family=family or len(judgments),
    )


_Key = tuple[str, str, str]  # measure, left, right


def _domains(
    key: _Key, rows: Sequence[CollectionDifference], in_domain: Collection[str]
) -> list[tuple[Domain, _Key, Sequence[CollectionDifference]]]:
    """Return all collections, and where training data came from some of them, these and the others apart."""
    ours = [row for row in rows if row.collection in in_domain]
    others = [row for row in rows if row.collection not in in_domain]
    out: list[tuple[Domain, _Key, Sequence[CollectionDifference]]] = [("", key, rows)]
    return [*out, ("in-domain", key, ours), ("out-of-domain", key, others)] if ours and others else out


def _mean(rows: Sequence[CollectionDifference], alpha: float) -> Pooled:
    """Return the mean over collections; where few queries of one differ, with what one more would make of it."""
    seen = _mean_of(rows, alpha)
    unseen = [row.unseen for row in rows if row.unseen is not None]
    if not unseen:
        return seen
    down, up = (_mean_of([row.with_one_more(sign) for row in rows], alpha).estimate for sign in (-1.0, 1.0))
    return msgspec.structs.replace(seen, unseen=max(unseen), with_one_more=(down, up))


def _within(result: Pooled, ends: tuple[float, float] | None) -> Pooled:
    """Return a mean whose prediction ends where the measure does."""
    if result.prediction is None:
        return result
    return msgspec.structs.replace(result, prediction=cut(*result.prediction, ends))


def _mean_of(rows: Sequence[CollectionDifference], alpha: float) -> Pooled:
    """Return the mean over collections; of a single one its own difference, with no scatter between collections."""
    if len(rows) > 1:
        return pool([row.difference for row in rows], [row.error for row in rows], level=alpha)
    (row,) = rows
    return Pooled(
        collections=1,
        estimate=Estimate(difference=row.difference, error=row.error, df=max(row.queries - 1, 1)),
        tau2=0.0,
        tau2_low=0.0,
        tau2_high=0.0,
        i2=0.0,
        q=0.0,
        p_q=1.0,
        weights=(1.0,),
        prediction=None,
    )


def _refuse_twins(rows: Sequence[CollectionDifference]) -> None:
    """Refuse one collection under two names: its queries would count twice."""
    names: dict[str, str] = {}
    for row in rows:
        other = names.setdefault(row.qrels_sha256, row.collection) if row.qrels_sha256 else row.collection
        if other != row.collection:
            what = f"'{other}' and '{row.collection}' have the same qrels: one collection cannot count twice"
            raise UsageError(what, hint="leave one of them out")


def shared_queries(comparison: Comparison) -> tuple[str, ...]:
    """Return which collections of a comparison have ids of queries in common, a sentence each."""
    baseline = next(system for system in comparison.systems if system.label == comparison.baseline)
    ids = {entry.condition.dataset: {*next(iter(entry.values.values()))} for entry in baseline.measured}
    names = list(ids)
    pairs = [(name, other) for place, name in enumerate(names) for other in names[place + 1 :]]
    return tuple(
        f"{name} and {other} share {counted(len(ids[name] & ids[other]), 'query id')}: if these are the same queries, "
        "the two are not independent, and the interval is too narrow"
        for name, other in pairs
        if ids[name] & ids[other]
    )
