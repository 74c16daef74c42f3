"""A verdict from a difference, its intervals and a declared margin: never "on par" from a large p.

Invariant: a verdict never contradicts the intervals it carries.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation import power
from cerank.evaluation.significance import Estimate
from cerank.text.safe_text import counted

Verdict = Literal["better", "worse", "equivalent", "different but negligible", "cannot tell"]


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

    `low` and `high` are the interval at confidence 1 - `level`; it excludes 0 exactly where the difference is
    significant after correction. The equivalence interval, at 1 - 2 `equivalence_level`, lies within ±margin exactly
    where TOST is significant after correction. Ends of intervals at corrected levels are those of single intervals:
    their coverage is not simultaneous.
    """

    verdict: Verdict
    alpha: float
    p: float
    p_corrected: float
    level: float
    low: float
    high: float
    margin: Margin | None = None
    p_equivalence: float | None = None  # TOST: the larger of two one-sided p
    p_equivalence_corrected: float | None = None
    equivalence_level: float | None = None
    equivalence_low: float | None = None
    equivalence_high: float | None = None
    detectable: float | None = None  # for "cannot tell": true difference seen with 80 % power at `level`
    queries_for_difference: int | None = None  # to see the observed difference with 80 % power
    queries_for_margin: int | None = None  # to show equivalence with 80 % power, were the true difference 0


def checked_margin(margin: Margin) -> Margin:
    """The margin itself.

    Raises:
        UsageError: it is not above 0.
    """
    if not 0 < margin.value < float("inf"):
        raise UsageError(f"a margin is a number above 0, not {margin.value}", where=margin.source)
    return margin


def judge(
    estimate: Estimate,
    difference: Level,
    *,
    alpha: float = 0.05,
    margin: Margin | None = None,
    equivalence: Level | None = None,
    sd: float | None = None,
) -> Judgment:
    """The verdict on one estimate.

    Args:
        difference: the two-sided test of no difference.
        equivalence: TOST within the margin; needed where there is one.
        sd: of per-query differences, for the number of queries needed; None where more queries are not the cure.
    """
    low, high = estimate.interval(difference.level)
    is_different = difference.corrected <= alpha
    if estimate.error == 0 and not is_different:
        # Flips of a few equal differences cannot reject 0, though a t interval without spread has no width.
        low, high = min(low, 0.0), max(high, 0.0)
    is_negligible = equivalence is not None and equivalence.corrected <= alpha
    out = Judgment(
        verdict=_verdict(estimate.difference, is_different, is_negligible),
        alpha=alpha,
        p=difference.p,
        p_corrected=difference.corrected,
        level=difference.level,
        low=low,
        high=high,
        margin=margin,
    )
    if equivalence is not None:
        inner_low, inner_high = estimate.interval(2 * equivalence.level)
        out = msgspec.structs.replace(
            out,
            p_equivalence=equivalence.p,
            p_equivalence_corrected=equivalence.corrected,
            equivalence_level=equivalence.level,
            equivalence_low=inner_low,
            equivalence_high=inner_high,
        )
    return _with_outlook(out, estimate, sd) if out.verdict == "cannot tell" else out


def _verdict(difference: float, is_different: bool, is_negligible: bool) -> Verdict:
    if is_different and is_negligible:
        return "different but negligible"
    if is_different:
        return "better" if difference > 0 else "worse"
    return "equivalent" if is_negligible else "cannot tell"


def _with_outlook(judgment: Judgment, estimate: Estimate, sd: float | None) -> Judgment:
    if judgment.level >= 0.5 or estimate.error == 0:  # max-t over very few queries; no spread to plan by
        return judgment
    detectable = power.detectable(estimate.error, estimate.df, alpha=judgment.level)
    if not sd:
        return msgspec.structs.replace(judgment, detectable=detectable)
    margin, level = judgment.margin, judgment.equivalence_level
    return msgspec.structs.replace(
        judgment,
        detectable=detectable,
        queries_for_difference=power.queries_for_difference(estimate.difference, sd, alpha=judgment.level),
        queries_for_margin=power.queries_for_margin(margin.value, sd, alpha=level) if margin and level else None,
    )


def explain(judgment: Judgment) -> str:
    """The verdict's reason in a sentence, numbers to four decimals; for tables' footnotes and reports."""
    interval = f"{100 * (1 - judgment.level):.4g} % interval [{judgment.low:+.4f}, {judgment.high:+.4f}]"
    side = "excludes 0" if judgment.p_corrected <= judgment.alpha else "includes 0"
    parts = [f"{judgment.verdict}: {interval} {side}"]
    margin = judgment.margin
    if margin is not None and judgment.equivalence_level is not None:
        confidence = 100 * (1 - 2 * judgment.equivalence_level)
        inner = f"[{judgment.equivalence_low:+.4f}, {judgment.equivalence_high:+.4f}]"
        is_within = (judgment.p_equivalence_corrected or 0.0) <= judgment.alpha
        late = "" if margin.before else ", chosen after the run"
        place = "lies within" if is_within else "reaches beyond"
        parts.append(f"{confidence:.4g} % interval {inner} {place} ±{margin.value:g} (margin{late})")
    if judgment.detectable is not None:
        parts.append(f"a true difference of {judgment.detectable:.4f} would show with 80 % power")
    if judgment.queries_for_difference is not None:
        parts.append(f"to see the observed one takes {counted(judgment.queries_for_difference, 'query')}")
    if judgment.queries_for_margin is not None:
        parts.append(f"to show equivalence takes {judgment.queries_for_margin:,}")
    return "; ".join(parts)
