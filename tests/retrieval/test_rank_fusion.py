"""Fused rankings are those of ranx; interpolation and the orders without a model are what their names say."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from cerank.core.rankings import Ranking, ordered
from cerank.errors import MissingError, UsageError
from cerank.evaluation.measures import per_query
from cerank.retrieval import rank_fusion
from cerank.retrieval.reference_orders import reference_order
from tests.refusals import refused


def rankings(count: int = 3, queries: int = 12, seed: int = 5) -> list[Ranking]:
    """Rankings that share some documents, with scores of different scales."""
    draw = random.Random(seed)
    out = []
    for place in range(count):
        scores = {
            f"q{q}": {f"d{d}": draw.gauss(10**place, 10**place) for d in draw.sample(range(30), 15)}
            for q in range(queries)
        }
        out.append(ordered(scores))
    return out


def by_ranx(given: list[Ranking], norm: str | None, method: str, **params) -> dict[str, dict[str, float]]:
    ranx = pytest.importorskip("ranx")
    runs = [ranx.Run({q: dict(zip(r[q], map(float, r.scores(q)), strict=True)) for q in r}) for r in given]
    return ranx.fuse(runs, norm=norm, method=method, params=params or None).to_dict()


def assert_orders(found: Ranking, scores: dict[str, dict[str, float]]) -> None:
    """The order is one by these scores: no document stands before one with a larger score."""
    assert set(found) == set(scores)
    for query in found:
        assert set(found[query]) == set(scores[query])
        values = [scores[query][doc] for doc in found[query]]
        assert values == sorted(values, reverse=True) or np.diff(values).max() < 1e-7


def test_reciprocal_ranks_and_weighted_sums_are_those_of_ranx():
    """The file holds what ranx 0.3.21 made of the same rankings; compiling its loops takes a minute."""
    expected = json.loads((Path(__file__).parent / "fused_by_ranx.json").read_text())
    given = rankings(queries=2)
    weighted = rank_fusion.weighted_sum([rank_fusion.min_max(each) for each in given], [0.2, 0.5, 0.3])
    for name, found in (("rrf-60", rank_fusion.rrf(given)), ("rrf-5", rank_fusion.rrf(given, 5)), ("wsum", weighted)):
        assert_orders(found, expected[name])
        for query in found:
            scores = [expected[name][query][doc] for doc in found[query]]
            assert found.scores(query) == pytest.approx(scores, rel=1e-6)


@pytest.mark.slow  # numba compiles the loops of ranx
@pytest.mark.parametrize("method", ["combmnz", "bordafuse"])
def test_other_methods_are_ranx_s_own_and_queries_of_one_ranking_keep_their_order(method):
    given = rankings(2)
    lonely = ordered({"alone": {"b": 2.0, "a": 5.0, "c": 1.0}})
    more = Ranking(
        {**given[0], **lonely}, {q: given[0].scores(q) for q in given[0]} | {"alone": lonely.scores("alone")}
    )
    norm = None if method == "bordafuse" else "min-max"
    expected = by_ranx(given, norm, rank_fusion.BY_RANX[method])
    found = rank_fusion.fuse_by_ranx([more, given[1]], method)
    assert found["alone"] == ("a", "b", "c")
    assert_orders(found.only(list(expected)), expected)


def test_reciprocal_ranks_by_hand():
    one = Ranking({"q": ["a", "b", "c"]}, {"q": [3.0, 2.0, 1.0]})
    other = Ranking({"q": ["c", "d"]}, {"q": [9.0, 8.0]})
    found = rank_fusion.rrf([one, other], k=1)
    assert found["q"] == ("c", "a", "b", "d")  # 1/4 + 1/2, 1/2, 1/3, 1/3: ties by id
    assert found.scores("q")[:2] == pytest.approx((0.75, 0.5))


def test_without_ranx_its_methods_are_refused_and_ours_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "ranx", None)
    given = rankings(2)
    with refused(MissingError, "ranx-missing", "combmnz"):
        rank_fusion.fuse_by_ranx(given, "combmnz")
    assert len(rank_fusion.rrf(given)) == 12


def test_an_unknown_method_is_refused_with_the_nearest():
    with refused(UsageError, "fusion-method-unknown", "rff", "rrf"):
        rank_fusion.check_method("rff")


def test_interpolation_is_the_first_stage_at_0_and_the_re_ranker_at_1():
    first = rankings(1)[0]
    draw = random.Random(3)
    reranked = ordered({query: {doc: draw.random() for doc in first[query][:10]} for query in first})
    assert all(rank_fusion.interpolated(first, reranked, 1.0)[q] == reranked[q] for q in first)
    assert all(rank_fusion.interpolated(first, reranked, 0.0)[q] == first[q][:10] for q in first)
    middle = rank_fusion.interpolated(first, reranked, 0.3)
    for query in first:
        top = dict(zip(first[query][:10], first.scores(query)[:10], strict=True))
        own = dict(zip(reranked[query], reranked.scores(query), strict=True))

        def scaled(row, doc):
            return (row[doc] - min(row.values())) / (max(row.values()) - min(row.values()))

        by_hand = sorted(top, key=lambda doc: -(0.3 * scaled(own, doc) + 0.7 * scaled(top, doc)))
        assert list(middle[query]) == by_hand


def test_no_order_of_the_candidates_beats_the_oracle_and_unjudged_documents_keep_their_places():
    candidates = rankings(1)[0]
    draw = random.Random(9)
    qrels = {query: {doc: draw.choice([-1, 0, 1, 2, 3]) for doc in candidates[query][::2]} for query in candidates}
    best = per_query(["nDCG@10"], qrels, reference_order("oracle", candidates, qrels, 1))["nDCG@10"]
    for seed in range(20):
        other = reference_order("random-order", candidates, qrels, seed)
        assert {q: set(other[q]) for q in other} == {q: set(candidates[q]) for q in candidates}
        values = per_query(["nDCG@10"], qrels, other)["nDCG@10"]
        assert all(values[query] <= best[query] + 1e-12 for query in values)
    nothing = reference_order("oracle", candidates, {}, 1)
    assert all(nothing[query] == candidates[query] for query in candidates)


def test_the_random_order_is_the_seed_s():
    candidates = rankings(1)[0]
    one, again, other = (reference_order("random-order", candidates, {}, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
