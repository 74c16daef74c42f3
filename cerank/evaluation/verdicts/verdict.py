"""From adjusted p to a verdict, with the interval that belongs to it: the only place where one is given.

`judged` gives the verdict on one row of a family, `judge` on any test with its adjusted p, `worth_of` says whether a
gain would pay. For "cannot tell", `_with_prospects` adds what these queries would show, and how many the margin takes.

Invariant: a verdict is what its adjusted p say, and no interval beside it says more: nothing is "on par" because of a
large p. Where an interval says less (`Judgment.is_beyond_interval`), every table and sentence with both says so.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cerank.evaluation import power
from cerank.evaluation.multiple_testing import Corrected
from cerank.evaluation.significance import (
    Estimate,
    Inference,
    p_equivalent,
    p_not_worse,
    unseen_of,
    with_unseen,
)
from cerank.evaluation.verdicts.row_tests import Basis, RowTest
from cerank.evaluation.verdicts.terms import Margin, Terms

Verdict = Literal[
    "better", "worse", "equivalent", "different but negligible", "cannot tell", "identical", "descriptive"
]
WorthAnswer = Literal["worth it", "not worth it", "not worse", "harmful", "cannot tell"]


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
    def is_equivalent(self) -> bool:
        """Return whether the verdict says that the difference lies within the margin."""
        return self.verdict in {"equivalent", "different but negligible"}

    @property
    def excludes_zero(self) -> bool:
        """Return whether the interval beside the verdict does."""
        return self.low > 0 or self.high < 0

    @property
    def is_within_margin(self) -> bool:
        """Return whether the interval of equivalence lies within the margin."""
        if self.margin is None or self.equivalence_low is None or self.equivalence_high is None:
            return False
        return -self.margin.value < self.equivalence_low and self.equivalence_high < self.margin.value

    @property
    def is_beyond_interval(self) -> bool:
        """Return whether the verdict says what the interval beside it does not: adjusted p are stepped down.

        A family's intervals hold all true differences together, and are as wide as the first step. Intervals that
        follow the steps either err more often than promised or have no far end; see `multiple_testing`.
        """
        if self.verdict in {"identical", "descriptive"}:
            return False
        is_shown = self.excludes_zero or not self.is_different
        return not is_shown or (self.is_equivalent and not self.is_within_margin)

    @property
    def is_late(self) -> bool:
        """Return whether the verdict rests on a margin that was chosen after the results."""
        return self.is_equivalent and self.margin is not None and not self.margin.before


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One test's p, its corrected p, and the level at which the correction judged it."""

    p: float
    corrected: float
    level: float


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


def judged(row_test: RowTest, adjusted: Corrected, place: int, terms: Terms) -> Judgment:
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
    if max(test.p_above(-margin), test.p_below(margin)) > alpha or p_equivalent(test, margin) <= alpha:
        return None
    return unseen_of(test)


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


def described(row_test: RowTest, terms: Terms) -> Judgment:
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
