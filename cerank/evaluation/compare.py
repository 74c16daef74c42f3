"""How differences become intervals, adjusted p and verdicts: read this file from `compare` on, top to bottom.

`_pairings` decides which rows there are, and which of them are primary: those alone get a verdict. A comparison then
goes through five steps, each a function below `compare`:

1. `_row_tests`: the two systems of each row are matched query by query, and their differences get a test: Student's t,
   the exact sign flips where few queries differ, or for a claim about recipes a t-test over queries and seeds.
2. `_adjusted`: the tests of all rows, of a difference and of equivalence, are adjusted as one family.
3. `judge`: the adjusted p decide the verdict; the interval at the adjusted level stands beside it.
4. `_with_prospects`: for "cannot tell", what these queries would show, and how many queries the margin takes.
5. `_row`: the verdict with all figures, and what a reader must know of the data.

`systems` checks that systems can be compared, `significance` and `seed_variance` hold the tests of one row,
`multiple_testing` those of many, `answers` says verdicts in words.

Invariant: values are matched by query id, never by position, and never over a silent intersection of queries. A verdict
is what its adjusted p say, and no interval beside it says more: nothing is "on par" because of a large p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import msgspec

from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.evaluation import diagnostics, multiple_testing, power, seed_variance, tuning_budgets
from cerank.evaluation.measures import limits as limits_of
from cerank.evaluation.multiple_testing import Corrected, Correction
from cerank.evaluation.primary_questions import is_sensitivity, questions
from cerank.evaluation.secondary_tests import ROUNDS, Interval, Risk, Secondary, effect_interval, risk, secondary
from cerank.evaluation.sensitivity.verdict_bounds import VerdictBounds
from cerank.evaluation.significance import (
    Estimate,
    Inference,
    Paired,
    SignFlips,
    Stricter,
    differences,
    estimate_of,
    needs_exact_test,
    p_equivalent,
    p_not_worse,
    paired,
    with_unseen,
)
from cerank.evaluation.systems import (
    Condition,
    Measured,
    System,
    check_labels,
    measured,
    measured_in,
    shared_conditions,
    values_by_query,
)
from cerank.text.safe_text import counted

__all__ = ["Comparison", "Condition", "Margin", "Measured", "Pairing", "Row", "System", "Terms", "compare", "measured"]

Verdict = Literal[
    "better", "worse", "equivalent", "different but negligible", "cannot tell", "identical", "descriptive"
]
WorthAnswer = Literal["worth it", "not worth it", "not worse", "harmful", "cannot tell"]
Basis = Literal["t", "sign flips", "exact sign flips", "seeds"]  # the test that a p comes from


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """The largest difference of a measure that does not matter, and when that was said."""

    value: float
    source: str = "command line"  # "recipe", "matrix", "command line"
    declared: str = ""  # UTC, ISO 8601
    before: bool = False  # declared before the run whose numbers it judges
    because: str = ""  # why this size, as the recipe or the user says; free text
    share: float | None = (
        None  # of the baseline's mean, where it was given so: a row's `value` is that part of its mean
    )

    @property
    def shown(self) -> str:
        """Return its size in words."""
        return f"{self.value:g}" if self.share is None else f"{100 * self.share:g} % of the baseline's mean"


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a system gains as much as would pay for it, read off the interval of the row's judgment alone.

    All four statements follow from one interval that holds the true difference, so they hold together with its
    confidence, in a family with that of all its intervals: none needs a further adjustment. The p are one-sided and of
    this row alone; they are at most half the interval's level where the interval says the same.
    """

    answer: WorthAnswer
    gain: Margin  # the gain that would pay for the system
    harm: Margin | None  # the largest loss that would not matter; None where it was not declared
    p_gain: float  # for a true difference of at least the gain
    p_ruled_out: float  # for a true difference below the gain
    p_not_worse: float | None = None  # for a true difference above -harm
    p_harmful: float | None = None  # for a true difference below -harm
    queries_to_rule_out: int | None = None  # for "cannot tell": to rule the gain out with 80 % power, were there none

    @property
    def is_late(self) -> bool:
        """Return whether the answer rests on a gain or a harm margin that was chosen after the results."""
        if self.answer in {"worth it", "not worth it"}:
            return not self.gain.before
        return self.answer != "cannot tell" and self.harm is not None and not self.harm.before


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """One row to be: which two systems, by what measure, where."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str
    is_primary: bool = True  # else it has no verdict, and is outside the family


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How systems are compared; everything but the values that a comparison is a function of."""

    confidence: float = 0.95  # of intervals; verdicts are at 1 - confidence after correction
    margins: dict[str, Margin] = {}  # measure -> the largest difference that does not matter
    worth: dict[str, Margin] = {}  # measure -> the gain that would pay for a system
    harm: dict[str, Margin] = {}  # measure -> the largest loss that would not matter; else the margin
    primary: tuple[str, ...] = ()  # the questions that verdicts are about; see `primary_questions`
    correction: Correction = "auto"  # max-t where several rows share their queries, else Holm's
    family: int = 0  # comparisons declared; 0 takes those shown
    pairs: Literal["baseline", "all", "stages"] = "baseline"  # stages: each against the one before it and the first
    claim: Literal["checkpoints", "recipes"] = "checkpoints"  # recipes: seeds are a sample, too
    pairs_seeds: bool = True  # seeds of two recipes that share their draws count as pairs
    with_secondary: bool = False
    rounds: int = ROUNDS  # random flips and resamples
    seed: int = 42

    @property
    def alpha(self) -> float:
        """Return the error rate of the family's verdicts."""
        return round(1 - self.confidence, 12)


