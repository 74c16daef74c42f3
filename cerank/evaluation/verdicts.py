"""A verdict from a difference, its intervals and a declared margin: never "on par" from a large p.

Invariant: a verdict is what its adjusted p say, and no interval that it carries says more.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from cerank.errors import UsageError
from cerank.evaluation import power
from cerank.evaluation.significance import Estimate
from cerank.text.safe_text import counted

Verdict = Literal["better", "worse", "equivalent", "different but negligible", "cannot tell", "identical"]
Basis = Literal["t", "sign flips", "exact sign flips", "seeds"]  # the test that a p comes from


class Inference(Protocol):
    """What a verdict is made of: a t-test's estimate, or an exact sign-flip test."""

    @property
    def difference(self) -> float:
        """Return right minus left."""
        ...

    def p(self) -> float:
        """Return two-sided, for no difference."""
        ...

    def p_equivalent(self, margin: float) -> float:
        """Return the larger of two one-sided p."""
        ...

    def interval(self, level: float) -> tuple[float, float]:
        """Return at confidence 1 - level, low and high."""
        ...


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """The largest difference of a measure that does not matter, and when that was said."""

    value: float
    source: str = "command line"  # "recipe", "matrix", "command line"
    declared: str = ""  # UTC, ISO 8601
    before: bool = False  # declared before the run whose numbers it judges


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One test's p, its corrected p, and the level at which the correction judged it."""

    p: float
    corrected: float
    level: float


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

    @property
    def is_different(self) -> bool:
        """Return whether a difference is shown."""
        return self.p_corrected <= self.alpha

    @property
    def is_late(self) -> bool:
        """Return whether the verdict rests on a margin that was chosen after the results."""
        rests = self.verdict in {"equivalent", "different but negligible"}
        return rests and self.margin is not None and not self.margin.before


def checked_margin(margin: Margin, measure: str = "", width: float | None = None) -> Margin:
    """Return the margin itself.

    Args:
        width: of the measure's range; None where it has no known one.

    Raises:
        UsageError: it is not above 0, or so large that no two systems could differ by it.
    """
    if not 0 < margin.value < float("inf"):
        raise UsageError(f"a margin is a number above 0, not {margin.value}", where=margin.source)
    if width is not None and margin.value >= width:
        raise UsageError(
            f"a margin of {margin.value:g} for {measure} calls any two systems equivalent: {measure} spans {width:g}",
            where=margin.source,
            hint=f"the largest difference that would not matter to you, such as {measure}=.02",
        )
    return margin


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
        )
    return _with_outlook(out, test, sd) if out.verdict == "cannot tell" and isinstance(test, Estimate) else out


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


def _with_outlook(judgment: Judgment, estimate: Estimate, sd: float | None) -> Judgment:
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


def shown(judgment: Judgment, difference: float) -> str:
    """Return the verdict as tables show it: with its direction, and † where its margin was chosen after the results."""
    text: str = judgment.verdict
    if judgment.verdict == "different but negligible" and judgment.margin:
        text = f"{'better' if difference > 0 else 'worse'}, but by less than {short(judgment.margin.value)}"
    return f"{text} †" if judgment.is_late else text


def short(value: float) -> str:
    """Return a number as papers write it: .02, 1.5."""
    return f"{value:g}".removeprefix("0")


def explain(judgment: Judgment, limits: tuple[float, float] | None = None) -> str:
    """Return the verdict's reason in a sentence, numbers to four decimals; for tables' footnotes and reports.

    Args:
        limits: the differences that the measure allows, to say where none of them would show.
    """
    if judgment.verdict == "identical":
        return "identical: both rankings hold the same documents in the same order, so nothing was tested"
    interval = f"{100 * (1 - judgment.level):.4g} % interval [{judgment.low:+.4f}, {judgment.high:+.4f}]"
    excludes = judgment.low > 0 or judgment.high < 0
    side = "excludes 0" if excludes else "includes 0"
    if judgment.is_different and not excludes:
        side += f", but the adjusted p of {judgment.p_corrected:.3g}, which is stepped down, does not allow it"
    parts = [f"{judgment.verdict}: {interval} {side}{', cut at the range of the measure' if judgment.is_cut else ''}"]
    if judgment.basis == "exact sign flips":
        parts.append(f"too few queries differ for a t-test: the exact sign-flip test has p {judgment.p:.3g}")
    margin = judgment.margin
    if margin is not None and judgment.equivalence_level is not None:
        confidence = 100 * (1 - 2 * judgment.equivalence_level)
        low, high = judgment.equivalence_low or 0.0, judgment.equivalence_high or 0.0
        is_within = (judgment.p_equivalence_corrected or 0.0) <= judgment.alpha
        late = "" if margin.before else ", chosen after the results"
        place = "lies within" if -margin.value < low and high < margin.value else "reaches beyond"
        text = f"{confidence:.4g} % interval [{low:+.4f}, {high:+.4f}] {place} ±{margin.value:g} (margin{late})"
        if is_within and place == "reaches beyond":
            text += f", but the adjusted p of equivalence, {judgment.p_equivalence_corrected:.3g}, shows it"
        parts.append(text)
    if judgment.detectable is not None:
        parts.append(can_show(judgment.detectable, limits))
    if judgment.queries_for_margin is not None and margin is not None:
        parts.append(f"to show equivalence takes {counted(judgment.queries_for_margin, 'query')} (80 % power)")
    if judgment.queries_for_difference is not None and margin is not None:
        many = counted(judgment.queries_for_difference, "query")
        parts.append(f"to show a true difference of {margin.value:g} takes {many} (80 % power)")
    return "; ".join(parts)


def can_show(detectable: float, limits: tuple[float, float] | None) -> str:
    """Return which true difference would show, or that the measure leaves no room for one."""
    if limits is None or detectable <= min(-limits[0], limits[1]):
        return f"a true difference of {detectable:.4f} would show with 80 % power"
    up, down = limits[1], -limits[0]
    if detectable > max(up, down):
        return (
            f"no true difference that the measure allows would show with 80 % power: it takes {detectable:.4f}, and "
            f"only {up:.4f} is left above and {down:.4f} below"
        )
    side, room, other = ("gain", up, "loss") if detectable > up else ("loss", down, "gain")
    return (
        f"no {side} that the measure allows would show with 80 % power: only {room:.4f} is left; a {other} of "
        f"{detectable:.4f} would"
    )
