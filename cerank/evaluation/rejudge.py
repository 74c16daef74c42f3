"""What a published table bears: differences, numbers of queries and p-values, judged as a comparison is.

From a two-sided p of a paired t-test and the number of queries follow t and the standard error of the difference:
from these the interval, the p adjusted over the table, equivalence within a margin, and what would be needed.

Invariant: only what is printed is used. A printed p of another test than the t-test gives a t that is near, not exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation import multiple_testing
from cerank.evaluation.compare import Judgment, Level, Margin, judge
from cerank.evaluation.significance import Estimate, p_equivalent

Says = Literal["better", "worse", "on par"]


class PublishedClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One comparison as a paper prints it."""

    what: str  # such as "distill against contrastive, dl19"
    queries: Annotated[int, msgspec.Meta(ge=3)]
    p: float  # two-sided, of a paired test, unadjusted
    difference: float | None = None  # of the means; or give both means
    left: float | None = None
    right: float | None = None
    says: Says


class ClaimsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a paper, whose comparisons are one family."""

    title: str = ""
    margin: float | None = None  # the largest difference that would not matter; chosen afterwards
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    claims: Annotated[tuple[PublishedClaim, ...], msgspec.Meta(min_length=1)]


class RejudgedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim beside what its numbers bear."""

    claim: PublishedClaim
    difference: float
    error: float  # standard error of the difference
    judgment: Judgment

    @property
    def stands(self) -> bool:
        """Return whether the verdict is what the paper says."""
        verdict = self.judgment.verdict
        if self.claim.says == "on par":
            return verdict in {"equivalent", "different but negligible"}
        return verdict == self.claim.says


def rejudge(table: ClaimsTable, correction: multiple_testing.Correction = "holm") -> tuple[RejudgedClaim, ...]:
    """Return each claim of a table with the verdict that its numbers bear.

    Args:
        table: the claims, adjusted together.
        correction: "holm", "bonferroni", "bh" or "none".

    Raises:
        UsageError: numbers that no t-test can give: a p outside (0, 1], a difference of 0 with another p than 1.
    """
    estimates = [_estimate(claim) for claim in table.claims]
    margin = None if table.margin is None else Margin(value=table.margin, source="rejudged")
    if margin is not None and not 0 < margin.value < 1:
        raise UsageError(f"a margin lies between 0 and 1, not at {margin.value:g}", where="margin")
    raw = [claim.p for claim in table.claims]
    within = [None if margin is None else p_equivalent(estimate, margin.value) for estimate in estimates]
    adjusted = multiple_testing.corrected(raw, correction, equivalent=within, alpha=table.alpha)
    rejudged = []
    for place, (claim, estimate) in enumerate(zip(table.claims, estimates, strict=True)):
        p_within, p_within_adjusted, equivalence = within[place], adjusted.ps_equivalent[place], None
        if p_within is not None and p_within_adjusted is not None:
            equivalence = Level(p=p_within, corrected=p_within_adjusted, level=adjusted.level_equivalent)
        judgment = judge(
            estimate,
            Level(p=claim.p, corrected=max(claim.p, adjusted.ps[place]), level=adjusted.level),
            alpha=table.alpha,
            margin=margin,
            equivalence=equivalence,
            sd=estimate.error * math.sqrt(claim.queries),
        )
        rejudged.append(
            RejudgedClaim(claim=claim, difference=estimate.difference, error=estimate.error, judgment=judgment)
        )
    return tuple(rejudged)


def _estimate(claim: PublishedClaim) -> Estimate:
    """Return the difference with the standard error that its p says."""
    from scipy.special import stdtrit

    difference = claim.difference
    if difference is None:
        if claim.left is None or claim.right is None:
            hint = "give difference, or left and right"
            raise UsageError("neither the difference nor both means are given", where=claim.what, hint=hint)
        difference = claim.right - claim.left
    if not 0 < claim.p <= 1:
        raise UsageError(f"p lies above 0 and at most at 1, not at {claim.p:g}", where=claim.what)
    if not math.isfinite(difference) or (difference == 0) != (claim.p == 1):
        raise UsageError(
            f"no t-test gives a difference of {difference:g} with p {claim.p:g}",
            where=claim.what,
            hint="a printed 0 or 1 is rounded: give more digits",
        )
    if difference == 0:
        raise UsageError("a difference of 0 says nothing of its spread", where=claim.what, hint="remove the claim")
    t = -float(stdtrit(claim.queries - 1, claim.p / 2))
    return Estimate(difference=difference, error=abs(difference) / t, df=claim.queries - 1)


def said_of(rejudged: Sequence[RejudgedClaim]) -> str:
    """Return how many of the claims stand, in a sentence."""
    standing = sum(claim.stands for claim in rejudged)
    return f"{standing} of {len(rejudged)} claims stand"