class Judgment(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on right against left, with all it rests on.

    A difference is shown by `p_corrected`, equivalence by `p_equivalence_corrected`, both at `alpha` over the family.
    The interval at confidence 1 - `level` is as wide for every row of a family; those of a family hold their true
    differences together with confidence 1 - alpha (but for "bh" and "none"). Where it excludes 0 the difference is
    shown; p is stepped down and may show one that the interval does not exclude. The same holds for the interval of
    equivalence, at 1 - 2 `equivalence_level`, and the margin.
    """

    verdict: Verdict
    basis: Basis
    alpha: float
    p: float
    p_corrected: float
    level: float
    low: float
    high: float
    is_cut: bool = False  # an end lay beyond what the measure allows, and is its limit instead
    margin: Margin | None = None
    p_equivalence: float | None = None  # TOST: the larger of two one-sided p
    p_equivalence_corrected: float | None = None
    equivalence_level: float | None = None
    equivalence_low: float | None = None
    equivalence_high: float | None = None
    detectable: float | None = None  # for "cannot tell": true difference seen with 80 % power at `level`
    queries_for_difference: int | None = None  # to see a true difference as large as the margin with 80 % power
    queries_for_margin: int | None = None  # to show equivalence with 80 % power, were the true difference 0
    unseen: float | None = None  # one more query that differs so much would undo an equivalence of few that differ

    @property
    def is_different(self) -> bool:
        """Return whether a difference is shown."""
        return self.p_corrected <= self.alpha

    @property
    def is_late(self) -> bool:
        """Return whether the verdict rests on a margin that was chosen after the results."""
        rests = self.verdict in {"equivalent", "different but negligible"}
        return rests and self.margin is not None and not self.margin.before


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One test's p, its corrected p, and the level at which the correction judged it."""

    p: float
    corrected: float
    level: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system against another, by one measure in one condition."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str
    paired: Paired
    p_corrected: float  # over the family
    judgment: Judgment
    worth: Worth | None = None  # where a gain is declared for the measure
    low: float  # at the comparison's confidence, as if the row were the only one; within what the measure allows
    high: float
    limits: tuple[float, float] | None  # the differences that the measure allows; None where it has no known range
    is_primary: bool = True  # else descriptive: outside the family, without a verdict
    effect: Interval | None  # of d_z, exact; None where d_z is infinite
    missing_left: tuple[str, ...]
    missing_right: tuple[str, ...]
    zero_share: float  # of queries where both score the same
    notes: tuple[diagnostics.Note, ...] = ()
    recipes: seed_variance.TwoWay | None = None  # where the claim is about recipes; the judgment then rests on it
    secondary: Secondary | None = None
    risk: Risk | None = None
    bounds: VerdictBounds | None = None  # by ties and unjudged documents, where they were asked for

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on `right`."""
        return self.judgment.verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows and all values they were computed from; as JSON it can be recomputed anywhere."""

    format: int = 1
    baseline: str
    measures: tuple[str, ...]
    conditions: tuple[Condition, ...]
    terms: Terms
    method: Correction  # that corrected: what "auto" came to
    family: int  # comparisons corrected together, each with its tests of a difference and of equivalence
    family_equivalence: int  # of them with a margin
    rows: tuple[Row, ...]
    systems: tuple[System, ...]


class _RowTest(msgspec.Struct, frozen=True, kw_only=True):
    """A row after step 1: its two systems matched by query, and the test of their differences."""

    measure: str
    systems: tuple[System, System]
    measured: tuple[Measured, Measured]
    queries: tuple[str, ...]
    values: tuple[list[float], list[float]]  # of both systems, in the order of the queries
    figures: Paired
    recipes: seed_variance.TwoWay | None
    limits: tuple[float, float] | None  # the differences that the measure allows
    test: Inference
    basis: Basis
    is_primary: bool
    is_identical: bool

    def sized(self, chosen: Mapping[str, Margin]) -> Margin | None:
        """Return the margin of this row's measure; a share of the baseline's mean as what it comes to."""
        margin = chosen.get(self.measure)
        if margin is None or margin.share is None:
            return margin
        return msgspec.structs.replace(margin, value=margin.share * self.figures.mean_left)

    @property
    def query_set(self) -> tuple[str, frozenset[str]]:
        """Return the dataset with its queries: those are flipped together, whatever first stage or measure."""
        return self.measured[0].condition.dataset, frozenset(self.queries)


_DEFAULT = Terms()


def compare(
    systems: Sequence[System],
    measures: Sequence[str],
    *,
    conditions: Sequence[Condition] = (),
    pairings: Sequence[Pairing] = (),
    terms: Terms = _DEFAULT,
) -> Comparison:
    """Compare every system with the first (or as `terms.pairs` says), in every condition, by every measure.

    Args:
        systems: at least two, the baseline first.
        measures: canonical names; each system must have them.
        conditions: only these; empty takes the baseline's, which every other system must share exactly.
        pairings: exactly these rows instead, by several baselines or with measures of each condition's own.
        terms: margins, correction, family and claim.

    Raises:
        UsageError: the systems were measured on different datasets, first stages, qrels or queries; a margin for a
            measure not compared; a family smaller than what is shown; a claim about recipes with one seed.
    """
    check_labels(systems)
    for name, margin in terms.margins.items():
        if name not in measures:
            raise UsageError(f"a margin for {name}: it is not compared, {', '.join(measures)} is", code="margin-unused")
        checked_margin(margin, name, width_of(name))
    _check_worth(measures, terms)
    if pairings:
        conditions = tuple(dict.fromkeys(pairing.condition for pairing in pairings))
    else:
        conditions = tuple(conditions) or shared_conditions(systems)
        pairings = _pairings(systems, measures, conditions, terms)
    row_tests = _row_tests(systems, pairings, terms)
    for row_test in row_tests:
        _check_sizes(row_test, terms)
    family = [row_test for row_test in row_tests if row_test.is_primary and not row_test.is_identical]
    adjusted = _adjusted(family, terms)
    judgments = iter([_judged(row_test, adjusted, place, terms) for place, row_test in enumerate(family)])
    rows = []
    for row_test in row_tests:
        if row_test.is_identical:
            judgment = identical(terms.alpha, row_test.sized(terms.margins))
        else:
            judgment = next(judgments) if row_test.is_primary else _described(row_test, terms)
        rows.append(_row(row_test, judgment, terms))
    return Comparison(
        baseline=systems[0].label,
        measures=tuple(measures),
        conditions=conditions,
        terms=terms,
        method=adjusted.method,
        family=adjusted.family,
        family_equivalence=sum(p is not None for p in adjusted.ps_equivalent),
        rows=tuple(rows),
        systems=tuple(systems),
    )


def _pairings(
    systems: Sequence[System], measures: Sequence[str], conditions: Sequence[Condition], terms: Terms
) -> list[Pairing]:
    """Return the rows that the terms ask for (with the baseline, every pair, or each stage), primary or descriptive."""
    if terms.pairs == "all":
        couples = list(combinations(systems, 2))
    elif terms.pairs == "stages":
        chain = [system for system in systems if not system.is_baseline]
        # The first stage is the one before the second system, so these two are compared once.
        steps = [(place, left) for place in range(1, len(chain)) for left in dict.fromkeys((place - 1, 0))]
        couples = [(chain[left], chain[place]) for place, left in steps]
        baselines = [system for system in systems if system.is_baseline]
        couples += [(chain[0], baseline) for baseline in baselines]
        couples += [(baseline, stage) for stage in chain[1:] for baseline in baselines]
    else:
        couples = [(systems[0], other) for other in systems[1:]]
    primary = questions(terms.primary, "primary")
    # a chain's verdicts are about its stages; other re-rankers beside it are described, unless a question names them
    descriptive = {system.label for system in systems if system.is_baseline} if terms.pairs == "stages" else set()

    def is_primary(measure: str, left: str, right: str) -> bool:
        if primary:
            return any(question.names(measure, {right}, {left}) for question in primary)
        return not is_sensitivity(measure, measures) and not {left, right} & descriptive

    for question in primary if terms.pairs != "stages" else ():  # a chain may not have come to all of its stages yet
        if not any(question.names(name, {right.label}, {left.label}) for left, right in couples for name in measures):
            rows = ", ".join(f"{right.label} against {left.label}" for left, right in couples[:6])
            what = f"no row answers the primary question '{question}'"
            raise UsageError(what, hint=f"the rows are {rows}, by {', '.join(measures)}", code="question-unanswered")
    return [
        Pairing(
            condition=condition,
            measure=measure,
            left=left.label,
            right=right.label,
            is_primary=is_primary(measure, left.label, right.label),
        )
        for condition in conditions
        for left, right in couples
        for measure in measures
    ]


def width_of(measure: str) -> float | None:
    """Return how far two values of a measure can lie apart; None where it has no known range."""
    limits = limits_of(measure)
    return None if limits is None else limits[1] - limits[0]


def checked_margin(margin: Margin, measure: str = "", width: float | None = None, what: str = "margin") -> Margin:
    """Return the margin itself.

    Args:
        margin: of a difference, in the measure's units.
        measure: the measure it is for.
        width: of the measure's range; None where it has no known one.
        what: its name in errors.

    Raises:
        UsageError: it is not above 0, or so large that no two systems could differ by it.
    """
    if margin.share is not None:
        if not 0 < margin.share < 1:
            wrong = f"a {what} of {margin.shown}: a share lies between 0 % and 100 %"
            raise UsageError(
                wrong, where=margin.source, hint=f"such as {measure or 'nDCG@10'}=5%", code="margin-out-of-range"
            )
        return margin
    if not 0 < margin.value < float("inf"):
        raise UsageError(
            f"a {what} is a number above 0, not {margin.value}", where=margin.source, code="margin-out-of-range"
        )
    if width is not None and margin.value >= width:
        why = f"calls any two systems equivalent: {measure}" if what == "margin" else f"cannot be reached: {measure}"
        raise UsageError(
            f"a {what} of {margin.value:g} for {measure} {why} spans {width:g}",
            where=margin.source,
            hint=f"such as {measure}=.02",
            code="margin-too-large",
        )
    return margin


def _check_worth(measures: Sequence[str], terms: Terms) -> None:
    """Refuse gains and harm margins that no comparison could use.

    Raises:
        UsageError: one of a measure not compared or out of its range; a gain that the margin calls no difference.
    """
    for what, chosen in (("gain that is worth it", terms.worth), ("harm margin", terms.harm)):
        for name, margin in chosen.items():
            if name not in measures:
                raise UsageError(f"a {what} for {name}: it is not compared, {', '.join(measures)} is")
            checked_margin(margin, name, width_of(name), what)


def _check_sizes(row_test: _RowTest, terms: Terms) -> None:
    """Refuse, in the measure's units, a margin of a baseline that scores 0, and a gain that the margin says is none.

    Raises:
        UsageError: it is so.
    """
    margin, gain = row_test.sized(terms.margins), row_test.sized(terms.worth)
    for chosen in (margin, gain, row_test.sized(terms.harm)):
        if chosen is not None and chosen.share is not None and chosen.value <= 0:
            left = row_test.systems[0].label
            what = f"{chosen.shown} is 0: '{left}' scores 0 by {row_test.measure} on {row_test.measured[0].condition}"
            raise UsageError(
                what, where=chosen.source, hint="give a number in the measure's units", code="share-of-zero"
            )
    if margin is not None and gain is not None and gain.value < margin.value:
        raise UsageError(
            f"a gain of {gain.value:g} {row_test.measure} cannot be worth it: differences up to {margin.value:g} "
            "do not matter by its margin",
            where=gain.source,
            hint="declare a gain of at least the margin; the largest loss that does not matter is `harm`",
            code="worth-below-margin",
        )


# --- 1. from two systems to a test of their differences


def _row_tests(systems: Sequence[System], pairings: Sequence[Pairing], terms: Terms) -> list[_RowTest]:
    by_label = {system.label: system for system in systems}
    return [_row_test(pairing, by_label[pairing.left], by_label[pairing.right], terms) for pairing in pairings]


def _row_test(pairing: Pairing, left: System, right: System, terms: Terms) -> _RowTest:
    """Match two systems query by query, and choose the test of their differences."""
    condition, measure = pairing.condition, pairing.measure
    queries, values = values_by_query(left, right, condition, measure)
    figures = paired(*values, terms.confidence)
    measure_limits = limits_of(measure)
    limits = None
    if measure_limits is not None:
        limits = measure_limits[0] - figures.mean_left, measure_limits[1] - figures.mean_left
    recipes = _by_seeds((left, right), condition, measure, queries, terms) if terms.claim == "recipes" else None
    exact = None
    if needs_exact_test(figures.wins + figures.losses, figures.sd):
        everything = [*values[0], *values[1]]
        seen = min(everything) - figures.mean_left, max(everything) - figures.mean_left
        least, most = limits or seen
        changed = tuple(gain for gain in differences(*values).tolist() if gain)
        exact = SignFlips(values=changed, n=figures.n, least=least, most=most)
    test: Inference = estimate_of(figures)
    if recipes is not None:
        test = recipes.estimate
    if exact is not None:  # no claim may say more than the exact test of these queries
        is_first = recipes is None or recipes.estimate.error == 0
        test = exact if is_first or recipes is None else Stricter(recipes.estimate, exact)
    basis: Basis = "exact sign flips" if exact is not None else "t" if recipes is None else "seeds"
    both = measured_in(left, condition), measured_in(right, condition)
    return _RowTest(
        measure=measure,
        systems=(left, right),
        measured=both,
        queries=queries,
        values=values,
        figures=figures,
        recipes=recipes,
        limits=limits,
        test=test,
        basis=basis,
        is_primary=pairing.is_primary,
        is_identical=bool(both[0].ranking_sha256) and both[0].ranking_sha256 == both[1].ranking_sha256,
    )


def inference(
    left: System, right: System, condition: Condition, measure: str, terms: Terms
) -> tuple[Paired, Inference, tuple[float, float] | None]:
    """Return the figures of two systems, the test of their differences, and the differences that the measure allows.

    For decisions other than a verdict; step 1 of a comparison makes the same.
    """
    pairing = Pairing(condition=condition, measure=measure, left=left.label, right=right.label)
    row_test = _row_test(pairing, left, right, terms)
    return row_test.figures, row_test.test, row_test.limits


def _by_seeds(
    couple: tuple[System, System], condition: Condition, measure: str, queries: Sequence[str], terms: Terms
) -> seed_variance.TwoWay:
    """Return the difference of two recipes, whose seeds are a sample as the queries are; as pairs where they are."""
    left, right = couple
    if left.is_fixed and right.is_fixed:
        raise UsageError(
            f"a claim about recipes needs several seeds of at least one side, and '{left.label}' and '{right.label}' "
            "are single rankings",
            hint="name the seeds of a recipe as LABEL=RUN,RUN,..., or leave --claim recipes away",
            code="too-few-seeds",
        )
    pairs = seed_variance.pairs_of(left, right) if terms.pairs_seeds else ()
    members = tuple(zip(*pairs, strict=True)) if pairs else (left.members or (left,), right.members or (right,))
    first, second = (
        [[measured_in(member, condition).values[measure][query] for query in queries] for member in side]
        for side in members
    )
    if pairs:
        return seed_variance.crossed(first, second, [member.seed or 0 for member in members[0]])
    return seed_variance.two_way(first, second, left_fixed=left.is_fixed, right_fixed=right.is_fixed)


# --- 2. from the tests of all rows to adjusted p and a level for their intervals


def _adjusted(family: Sequence[_RowTest], terms: Terms) -> Corrected:
    """Adjust the tests of all rows, of a difference and of equivalence, as one family of comparisons."""
    equivalences = [
        p_equivalent(row_test.test, margin.value) if (margin := row_test.sized(terms.margins)) else None
        for row_test in family
    ]
    multiple_testing.refuse_smaller(terms.family, len(family))
    method = terms.correction
    if method == "auto":
        # Flipping signs needs the values of all rows, on the same queries, and has no form for recipes.
        has_same_queries = len(family) > 1 and len({row_test.query_set for row_test in family}) == 1
        can_flip = has_same_queries and terms.claim == "checkpoints" and terms.family <= len(family)
        method = "max-t" if can_flip else "holm"
    if method != "max-t":
        ps = [row_test.test.p() for row_test in family]
        return multiple_testing.corrected(ps, method, equivalent=equivalences, alpha=terms.alpha, family=terms.family)
    if terms.claim == "recipes" or terms.family > len(family):
        why = "has no form for recipes" if terms.claim == "recipes" else "needs the values of the whole declared family"
        raise UsageError(f"the max-t correction {why}", hint="use holm")
    return _by_sign_flips(family, equivalences, terms)


def _by_sign_flips(family: Sequence[_RowTest], equivalences: Sequence[float | None], terms: Terms) -> Corrected:
    """Adjust by the largest |t| under flipped signs; all rows over the same queries are flipped together."""
    import numpy as np

    places_of: dict[tuple[str, frozenset[str]], list[int]] = {}
    for place, row_test in enumerate(family):
        places_of.setdefault(row_test.query_set, []).append(place)
    blocks = []
    for places in places_of.values():
        columns = []
        for place in places:
            row_test = family[place]
            gains = dict(zip(row_test.queries, differences(*row_test.values).tolist(), strict=True))
            columns.append([gains[query] for query in sorted(row_test.queries)])
        blocks.append(np.column_stack(columns))
    order = [place for places in places_of.values() for place in places]
    statistics, equivalent = [], []
    for place in order:
        row_test, p = family[place], equivalences[place]
        statistics.append(_as_t(row_test, row_test.test.p() / 2, 0.0))
        margin = row_test.sized(terms.margins)
        equivalent.append(None if p is None or margin is None else _as_t(row_test, p, margin.value))
    flips = multiple_testing.max_t(
        blocks,
        statistics=statistics,
        equivalent=equivalent,
        is_ranked=[family[place].basis == "exact sign flips" for place in order],
        alpha=terms.alpha,
        rounds=terms.rounds,
        seed=derive(terms.seed, "max-t"),
    )
    place_in_order = {place: at for at, place in enumerate(order)}
    back = [place_in_order[place] for place in range(len(family))]
    return Corrected(
        method="max-t",
        family=len(family),
        alpha=terms.alpha,
        ps=tuple(flips.ps[at] for at in back),
        ps_equivalent=tuple(flips.ps_equivalent[at] for at in back),
        raw=tuple(flips.raw[at] for at in back),
        level=terms.alpha,
        level_equivalent=terms.alpha,
        critical=flips.critical,
    )


def _as_t(row_test: _RowTest, p: float, margin: float) -> float:
    """Return the t against a difference of 0, or of the nearer margin; of an exact test the t with upper tail `p`."""
    from scipy.special import stdtrit

    test = row_test.test
    if isinstance(test, Estimate):
        size = abs(test.difference)
        return (margin - size if margin else size) / test.error
    return float(-stdtrit(row_test.figures.df, p))


# --- 3. from adjusted p to a verdict, with the interval that belongs to it


def _judged(row_test: _RowTest, adjusted: Corrected, place: int, terms: Terms) -> Judgment:
    """Return the verdict on one row of the family."""
    from scipy.special import stdtr

    level, level_equivalent = adjusted.level, adjusted.level_equivalent
    if adjusted.critical is not None:  # by max-t both tests share one interval
        level = min(float(2 * stdtr(row_test.figures.df, -adjusted.critical)), adjusted.alpha)
        level_equivalent = level / 2
    test, margin, equivalence = row_test.test, row_test.sized(terms.margins), None
    p_within = adjusted.ps_equivalent[place]
    if margin is not None and p_within is not None:
        raw = p_equivalent(test, margin.value)
        equivalence = Level(p=raw, corrected=max(raw, p_within), level=level_equivalent)
    is_flipped = adjusted.method == "max-t" and row_test.basis == "t"
    raw = adjusted.raw[place] if is_flipped else test.p()
    return judge(
        test,
        Level(p=raw, corrected=max(raw, adjusted.ps[place]), level=level),
        alpha=terms.alpha,
        basis="sign flips" if is_flipped else row_test.basis,
        margin=margin,
        equivalence=equivalence,
        sd=None if row_test.recipes else row_test.figures.sd,
        limits=row_test.limits,
    )


def judge(
    test: Inference,
    difference: Level,
    *,
    alpha: float = 0.05,
    basis: Basis = "t",
    margin: Margin | None = None,
    equivalence: Level | None = None,
    sd: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Judgment:
    """Return the verdict on one comparison.

    Args:
        difference: the two-sided test of no difference.
        equivalence: TOST within the margin; needed where there is one.
        sd: of per-query differences, for the number of queries needed; None where more queries are not the cure.
        limits: the smallest and the largest difference that the measure allows; None where it has no known range.

    Example:
        >>> from cerank.evaluation.significance import estimate_of, paired
        >>> result = paired([0.2, 0.5, 0.4, 0.1, 0.3], [0.4, 0.8, 0.7, 0.3, 0.6])
        >>> judge(estimate_of(result), Level(p=result.p, corrected=result.p, level=0.05)).verdict
        'better'
    """
    low, high = test.interval(difference.level)
    is_different = difference.corrected <= alpha
    if not is_different:
        # The interval of an exact test steps as its p does, but the maximum statistic's flips are drawn at random.
        low, high = min(low, 0.0), max(high, 0.0)
    cut_low, cut_high = cut(low, high, limits)
    is_negligible = equivalence is not None and equivalence.corrected <= alpha
    out = Judgment(
        verdict=_verdict(test.difference, is_different, is_negligible),
        basis=basis,
        alpha=alpha,
        p=difference.p,
        p_corrected=difference.corrected,
        level=difference.level,
        low=cut_low,
        high=cut_high,
        is_cut=(cut_low, cut_high) != (low, high),
        margin=margin,
    )
    if equivalence is not None:
        inner_low, inner_high = cut(*test.interval(2 * equivalence.level), limits)
        out = msgspec.structs.replace(
            out,
            p_equivalence=equivalence.p,
            p_equivalence_corrected=equivalence.corrected,
            equivalence_level=equivalence.level,
            equivalence_low=inner_low,
            equivalence_high=inner_high,
            unseen=None if margin is None else _undoing(test, margin.value, alpha),
        )
    return _with_prospects(out, test, sd) if out.verdict == "cannot tell" and isinstance(test, Estimate) else out


def _undoing(test: Inference, margin: float, alpha: float) -> float | None:
    """Return how much one query more must differ to undo an equivalence of few that differ; None where none is."""
    more = with_unseen(test)
    if not more or max(test.p_above(-margin), test.p_below(margin)) > alpha or p_equivalent(test, margin) <= alpha:
        return None
    flips = test.second if isinstance(test, Stricter) else test
    return flips.unseen if isinstance(flips, SignFlips) else None


def identical(alpha: float, margin: Margin | None = None) -> Judgment:
    """Return what is said of two rankings that are one and the same: nothing was tested."""
    return Judgment(
        verdict="identical",
        basis="t",
        alpha=alpha,
        p=1.0,
        p_corrected=1.0,
        level=alpha,
        low=0.0,
        high=0.0,
        margin=margin,
    )


def cut(low: float, high: float, limits: tuple[float, float] | None) -> tuple[float, float]:
    """Return the interval within what the measure allows; an end that is the limit but for rounding stays."""
    if limits is None:
        return low, high
    slack = 1e-9
    low, high = low if low >= limits[0] - slack else limits[0], high if high <= limits[1] + slack else limits[1]
    return low + 0.0, high + 0.0  # no -0.0


def _verdict(difference: float, is_different: bool, is_negligible: bool) -> Verdict:
    if is_different and is_negligible:
        return "different but negligible"
    if is_different:
        return "better" if difference > 0 else "worse"
    return "equivalent" if is_negligible else "cannot tell"


def _described(row_test: _RowTest, terms: Terms) -> Judgment:
    """Return the figures of a row outside the family: unadjusted, with an interval of its own, and no verdict."""
    test, margin = row_test.test, row_test.sized(terms.margins)
    raw, within = test.p(), None if margin is None else p_equivalent(test, margin.value)
    equivalence = None if within is None else Level(p=within, corrected=within, level=terms.alpha)
    alone = Level(p=raw, corrected=raw, level=terms.alpha)
    judgment = judge(
        test,
        alone,
        alpha=terms.alpha,
        basis=row_test.basis,
        margin=margin,
        equivalence=equivalence,
        limits=row_test.limits,
    )
    changes = {"detectable": None, "queries_for_difference": None, "queries_for_margin": None}
    return msgspec.structs.replace(judgment, verdict="descriptive", **changes)


def worth_of(test: Inference, judgment: Judgment, gain: Margin, harm: Margin | None, sd: float | None = None) -> Worth:
    """Return whether a system is worth what it costs, from the interval that its judgment carries.

    Args:
        test: of the differences, for one-sided p.
        judgment: on the row; its interval is simultaneous with those of the family.
        gain: the gain that would pay for the system.
        harm: the largest loss that would not matter; None to leave that question out.
        sd: of per-query differences, for the number of queries needed; None where more queries are not the cure.
    """
    answer: WorthAnswer = "cannot tell"
    ends = [cut(*each.interval(judgment.level), None) for each in with_unseen(test)]  # where few queries differ
    low, high = min([judgment.low, *(end[0] for end in ends)]), max([judgment.high, *(end[1] for end in ends)])
    if judgment.low >= gain.value:
        answer = "worth it"
    elif harm is not None and judgment.high < -harm.value:
        answer = "harmful"
    elif high < gain.value:
        answer = "not worth it"
    elif harm is not None and low > -harm.value:
        answer = "not worse"
    queries = None
    if sd and answer in {"cannot tell", "not worse"} and judgment.level < 0.5:
        queries = power.queries_for_difference(gain.value, sd, alpha=judgment.level)
    return Worth(
        answer=answer,
        gain=gain,
        harm=harm,
        p_gain=test.p_above(gain.value),
        p_ruled_out=max(each.p_below(gain.value) for each in (test, *with_unseen(test))),
        p_not_worse=None if harm is None else p_not_worse(test, harm.value),
        p_harmful=None if harm is None else test.p_below(-harm.value),
        queries_to_rule_out=queries,
    )


# --- 4. what "cannot tell" would take


def _with_prospects(judgment: Judgment, estimate: Estimate, sd: float | None) -> Judgment:
    """Add the true difference that shows with 80 % power, and the queries that the margin takes."""
    if judgment.level >= 0.5 or estimate.error == 0:
        return judgment
    detectable = power.detectable(estimate.error, estimate.df, alpha=judgment.level)
    if not sd:
        return msgspec.structs.replace(judgment, detectable=detectable)
    margin, level = judgment.margin, judgment.equivalence_level
    different = within = None
    if margin and level:
        different = power.queries_for_difference(margin.value, sd, alpha=judgment.level)
        within = power.queries_for_margin(margin.value, sd, alpha=level)
    return msgspec.structs.replace(
        judgment, detectable=detectable, queries_for_difference=different, queries_for_margin=within
    )


# --- 5. the verdict with its figures, and what a reader must know of the data


def _row(row_test: _RowTest, judgment: Judgment, terms: Terms) -> Row:
    (left, right), (at_left, at_right), figures = row_test.systems, row_test.measured, row_test.figures
    other_tests = None
    if terms.with_secondary:
        margin = judgment.margin
        other_tests = secondary(
            differences(*row_test.values),
            terms.confidence,
            estimate=row_test.recipes.estimate if row_test.recipes else estimate_of(figures),
            rope=margin.value if margin and row_test.basis != "exact sign flips" else None,
            seed=derive(terms.seed, "secondary", str(at_left.condition), row_test.measure, left.label, right.label),
            rounds=terms.rounds,
        )
    gain, worth = row_test.sized(terms.worth), None
    harm = row_test.sized(terms.harm) or judgment.margin
    if gain is not None and row_test.is_primary and not row_test.is_identical:
        worth = worth_of(row_test.test, judgment, gain, harm, None if row_test.recipes else figures.sd)
    # Of identical rankings nothing was tested, and nothing is uncertain.
    alone = (0.0, 0.0) if row_test.is_identical else cut(*row_test.test.interval(terms.alpha), row_test.limits)
    return Row(
        condition=at_left.condition,
        measure=row_test.measure,
        left=left.label,
        right=right.label,
        paired=figures,
        p_corrected=judgment.p_corrected,
        judgment=judgment,
        worth=worth,
        low=alone[0],
        high=alone[1],
        limits=row_test.limits,
        is_primary=row_test.is_primary,
        effect=effect_interval(figures, terms.confidence),
        missing_left=at_left.missing,
        missing_right=at_right.missing,
        zero_share=figures.ties / figures.n,
        notes=(*_notes(row_test), *_on_few(row_test, judgment)),
        recipes=row_test.recipes,
        secondary=other_tests,
        risk=risk(
            differences(*row_test.values),
            row_test.queries,
            threshold=harm.value if harm else 0.0,
            confidence=terms.confidence,
        ),
    )


def _notes(row_test: _RowTest) -> tuple[diagnostics.Note, ...]:
    out = []
    for system, at in zip(row_test.systems, row_test.measured, strict=True):
        if at.missing:
            text = (
                f"'{system.label}' lacks {counted(len(at.missing), 'query')}, counted as 0: {', '.join(at.missing[:5])}"
            )
            out.append(diagnostics.Note("missing", text + (" ..." if len(at.missing) > 5 else "")))
        if at.unjudged:
            out.append(
                diagnostics.Note("ignored", f"{counted(at.unjudged, 'query')} of '{system.label}' without qrels")
            )
    out += _on_common(row_test)
    left, right = row_test.systems
    tuned = ((left.label, left.known_tuning), (right.label, right.known_tuning))
    out += tuning_budgets.notes(*tuned, row_test.measured[0].condition.dataset)
    if row_test.limits is not None and (full := diagnostics.of_room(row_test.measure, left.label, row_test.limits[1])):
        out.append(full)
    if row_test.is_identical:
        text = f"'{left.label}' and '{right.label}' are the same ranking: nothing was tested, the family leaves it out"
        return (*out, diagnostics.Note("identical", text))
    if not any(system.members for system in row_test.systems):
        text = "about these two rankings as they are; the same recipe with another seed may come out otherwise"
        out.append(diagnostics.Note("one seed", text))
    elif row_test.recipes is not None:
        fixed = [system for system in row_test.systems if not system.members]
        out += [diagnostics.Note("fixed", _is_fixed(system, *row_test.systems)) for system in fixed]
    first, second = ((system.label, at.facts) for system, at in zip(row_test.systems, row_test.measured, strict=True))
    if row_test.basis != "exact sign flips" and (note := diagnostics.of_skewness(differences(*row_test.values))):
        out.append(note)
    return (
        *out,
        *diagnostics.notes(row_test.measure, first, second, n=row_test.figures.n, zeros=row_test.figures.ties),
    )


def _on_few(row_test: _RowTest, judgment: Judgment) -> list[diagnostics.Note]:
    """Return a note where an equivalence rests on queries too few to show rare differences, or fails for that."""
    if judgment.unseen is not None and judgment.margin is not None:
        differing = row_test.figures.wins + row_test.figures.losses
        margin = judgment.margin.value
        return [diagnostics.of_unseen_difference(differing, row_test.figures.n, judgment.unseen, margin)]
    rests = judgment.verdict in {"equivalent", "different but negligible"} and row_test.basis == "exact sign flips"
    is_everywhere = row_test.figures.sd == 0 and row_test.figures.difference != 0  # then it is not rare
    figures, width = row_test.figures, width_of(row_test.measure)
    if not rests or judgment.margin is None or width is None or is_everywhere:
        return []
    differing, share = figures.wins + figures.losses, judgment.margin.value / width
    note = diagnostics.of_rare_differences(differing, figures.n, share, judgment.alpha)
    return [note] if note else []


def _on_common(row_test: _RowTest) -> list[diagnostics.Note]:
    """Return the difference on the queries that both sides rank, where one of them lacks some; it makes no verdict."""
    lost = {query for at in row_test.measured for query in at.missing}
    common = [place for place, query in enumerate(row_test.queries) if query not in lost]
    if not lost or len(common) < 2:
        return []
    left, right = row_test.systems
    figures = paired(
        [row_test.values[0][at] for at in common],
        [row_test.values[1][at] for at in common],
        row_test.figures.confidence,
    )
    interval = "" if figures.low is None or figures.high is None else f" [{figures.low:+.4f}, {figures.high:+.4f}]"
    text = f"on the {counted(figures.n, 'query')} that both rank, '{right.label}' differs from '{left.label}' by "
    text += f"{figures.difference:+.4f}{interval}, W/T/L {figures.wins}/{figures.ties}/{figures.losses}"
    return [diagnostics.Note("common", text)]


def _is_fixed(system: System, left: System, right: System) -> str:
    other = right.label if system is left else left.label
    return f"'{system.label}' is taken as fixed: the claim is about the recipe of '{other}' against this one ranking"
