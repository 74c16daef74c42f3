from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.core.rankings import Ranking, ordered
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.answer_store import Call
from cerank.teachers.parsing.choices import Order, Preference
from cerank.teachers.parsing.permutations import Permutation
from cerank.teachers.procedures import fusion, kemeny
from cerank.teachers.procedures.windows import windows
from cerank.teachers.reading import Value
from tests.teachers.procedures_by_hand import carry_out


def _spec(kind: str, **more: object) -> TeacherSpec:
    return TeacherSpec(kind=kind, model="m", server="http://x/v1", **more)  # type: ignore[arg-type]


def _best(_call: Call, worth: list[int]) -> Value:
    return worth.index(max(worth))


def _sorted(_call: Call, worth: list[int]) -> Value:
    order = tuple(sorted(range(len(worth)), key=lambda place: -worth[place]))
    return Permutation(order=order, named=len(worth))


def _worths(size: int, seed: int = 1) -> list[int]:
    return random.Random(seed).sample(range(10 * size), size)


def _ranks(worth: list[int]) -> list[int]:
    return sorted(range(len(worth)), key=lambda place: -worth[place])


def _rank_llm_windows(size: int, window: int, stride: int) -> list[tuple[int, int]]:
    """The loop of rank_llm's `sliding_windows`, word for word, for ranks from 0."""
    found = []
    rank_start, end_pos = 0, size
    start_pos = size - window
    while end_pos > rank_start and start_pos + stride != rank_start:
        start_pos = max(start_pos, rank_start)
        found.append((start_pos, end_pos))
        end_pos -= stride
        start_pos -= stride
    return found


@given(st.integers(1, 150), st.integers(2, 40), st.integers(1, 40))
def test_the_windows_are_those_of_rank_llm(size: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    theirs = _rank_llm_windows(size, min(window, size), stride)  # rank_llm, too, takes no more than there are
    assert list(windows(size, window, stride)) == theirs


def test_a_hundred_passages_take_nine_windows_and_ninety_five_lose_no_head() -> None:
    assert len(list(windows(100, 20, 10))) == 9
    seen = {place for start, end in windows(95, 20, 10) for place in range(start, end)}
    assert seen == set(range(95))


def test_windows_bring_the_best_to_the_top() -> None:
    worth = _worths(100)
    outcome, batches = carry_out(_spec("listwise"), worth, _sorted)
    assert list(outcome.order[:10]) == _ranks(worth)[:10]
    assert sorted(outcome.order) == list(range(100))
    assert not outcome.scores
    assert [call.size for (call,) in batches] == [20] * 9


def test_first_reads_an_order_and_shuffles_are_merged() -> None:
    worth = _worths(12)

    def judge(call: Call, shown: list[int]) -> Value:
        assert call.identifiers == tuple("ABCDEFGHIJKL")[: call.size]
        return Order(tuple(sorted(range(len(shown)), key=lambda place: -shown[place])), 0)

    outcome, batches = carry_out(_spec("first", window=12, shuffles=3), worth, judge)
    assert list(outcome.order) == _ranks(worth)
    assert len(batches) == 3
    assert len({batch[0].messages for batch in batches}) == 3


@pytest.mark.parametrize("method", ["heap", "bubble"])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 11, 50, 100])
def test_setwise_sorts_the_top_whatever_the_size(method: str, size: int) -> None:
    worth = _worths(size, seed=size)
    outcome, batches = carry_out(_spec("setwise", method=method), worth, _best)
    assert list(outcome.order[:10]) == _ranks(worth)[:10]
    assert list(outcome.order[10:]) == sorted(outcome.order[10:])
    assert all(2 <= call.size <= 4 for batch in batches for call in batch)


def test_the_number_of_setwise_calls_is_that_of_theory() -> None:
    """A heap sort makes a call for each node that has children, at least, and as many as it is high, at most."""
    for size, top in itertools.product((30, 100), (5, 10)):
        _, batches = carry_out(_spec("setwise", top=top), _worths(size), _best)
        nodes = math.ceil((size - 1) / 3)
        height = math.ceil(math.log(2 * size + 1, 3)) - 1
        assert nodes + top - 1 <= len(batches) <= nodes * 3 // 2 + (top - 1) * height
    _, batches = carry_out(_spec("setwise", method="bubble", top=1), list(range(100)), _best)
    assert len(batches) == 33  # one pass over 100 passages, three further ones at a time


