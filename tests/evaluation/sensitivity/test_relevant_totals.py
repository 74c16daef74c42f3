"""AP and Rprec over all judgments, for more documents than every choice is computed of."""

from __future__ import annotations

import numpy as np
import pytest

from cerank.core.rankings import Ranking
from cerank.evaluation.measures import per_query
from cerank.evaluation.sensitivity.relevant_totals import JudgedTotals

DOCS = tuple(f"d{at:02}" for at in range(18))
JUDGED = {"d00": 1, "d09": 1, "elsewhere": 1}
UNJUDGED = [doc for doc in DOCS if doc not in JUDGED]  # 16


def every_difference(kind, left, right):
    """Compute the difference under all 65,536 judgments, by the measures' definitions."""
    chosen = (np.arange(2 ** len(UNJUDGED))[:, None] >> np.arange(len(UNJUDGED))) & 1
    totals = len(JUDGED) + chosen.sum(axis=1)
    values = []
    for side in (left, right):
        columns = [
            chosen[:, UNJUDGED.index(doc)] if doc in UNJUDGED else np.full(len(chosen), JUDGED.get(doc, 0))
            for doc in side
        ]
        hits = np.array(columns).T
        counts, ranks = hits.cumsum(axis=1), np.arange(1, len(side) + 1)
        if kind == "AP":
            values.append((hits * counts / ranks).sum(axis=1) / totals)
        else:
            padded = np.hstack([counts, np.tile(counts[:, -1:], (1, len(UNJUDGED) + len(JUDGED)))])
            values.append(padded[np.arange(len(chosen)), totals - 1] / totals)
    return values[1] - values[0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["AP", "Rprec"])
def test_no_judging_of_sixteen_documents_passes_the_limits(kind, seed):
    random = np.random.default_rng(seed)
    left, right = (tuple(random.permutation(DOCS)[: random.integers(8, 19)]) for _ in range(2))
    every = every_difference(kind, left, right)
    low, high, is_exact = JudgedTotals(kind, JUDGED, (left, right), UNJUDGED).limits()
    if kind == "Rprec":
        assert is_exact
        assert (low, high) == pytest.approx((every.min(), every.max()), abs=1e-12)
        return
    assert not is_exact
    assert low <= every.min() + 1e-12
    assert high >= every.max() - 1e-12
    assert high - low <= 2 * (every.max() - every.min())  # wider than need be, but no mere -1 to 1


@pytest.mark.parametrize("measure", ["AP", "AP@6", "Rprec"])
def test_further_relevant_documents_move_the_difference_as_the_measure_does(measure):
    random = np.random.default_rng(5)
    left, right = (tuple(random.permutation(DOCS)[:14]) for _ in range(2))
    sides = [Ranking({"q": side}, {"q": [-float(at) for at in range(14)]}) for side in (left, right)]
    cutoff = 6 if "@" in measure else None
    totals = JudgedTotals(measure.partition("@")[0], JUDGED, (left, right), UNJUDGED, cutoff=cutoff)
    for decided in ([], [3], [3, 7, 11]):
        found = totals.if_relevant(decided)
        known = JUDGED | {UNJUDGED[place]: 1 for place in decided}
        for place in set(range(len(UNJUDGED))) - set(decided):
            grades = {"q": known | {UNJUDGED[place]: 1}}
            first, second = (per_query((measure,), grades, side)[measure]["q"] for side in sides)
            assert found[place] == pytest.approx(second - first, abs=1e-12)


def test_nothing_relevant_and_nothing_unjudged_is_no_difference():
    assert JudgedTotals("AP", {}, (("a",), ("b",)), []).limits() == (0.0, 0.0, True)
    assert JudgedTotals("Rprec", {}, (("a",), ("b",)), ["a"]).limits() == (-1.0, 0.0, True)
