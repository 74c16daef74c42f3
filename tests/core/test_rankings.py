"""Rankings: ties are broken once, and what comes out is strict in the precision that evaluators compare in."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cerank.core.rankings import (
    Ranking,
    RankingOfKept,
    bfloat16,
    cut_lists,
    float32,
    float32_below,
    ordered,
    strictly_decreasing,
)

LARGEST = 3.0e38  # just inside float32
FINITE = st.floats(min_value=-LARGEST, max_value=LARGEST)


def test_a_tie_falls_back_on_the_first_stage_then_on_the_document_id() -> None:
    scores = {"q": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 2.0}}
    assert ordered(scores, {"q": ["c", "b"]})["q"] == ("d", "c", "b", "a")
    assert ordered(scores)["q"] == ("d", "a", "b", "c")


def test_scores_that_differ_only_below_float32_are_a_tie() -> None:
    scores = {"q": {"a": 1.0, "b": 1.0 + 1e-12}}
    assert ordered(scores, {"q": ["a", "b"]})["q"] == ("a", "b")


@given(st.dictionaries(st.text(min_size=1, max_size=3), FINITE, max_size=12))
def test_an_ordered_ranking_is_strict_and_holds_every_document_once(row: dict[str, float]) -> None:
    ranking = ordered({"q": row})
    values = ranking.scores("q")
    assert sorted(ranking["q"]) == sorted(row)
    assert all(left > right for left, right in itertools.pairwise(values))
    assert all(value == float32(value) for value in values)


@given(st.dictionaries(st.text(min_size=1, max_size=3), FINITE, max_size=12))
def test_a_document_never_stands_above_one_with_a_larger_score(row: dict[str, float]) -> None:
    order = ordered({"q": row})["q"]
    assert all(float32(row[left]) >= float32(row[right]) for left, right in itertools.pairwise(order))


@given(FINITE)
def test_nothing_lies_between_a_float32_and_the_one_below(value: float) -> None:
    here = float32(value)
    below = float32_below(here)
    assert below < here
    assert below == float32(below)
    assert float32((here + below) / 2) in {here, below}


def test_below_zero_of_either_sign_comes_the_smallest_negative_number() -> None:
    assert float32_below(0.0) == float32_below(-0.0) == -(2.0**-149)


def test_many_equal_scores_become_strict_and_move_by_a_hair_only() -> None:
    values = strictly_decreasing([1.0] * 1000)
    assert all(left > right for left, right in itertools.pairwise(values))
    assert values[0] - values[-1] < 1e-4


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        strictly_decreasing([score])


@pytest.mark.parametrize("score", [1e39, -1e39, 1e308])
def test_a_score_beyond_float32_is_refused_like_one_that_is_not_finite(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        strictly_decreasing([score])


def test_ties_at_the_lowest_float32_are_refused_because_nothing_lies_below() -> None:
    lowest = -3.4028234663852886e38
    for count in (2, 3):
        with pytest.raises(ValueError, match="finite"):
            ordered({"q": dict.fromkeys("abc"[:count], lowest)})


def test_a_ranking_refuses_ties_and_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="strictly"):
        Ranking({"q": ["a", "b"]}, {"q": [1.0, 1.0]})
    with pytest.raises(ValueError, match="2 documents, 1 scores"):
        Ranking({"q": ["a", "b"]}, {"q": [1.0]})


def test_a_ranking_keeps_the_order_of_queries_and_can_be_cut() -> None:
    ranking = ordered({"q2": {"a": 1.0, "b": 2.0}, "q1": {"c": 1.0}})
    assert list(ranking) == ["q2", "q1"]
    assert dict(ranking.top(1)) == {"q2": ("b",), "q1": ("c",)}
    assert ranking.top(1).scores("q2") == (2.0,)
    assert list(ranking.only(["q1", "missing", "q2"])) == ["q1", "q2"]


def test_rounding_to_bfloat16_is_that_of_torch() -> None:
    values = [
        0.0,
        -0.0,
        1.001,
        -2.71828,
        1e-40,
        3.3e38,
        0.1,
        257.0,
        258.0,
        259.0,
        *np.random.default_rng(3).normal(size=500),
    ]
    expected = torch.tensor(values, dtype=torch.float32).bfloat16().tolist()
    assert [bfloat16(value) for value in values] == expected


def ranked(**lists: str) -> Ranking:
    return Ranking(
        {query: tuple(documents) for query, documents in lists.items()},
        {
            query: [float(len(documents) - place) for place in range(len(documents))]
            for query, documents in lists.items()
        },
    )


def test_lists_are_cut_to_the_first_stages_ranks_and_keep_the_teachers_order_and_scores() -> None:
    lists, first = ranked(p="dcba", q="cb", r="xy"), ranked(p="abcd", q="ab")
    cut = cut_lists(lists, ["p", "q", "r"], first, 2, 0)
    assert {query: "".join(cut[query]) for query in cut} == {"p": "ba", "q": "b"}
    assert cut.scores("p") == (2.0, 1.0)


def test_fewer_queries_are_a_part_of_more_whatever_their_order() -> None:
    lists = ranked(**{f"q{number}": "ab" for number in range(20)})
    few = set(cut_lists(lists, list(lists), None, 0, 5))
    assert len(few) == 5
    assert few == set(cut_lists(lists, sorted(lists, reverse=True), None, 0, 5))
    assert few < set(cut_lists(lists, list(lists), None, 0, 10))
    assert list(cut_lists(lists, ["q3", "missing"], None, 0, 0)) == ["q3"]


def test_a_ranking_of_kept_documents_is_the_ranking_without_the_others() -> None:
    whole = ranked(p="abcd", q="bd", r="cab")
    kept = RankingOfKept(whole, "ac".__contains__)
    expected = Ranking({"p": "ac", "r": "ca"}, {"p": (4.0, 2.0), "r": (3.0, 2.0)})
    assert (list(kept), dict(kept), len(kept), bool(kept)) == (["p", "r"], dict(expected), 2, True)
    assert [kept.scores(query) for query in kept] == [expected.scores(query) for query in expected]
    assert "q" not in kept
    for read in (kept.__getitem__, kept.scores):
        with pytest.raises(KeyError):
            read("q")
    assert (kept.top(1)["r"], kept.top(1).scores("r"), list(kept.only(["r", "q"]))) == (("c",), (3.0,), ["r"])
    assert not RankingOfKept(whole, "x".__contains__)
