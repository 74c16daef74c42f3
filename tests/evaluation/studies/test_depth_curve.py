"""A depth is measured as a re-ranking of that depth, and what is said of depths rests on the tests."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from cerank.core.rankings import Ranking, ordered
from cerank.errors import UsageError
from cerank.evaluation.compare import Condition
from cerank.evaluation.measures import per_query
from cerank.evaluation.studies.depth_curve import (
    DepthRanking,
    at_depth,
    check_depths,
    depth_study,
    greatest_depth,
    sentences,
)
from cerank.evaluation.verdicts.terms import Margin, Terms
from tests.refusals import refused

QUERIES, DEPTH = 60, 40
TERMS = Terms(margins={"nDCG@10": Margin(value=0.05)})


def made(noise: float, distraction: float = 0.0, seed: int = 0) -> DepthRanking:
    """Relevant documents stand early in the first stage; a re-ranker sees relevance and noise, and likes late ones."""
    draw = np.random.default_rng(seed)
    first, scores, qrels = {}, {}, {}
    for q in range(QUERIES):
        query, docs = f"q{q}", [f"d{q}-{place}" for place in range(DEPTH)]
        relevant = draw.random(DEPTH) < np.where(np.arange(DEPTH) < 10, 0.4, 0.02)
        qrels[query] = {doc: int(is_relevant) for doc, is_relevant in zip(docs, relevant, strict=True)}
        qrels[query][docs[0]] = 1
        values = relevant + noise * draw.normal(size=DEPTH) + distraction * (np.arange(DEPTH) >= 20)
        first[query] = docs
        scores[query] = dict(zip(docs, values.tolist(), strict=True))
    candidates = Ranking(first, {query: [float(-place) for place in range(DEPTH)] for query in first})
    return DepthRanking(
        system="model",
        condition=Condition("made", "bm25"),
        candidates=candidates,
        reranked=ordered(scores, candidates),
        qrels=qrels,
        qrels_sha256="ab",
        seconds_a_pair=0.01,
    )


@pytest.mark.parametrize("depth", [1, 5, 10, DEPTH])
def test_a_depth_is_the_re_ranking_of_as_many_candidates_before_the_others_in_their_order(depth):
    given = made(0.5)
    found = at_depth(given.reranked, given.candidates, depth)
    scores = {q: dict(zip(given.reranked[q], given.reranked.scores(q), strict=True)) for q in given.reranked}
    for query in given.candidates:
        docs = given.candidates[query]
        alone = ordered({query: {doc: scores[query][doc] for doc in docs[:depth]}}, given.candidates)[query]
        assert found[query] == (*alone, *docs[depth:])


def test_the_curve_has_the_means_and_costs_of_each_depth():
    given = made(0.5)
    (curve,) = depth_study([given], (5, 10, DEPTH), ["nDCG@10"], TERMS).curves
    for point in curve.points:
        values = per_query(["nDCG@10"], given.qrels, at_depth(given.reranked, given.candidates, point.depth))["nDCG@10"]
        assert point.mean == pytest.approx(np.mean(list(values.values())))
        half = 1.96 * np.std(list(values.values()), ddof=1) / np.sqrt(QUERIES)
        assert (point.low, point.high) == pytest.approx((point.mean - half, point.mean + half), abs=0.005)
        assert (point.pairs, point.seconds) == (point.depth, pytest.approx(0.01 * point.depth))
    first = per_query(["nDCG@10"], given.qrels, given.candidates)["nDCG@10"]
    assert curve.first_mean == pytest.approx(np.mean(list(first.values())))


def test_where_late_documents_are_liked_too_well_depth_hurts_and_it_is_said_from_where():
    study = depth_study([made(0.3, distraction=2.0)], (10, 20, 30, DEPTH), ["nDCG@10"], TERMS)
    (curve,) = study.curves
    assert curve.hurt_at == (30, 10)
    assert curve.below_first == 30
    assert study.comparison.family == 10  # four depths and the first stage, each with each other
    assert curve.enough is None
    assert len(sentences(curve)) == 3


def test_where_late_documents_hold_nothing_a_small_depth_is_enough_and_none_hurts():
    given = made(0.0)
    qrels = {q: {doc: g for doc, g in row.items() if int(doc.split("-")[1]) < 10} for q, row in given.qrels.items()}
    scores = {q: {doc: float(qrels[q].get(doc, 0)) for doc in given.candidates[q]} for q in given.candidates}
    given = msgspec.structs.replace(given, qrels=qrels, reranked=ordered(scores, given.candidates))
    (curve,) = depth_study([given], (5, 10, 20, DEPTH), ["nDCG@10"], TERMS).curves
    assert (curve.enough, curve.hurt_at, curve.below_first) == (10, None, None)
    (unjudged,) = depth_study([made(0.8)], (5, 20, DEPTH), ["nDCG@10"], Terms()).curves
    assert (unjudged.enough, unjudged.has_margin) == (None, False)  # noise alone, and nobody said what matters


@pytest.mark.parametrize(
    ("depths", "code"),
    [((0, 5), "depth-out-of-range"), ((5, 51), "depth-beyond"), ((5, 5), "depth-twice"), ((50,), "depth-alone")],
)
def test_depths_that_cannot_be_measured_are_refused(depths, code):
    with refused(UsageError, code):
        check_depths(depths, 50, "--depths")


def test_the_greatest_depth_is_always_measured():
    assert check_depths((20, 5), 50, "--depths") == (5, 20, 50)


def test_a_run_that_did_not_re_rank_these_candidates_is_refused():
    given = made(0.5)
    assert greatest_depth(given.candidates, given.reranked, "a.run") == DEPTH
    assert greatest_depth(given.candidates, given.reranked.top(DEPTH), "a.run") == DEPTH
    with refused(UsageError, "candidate-not-scored", "q0"):
        greatest_depth(given.candidates, given.reranked.top(10), "a.run")
    with refused(UsageError, "candidate-not-scored", "q1"):
        greatest_depth(given.candidates, given.reranked.only([q for q in given.reranked if q != "q1"]), "a.run")
