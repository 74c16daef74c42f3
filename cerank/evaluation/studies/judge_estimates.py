"""Verdicts on differences of which only the standard error is known: of published tables, and of pooled collections."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cerank.evaluation import multiple_testing
from cerank.evaluation.multiple_testing import Correction
from cerank.evaluation.significance import Estimate, Inference, p_equivalent
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Judgment, Level, judge


def judged_estimates(
    estimates: Sequence[Inference],
    margins: Sequence[Margin | None],
    *,
    queries: Sequence[int | None] | None = None,
    alpha: float = 0.05,
    correction: Correction = "holm",
    family: int = 0,
    limits: Sequence[tuple[float, float] | None] | None = None,
) -> tuple[Judgment, ...]:
    """Return the verdict on each estimate, adjusted over all of them as one family.

    Args:
        estimates: the differences with standard errors and degrees of freedom; a single collection's may be exact.
        margins: the largest difference that does not matter, one for each estimate; None without one.
        queries: how many each rests on, for the number that its margin takes; None where more are not the cure.
        alpha: the error rate of all verdicts together.
        correction: "holm", "bonferroni", "bh" or "none".
        family: comparisons declared, at least as many as the estimates; 0 takes these.
        limits: the smallest and the largest that each difference can be; None where that is not known.
    """
    raw = [estimate.p() for estimate in estimates]
    within = [
        None if margin is None else p_equivalent(estimate, margin.value)
        for estimate, margin in zip(estimates, margins, strict=True)
    ]
    adjusted = multiple_testing.corrected(raw, correction, equivalent=within, alpha=alpha, family=family)
    judgments = []
    for place, (estimate, margin) in enumerate(zip(estimates, margins, strict=True)):
        p_within, p_within_adjusted, equivalence = within[place], adjusted.ps_equivalent[place], None
        if p_within is not None and p_within_adjusted is not None:
            equivalence = Level(p=p_within, corrected=p_within_adjusted, level=adjusted.level_equivalent)
        count = queries[place] if queries else None
        judgments.append(
            judge(
                estimate,
                Level(p=raw[place], corrected=max(raw[place], adjusted.ps[place]), level=adjusted.level),
                alpha=alpha,
                basis="t" if isinstance(estimate, Estimate) else "exact sign flips",
                margin=margin,
                equivalence=equivalence,
                sd=estimate.error * math.sqrt(count) if count and isinstance(estimate, Estimate) else None,
                limits=None if limits is None else limits[place],
            )
        )
    return tuple(judgments)
