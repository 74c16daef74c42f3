"""Setwise and pairwise teachers: sorting by the model's choices among a few passages.

The sorting is that of llm-rankers (Zhuang et al. 2024, Qin et al. 2024). Two things differ: an answer that chooses
nothing fails the query, where llm-rankers takes it for "A"; and no call shows fewer than two passages.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence

from cerank.teachers.answer_store import Call
from cerank.teachers.procedures.steps import Asker, Outcome, PromptedQuery, Steps
from cerank.teachers.reading import Value

_OUTPUT = 16  # tokens: "Passage B" and some more
_EXPECTED = 3
_Best = Generator[list[Call], Sequence[Value], int]  # returns which of several passages is best
_Sorting = Generator[list[Call], Sequence[Value], list[int]]  # returns places, sorted


def rank_setwise(query: PromptedQuery, asker: Asker) -> Steps:
    """Sort the first `top` ranks by choosing the best of `children` + 1 passages at a time."""
    order = list(range(len(query.passages)))
    if len(order) > 1:
        if asker.spec.sorting_method == "heap":
            order = yield from _heap_sort(query, asker, order, _heapify, asker.spec.children)
        else:
            order = yield from _bubble_sort(query, asker, order)
    return Outcome(_head_then_rest(order, min(asker.spec.top, len(order))))


def _choose(query: PromptedQuery, asker: Asker, places: Sequence[int]) -> _Best:
    (value,) = yield [asker.call(query, places, _OUTPUT, _EXPECTED)]
    if not isinstance(value, int):
        raise TypeError(f"a choice is a place, not {value!r}")
    return value


def _heapify(query: PromptedQuery, asker: Asker, heap: list[int], size: int, root: int) -> _Sorting:
    """Move the passage at `root` down until none of its children is better."""
    while (first := asker.spec.children * root + 1) < size:
        at = [root, *range(first, min(first + asker.spec.children, size))]
        best = at[(yield from _choose(query, asker, [heap[place] for place in at]))]
        if best == root:
            break
        heap[root], heap[best] = heap[best], heap[root]
        root = best
    return heap


def _heap_sort(
    query: PromptedQuery,
    asker: Asker,
    heap: list[int],
    heapify: Callable[[PromptedQuery, Asker, list[int], int, int], _Sorting],
    children: int,
) -> _Sorting:
    """Sort the best passages to the front; `heapify` asks which of a passage and its `children` is best."""
    size = len(heap)
    for root in range(size // children, -1, -1):
        yield from heapify(query, asker, heap, size, root)
    for ranked, last in enumerate(range(size - 1, 0, -1), 1):
        heap[last], heap[0] = heap[0], heap[last]
        if ranked == asker.spec.top:
            break
        yield from heapify(query, asker, heap, last, 0)
    return heap[::-1]


def _bubble_sort(query: PromptedQuery, asker: Asker, order: list[int]) -> _Sorting:
    """Bring the best of the rest to each rank, from the end of the list; begin further up where nothing moved."""
    children = asker.spec.children
    begin = len(order) - (children + 1)
    for rank in range(min(asker.spec.top, len(order) - 1)):
        begin = max(begin, rank)
        start, end, has_changed = begin, begin + children + 1, False
        while True:
            start = max(start, rank)
            shown = order[start:end]
            best = (yield from _choose(query, asker, shown)) if len(shown) > 1 else 0
            if best:
                order[start], order[start + best] = order[start + best], order[start]
                if not has_changed:
                    has_changed = True
                    if begin != len(order) - (children + 1) and best == len(shown) - 1:
                        begin += len(shown) - 1
            if start == rank:
                break
            if not has_changed:
                begin -= children
            start, end = start - children, end - children
    return order


def rank_pairwise(query: PromptedQuery, asker: Asker) -> Steps:
    """Rank by comparing two passages at a time, each pair in both orders; a contradiction is a tie."""
    places = list(range(len(query.passages)))
    if asker.spec.sorting_method == "all":
        return (yield from _all_pairs(query, asker))
    if len(places) > 1:
        if asker.spec.sorting_method == "sorted":
            places = yield from _heap_sort(query, asker, places, _pairwise_heapify, 2)
        else:
            places = yield from _sliding(query, asker, places)
    return Outcome(_head_then_rest(places, min(asker.spec.top, len(places))))


def _all_pairs(query: PromptedQuery, asker: Asker) -> Steps:
    """Ask every pair in both orders; a passage's score is its wins, a tie half a win."""
    pairs = list(itertools.combinations(range(len(query.passages)), 2))
    both_ways = [places for first, other in pairs for places in ((first, other), (other, first))]
    calls = [asker.call(query, places, _OUTPUT, _EXPECTED) for places in both_ways]
    answers = (yield calls) if calls else []
    wins = [0.0] * len(query.passages)
    for number, (first, other) in enumerate(pairs):
        share = _share_of_first(answers[2 * number], answers[2 * number + 1])
        wins[first] += share
        wins[other] += 1.0 - share
    order = sorted(range(len(wins)), key=lambda place: (-wins[place], place))
    return Outcome(tuple(order), tuple(wins))


def _share_of_first(given: Value, turned: Value) -> float:
    """Return 1 if both answers prefer the first passage, 0 if both the second, .5 if they contradict each other."""
    if (given, turned) == (0, 1):
        return 1.0
    return 0.0 if (given, turned) == (1, 0) else 0.5


def _is_better(
    query: PromptedQuery, asker: Asker, first: int, other: int
) -> Generator[list[Call], Sequence[Value], bool]:
    calls = [asker.call(query, places, _OUTPUT, _EXPECTED) for places in ((first, other), (other, first))]
    given, turned = yield calls
    return _share_of_first(given, turned) == 1.0


def _pairwise_heapify(query: PromptedQuery, asker: Asker, heap: list[int], size: int, root: int) -> _Sorting:
    while True:
        best = root
        for child in (2 * root + 1, 2 * root + 2):
            if child < size and (yield from _is_better(query, asker, heap[child], heap[best])):
                best = child
        if best == root:
            return heap
        heap[root], heap[best] = heap[best], heap[root]
        root = best


def _sliding(query: PromptedQuery, asker: Asker, order: list[int]) -> _Sorting:
    """Let the better of two neighbors go up, from the end to the start, once for each rank that is sorted."""
    for rank in range(min(asker.spec.top, len(order) - 1)):
        for place in range(len(order) - 1, rank, -1):
            if (yield from _is_better(query, asker, order[place], order[place - 1])):
                order[place - 1], order[place] = order[place], order[place - 1]
    return order


def _head_then_rest(order: Sequence[int], top: int) -> tuple[int, ...]:
    """Return the sorted head, then the others in the order that was given: only the head was sorted."""
    head = list(order[:top])
    return (*head, *sorted(set(order) - set(head)))
