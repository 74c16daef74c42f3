"""Whether the order of re-rankers holds behind another first stage: the interaction of two factors, paired by query.

Every query has a value for each re-ranker behind each first stage. The interaction is what is left of the means when
the effects of the first stages and of the re-rankers are taken out; it is 0 where every re-ranker gains the same behind
each first stage. The test over all is the two-way analysis of variance with repeated measures; since differences
between re-rankers hardly vary alike behind all first stages, its degrees of freedom are reduced (Greenhouse and Geisser
1959). A contrast is the interaction of one pair of re-rankers and one pair of first stages: a paired t-test of the
difference of differences, which needs no such assumption; where few queries differ, exact sign flips.

Invariant: values are matched by query; the contrasts of a table are corrected as one family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import corrected
from cerank.evaluation.significance import Paired, SignFlips, inference_of, p_equivalent, paired
from cerank.evaluation.verdicts.row_tests import Basis
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Level, judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIRST_STAGES_BY_RERANKERS = ("first stage", "re-ranker")
ContrastVerdict = Literal["gain differs", "gain is the same", "cannot tell"]


class InteractionTest(msgspec.Struct, frozen=True, kw_only=True):
    """The test of any interaction at all."""

    f: float  # nan where no query's values differ between cells
    df: float  # degrees of freedom before the reduction
    df_error: float
    p: float  # without the reduction
    epsilon: float  # by which both degrees of freedom are reduced; 1 with two first stages and two re-rankers
    p_reduced: float  # what is reported


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """What one re-ranker gains over another behind one first stage, beside the same behind another."""

    rerankers: tuple[str, str]  # the gain is that of the second over the first
    first_stages: tuple[str, str]
    gains: tuple[float, float]  # behind each first stage
    figures: Paired  # of the second gain minus the first, over queries
    basis: Basis  # the test that p comes from
    p: float
    p_corrected: float
    low: float  # at the family's level
    high: float
    p_equivalence_corrected: float | None  # None without a margin
    verdict: ContrastVerdict
    unseen: float | None = None  # one more query whose gains differ so much would undo that the gain is the same

    @property
    def is_beyond_interval(self) -> bool:
        """Return whether a difference is shown whose interval holds 0, for p is stepped down."""
        return self.verdict == "gain differs" and self.low <= 0 <= self.high

    @property
    def keeps_order(self) -> bool:
        """Return whether the same re-ranker is ahead behind both first stages, by the means alone."""
        return self.gains[0] * self.gains[1] > 0 or self.gains == (0.0, 0.0)


class InteractionStudy(msgspec.Struct, frozen=True, kw_only=True):
    """A table of first stages by re-rankers with its tests."""

    measure: str
    first_stages: tuple[str, ...]
    rerankers: tuple[str, ...]
    queries: int
    means: tuple[tuple[float, ...], ...]  # re-ranker -> first stage -> mean
    test: InteractionTest
    contrasts: tuple[Contrast, ...]
    alpha: float
    margin: Margin | None
    factors: tuple[str, str] = FIRST_STAGES_BY_RERANKERS  # what `first_stages` and `rerankers` are levels of


def interaction_test(values: NDArray[np.float64]) -> InteractionTest:
    """Run the test of the interaction on values (queries, first stages, re-rankers)."""
    import numpy as np
    from scipy.special import fdtrc

    n, firsts, rerankers = values.shape
    contrasts = np.kron(_contrasts(firsts), _contrasts(rerankers))  # orthonormal: (df, cells)
    df = len(contrasts)
    scores = values.reshape(n, firsts * rerankers) @ contrasts.T  # each query's interaction, (n, df)
    mean = scores.mean(axis=0)
    covariance = np.atleast_2d(np.cov(scores, rowvar=False))
    spread = float(np.trace(covariance))
    if spread <= 1e-24:  # the cells of no query differ but by rounding
        return InteractionTest(f=math.nan, df=df, df_error=df * (n - 1), p=1.0, epsilon=1.0, p_reduced=1.0)
    f = float(n * mean @ mean / spread)
    epsilon = spread**2 / (df * float((covariance**2).sum()))
    return InteractionTest(
        f=f,
        df=df,
        df_error=df * (n - 1),
        p=float(fdtrc(df, df * (n - 1), f)),
        epsilon=epsilon,
        p_reduced=float(fdtrc(df * epsilon, df * epsilon * (n - 1), f)),
    )


def _contrasts(levels: int) -> NDArray[np.float64]:
    """Return orthonormal contrasts of a factor's levels (levels - 1, levels), each summing to 0 (Helmert's)."""
    import numpy as np

    rows = np.zeros((levels - 1, levels))
    for place in range(1, levels):
        rows[place - 1, :place] = 1
        rows[place - 1, place] = -place
    return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)), dtype=np.float64)


def interaction_study(
    values: NDArray[np.float64],
    first_stages: Sequence[str],
    rerankers: Sequence[str],
    measure: str,
    *,
    margin: Margin | None = None,
    alpha: float = 0.05,
    factors: tuple[str, str] = FIRST_STAGES_BY_RERANKERS,
    limits: tuple[float, float] | None = None,
) -> InteractionStudy:
    """Return the table with its tests.

    Args:
        values: per query, (queries, first stages, re-rankers).
        first_stages: names, in the order of the second axis.
        rerankers: names, in the order of the third axis.
        measure: what the values are.
        margin: the largest difference between two gains that does not matter.
        alpha: error rate of the family of contrasts.
        factors: what the second and third axes are, for a table of two other factors.
        limits: the smallest and the largest that a value can be; None where that is not known.

    Raises:
        UsageError: fewer than two first stages, re-rankers or queries.
    """
    n = len(values)
    for what, count in ((factors[0], len(first_stages)), (factors[1], len(rerankers)), ("query", n)):
        if count < 2:
            hint = "an interaction takes at least two of each"
            raise UsageError(f"only one {what}", hint=hint, code="interaction-of-one")
    cells = [
        (ahead, behind, first, other)
        for behind, ahead in combinations(range(len(rerankers)), 2)
        for first, other in combinations(range(len(first_stages)), 2)
    ]
    gains = {
        (ahead, behind, first): values[:, first, ahead] - values[:, first, behind]
        for ahead, behind, *both in cells
        for first in both
    }
    width = None if limits is None else limits[1] - limits[0]  # a gain lies between -width and width
    sides = [
        (gains[ahead, behind, first].tolist(), gains[ahead, behind, other].tolist())
        for ahead, behind, first, other in cells
    ]
    figures = [paired(*values) for values in sides]
    tests = [
        inference_of(each, values, None if width is None else (-width, width))
        for each, values in zip(figures, sides, strict=True)
    ]
    within = [None if margin is None else p_equivalent(test, margin.value) for test in tests]
    family = corrected([test.p() for test in tests], "holm", equivalent=within, alpha=alpha)
    contrasts = []
    for place, (ahead, behind, first, other) in enumerate(cells):
        p, p_within, equivalence = within[place], family.ps_equivalent[place], None
        if p is not None and p_within is not None:
            equivalence = Level(p=p, corrected=p_within, level=family.level_equivalent)
        judgment = judge(
            tests[place],
            Level(p=tests[place].p(), corrected=family.ps[place], level=family.level),
            alpha=alpha,
            basis="exact sign flips" if isinstance(tests[place], SignFlips) else "t",
            margin=margin,
            equivalence=equivalence,
        )
        verdict: ContrastVerdict = "gain differs" if judgment.is_different else "cannot tell"
        contrasts.append(
            Contrast(
                rerankers=(rerankers[behind], rerankers[ahead]),
                first_stages=(first_stages[first], first_stages[other]),
                gains=(float(gains[ahead, behind, first].mean()), float(gains[ahead, behind, other].mean())),
                figures=figures[place],
                basis=judgment.basis,
                p=judgment.p,
                p_corrected=judgment.p_corrected,
                low=judgment.low,
                high=judgment.high,
                p_equivalence_corrected=judgment.p_equivalence_corrected,
                verdict="gain is the same" if judgment.verdict == "equivalent" else verdict,
                unseen=judgment.unseen,
            )
        )
    return InteractionStudy(
        measure=measure,
        first_stages=tuple(first_stages),
        rerankers=tuple(rerankers),
        queries=n,
        means=tuple(tuple(float(cell) for cell in row) for row in values.mean(axis=0).T),
        test=interaction_test(values),
        contrasts=tuple(contrasts),
        alpha=alpha,
        margin=margin,
        factors=factors,
    )
