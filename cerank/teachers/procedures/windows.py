"""Listwise and FIRST teachers: windows that move from the end of the list to its start."""

from __future__ import annotations

import random
from collections.abc import Iterator

from cerank.core.seeds import derive
from cerank.teachers.parsing.choices import Order
from cerank.teachers.parsing.permutations import Permutation
from cerank.teachers.procedures.kemeny import merge
from cerank.teachers.procedures.steps import Asker, Outcome, PromptedQuery, Steps

_TOKENS_OF_A_NUMBER = 8  # "[12] > " has 5 or 6 in tokenizers of today


def windows(size: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each window over `size` passages, the last first.

    As in rank_llm, the first window is clamped to the start of the list, and the last to reach it ends the pass;
    RankGPT's own loop drops a head that is shorter than a stride.
    """
    end, start = size, size - window
    while end > 0:
        yield max(start, 0), end
        if start <= 0:
            return
        start, end = start - stride, end - stride


def rank_by_windows(query: PromptedQuery, asker: Asker) -> Steps:
    """Rank a query's candidates by sliding windows, `passes` times."""
    spec = asker.spec
    order = list(range(len(query.passages)))
    for _ in range(spec.passes):
        for start, end in windows(len(order), spec.window, spec.stride):
            size = end - start
            if size < 2:
                continue
            reads_tokens = spec.kind == "first"
            output = 2 if reads_tokens else _TOKENS_OF_A_NUMBER * size + 32
            expected = 1 if reads_tokens else 5 * size
            (value,) = yield [asker.call(query, order[start:end], output, expected)]
            if not isinstance(value, Permutation | Order):
                raise TypeError(f"a window is answered by an order, not by {value!r}")
            order[start:end] = [order[start + place] for place in value.order]
    return Outcome(tuple(order))


def rank_by_shuffled_windows(query: PromptedQuery, asker: Asker) -> Steps:
    """Rank several shuffles of the list and merge them (permutation self-consistency, Tang et al. 2024).

    The first list is the one that was given; the others depend on the query's id alone.
    """
    orders = []
    for number in range(asker.spec.shuffles):
        places = list(range(len(query.passages)))
        if number:
            random.Random(derive(number, "shuffle", query.id)).shuffle(places)
        shuffled = PromptedQuery(query.id, query.text, tuple(query.passages[place] for place in places))
        outcome = yield from rank_by_windows(shuffled, asker)
        orders.append(tuple(places[place] for place in outcome.order))
    return Outcome(merge(orders))
