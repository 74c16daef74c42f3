"""From two systems to a test of their differences: the first step of a comparison.

`row_test_of` matches two systems query by query and chooses the test: Student's t, the exact sign flips where few
queries differ, or for a claim about recipes a t-test over queries and seeds.

Invariant: values are matched by query id, never by position, and never over a silent intersection of queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation import seed_variance
from cerank.evaluation.measures import limits as limits_of
from cerank.evaluation.significance import (
    Inference,
    Paired,
    SignFlips,
    Stricter,
    inference_of,
    paired,
)
from cerank.evaluation.systems import Condition, Measured, System, measured_in, values_by_query
from cerank.evaluation.verdicts.terms import Margin, Pairing, Terms

Basis = Literal["t", "sign flips", "exact sign flips", "seeds"]  # the test that a p comes from


class RowTest(msgspec.Struct, frozen=True, kw_only=True):
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


def row_test_of(pairing: Pairing, left: System, right: System, terms: Terms) -> RowTest:
    """Return two systems matched query by query, with the test of their differences."""
    condition, measure = pairing.condition, pairing.measure
    queries, values = values_by_query(left, right, condition, measure)
    figures = paired(*values, terms.confidence)
    measure_limits = limits_of(measure)
    limits = None
    if measure_limits is not None:
        limits = measure_limits[0] - figures.mean_left, measure_limits[1] - figures.mean_left
    recipes = _by_seeds((left, right), condition, measure, queries, terms) if terms.claim == "recipes" else None
    plain = inference_of(figures, values, measure_limits)
    exact = plain if isinstance(plain, SignFlips) else None
    test: Inference = plain if recipes is None else recipes.estimate
    if exact is not None:  # no claim may say more than the exact test of these queries
        is_first = recipes is None or recipes.estimate.error == 0
        test = exact if is_first or recipes is None else Stricter(recipes.estimate, exact)
    basis: Basis = "exact sign flips" if exact is not None else "t" if recipes is None else "seeds"
    both = measured_in(left, condition), measured_in(right, condition)
    return RowTest(
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
    row_test = row_test_of(pairing, left, right, terms)
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
