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
from cerank.evaluation.significance import Estimate
from cerank.evaluation.studies.judge_estimates import judged_estimates
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Judgment

Says = Literal["better", "worse", "on par"]


class PublishedClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One comparison as a paper prints it: its p, or an sd to assume where it prints none, or its run files."""

    what: str  # such as "distill against contrastive, dl19"
    says: Says
    queries: Annotated[int, msgspec.Meta(ge=3)] | None = None
    p: float | None = None  # two-sided, of a paired test, unadjusted
    sd: float | None = None  # of per-query differences, assumed: in place of p
    difference: float | None = None  # of the means; or give both means
    left: float | None = None
    right: float | None = None
    left_run: str = ""  # TREC run files, from the folder of the table: in place of all numbers
    right_run: str = ""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment that was repeated: the run files of its baseline and its advanced system, before and after."""

    original: tuple[str, str]
    reproduced: tuple[str, str]


class ClaimsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a paper, whose comparisons are one family."""

    title: str = ""
    margin: float | None = None  # the largest difference that would not matter; chosen afterwards
    qrels: str = ""  # a file that the run files are measured on
    measure: str = "nDCG@10"  # of the run files
    reproduction: Reproduction | None = None
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    claims: tuple[PublishedClaim, ...] = ()


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
    judgments = judged_estimates(
        estimates,
        [margin] * len(estimates),
        queries=[claim.queries for claim in table.claims],
        alpha=table.alpha,
        correction=correction,
    )
    return tuple(
        RejudgedClaim(claim=claim, difference=estimate.difference, error=estimate.error, judgment=judgment)
        for claim, estimate, judgment in zip(table.claims, estimates, judgments, strict=True)
    )


def _estimate(claim: PublishedClaim) -> Estimate:
    """Return the difference with the standard error that its p, or its assumed sd, says."""
    from scipy.special import stdtrit

    if claim.queries is None:
        raise UsageError("the number of queries is not given", where=claim.what, hint="queries = 43")
    if (claim.p is None) == (claim.sd is None):
        what = "both p and sd are given" if claim.p is not None else "neither p nor sd is given"
        hint = "give p as it is printed; or an sd of per-query differences to assume, where none is printed"
        raise UsageError(what, where=claim.what, hint=hint)
    difference, df = _difference(claim), claim.queries - 1
    if claim.p is None:
        sd = claim.sd or 0.0
        if not 0 < sd < math.inf:
            raise UsageError(f"an sd lies above 0, not at {sd:g}", where=claim.what)
        return Estimate(difference=difference, error=sd / math.sqrt(claim.queries), df=df)
    if not 0 < claim.p <= 1:
        raise UsageError(f"p lies above 0 and at most at 1, not at {claim.p:g}", where=claim.what)
    if (difference == 0) != (claim.p == 1):
        raise UsageError(
            f"no t-test gives a difference of {difference:g} with p {claim.p:g}",
            where=claim.what,
            hint="a printed 0 or 1 is rounded: give more digits",
        )
    if difference == 0:
        raise UsageError("a difference of 0 says nothing of its spread", where=claim.what, hint="remove the claim")
    t = -float(stdtrit(df, claim.p / 2))
    return Estimate(difference=difference, error=abs(difference) / t, df=df)


def _difference(claim: PublishedClaim) -> float:
    """Return the difference of the means as it is printed."""
    difference = claim.difference
    if difference is None:
        if claim.left is None or claim.right is None:
            hint = "give difference, or left and right"
            raise UsageError("neither the difference nor both means are given", where=claim.what, hint=hint)
        difference = claim.right - claim.left
    if not math.isfinite(difference):
        raise UsageError(f"a difference is a finite number, not {difference:g}", where=claim.what)
    return difference


def said_of(rejudged: Sequence[RejudgedClaim]) -> str:
    """Return how many of the claims stand, in a sentence."""
    standing = sum(claim.stands for claim in rejudged)
    return f"{standing} of {len(rejudged)} claims stand"