def test_all_pairs_are_asked_both_ways_and_contradictions_are_ties() -> None:
    worth = [3, 9, 5, 1]
    outcome, batches = carry_out(_spec("pairwise"), worth, _best)
    assert outcome.order == (1, 2, 0, 3)
    assert outcome.scores == (1.0, 3.0, 2.0, 0.0)
    assert [len(batch) for batch in batches] == [12]
    always_first, _ = carry_out(_spec("pairwise"), worth, lambda _call, _worth: 0)
    assert always_first.scores == (1.5, 1.5, 1.5, 1.5)
    assert always_first.order == (0, 1, 2, 3)


@pytest.mark.parametrize("method", ["sorted", "sliding"])
def test_pairwise_sorting_brings_the_top_in_order(method: str) -> None:
    worth = _worths(30)
    outcome, batches = carry_out(_spec("pairwise", method=method, top=5), worth, _best)
    assert list(outcome.order[:5]) == _ranks(worth)[:5]
    assert not outcome.scores
    if method == "sliding":
        assert len(batches) == sum(29 - rank for rank in range(5))


def test_single_passages_are_scored_in_one_batch() -> None:
    worth = [2, 0, 3, 0]
    graded, batches = carry_out(_spec("graded"), worth, lambda _call, shown: shown[0])
    assert graded.scores == (2.0, 0.0, 3.0, 0.0)
    assert graded.order == (2, 0, 1, 3)  # equal grades keep the order that was given
    assert len(batches[0]) == 4
    pointwise, _ = carry_out(_spec("pointwise"), worth, lambda _call, shown: Preference(shown[0] - 1.5))
    assert pointwise.scores == (0.5, -1.5, 1.5, -1.5)


@pytest.mark.parametrize("kind", ["listwise", "first", "setwise", "pairwise", "pointwise", "graded"])
@pytest.mark.parametrize("size", [0, 1])
def test_one_passage_or_none_is_ranked_without_comparing_it(kind: str, size: int) -> None:
    outcome, batches = carry_out(
        _spec(kind), [1] * size, lambda call, _w: Preference(1) if call.kind == "pointwise" else 1
    )
    assert outcome.order == tuple(range(size))
    assert len(batches) == (1 if size and kind in {"pointwise", "graded"} else 0)


@given(st.lists(st.permutations(range(5)), min_size=1, max_size=5))
def test_kemeny_is_exact_for_few_items(orders: list[list[int]]) -> None:
    found = kemeny.merge(orders)
    best = min(kemeny.disagreement(order, orders) for order in itertools.permutations(range(5)))
    assert kemeny.disagreement(found, orders) == best


@given(st.lists(st.permutations(range(9)), min_size=2, max_size=5))
def test_no_single_move_improves_a_merged_order(orders: list[list[int]]) -> None:
    found = list(kemeny.merge(orders))
    least = kemeny.disagreement(found, orders)
    for item, place in itertools.product(range(9), range(9)):
        other = [entry for entry in found if entry != item]
        other.insert(place, item)
        assert kemeny.disagreement(other, orders) >= least


def test_rankings_are_merged_by_mean_reciprocal_ranks_and_kemeny() -> None:
    one = ordered({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    other = ordered({"q": {"b": 300.0, "a": 100.0, "c": 90.0}})
    assert fusion.merge([one, other], "mean")["q"] == ("b", "a", "c")
    rrf = fusion.merge([one, other], "rrf")
    assert rrf["q"] == ("a", "b", "c")
    assert rrf.scores("q")[0] == pytest.approx((1 / 61 + 1 / 62) / 2)
    third = Ranking({"q": ("c", "b", "a")}, {"q": (3.0, 2.0, 1.0)})
    assert fusion.merge([one, other, third], "kemeny")["q"] == ("b", "a", "c")
