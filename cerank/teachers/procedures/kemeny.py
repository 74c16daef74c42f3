"""Kemeny's rule: the order that disagrees least with several orders, counted in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_EXACT = 7  # items up to which every order is tried: 5,040


def disagreement(order: Sequence[int], orders: Sequence[Sequence[int]]) -> int:
    """Return the number of pairs that `order` ranks differently from each of the `orders`, summed over them."""
    above = _times_above(orders)
    return sum(above[low][high] for high, low in itertools.combinations(order, 2))


def merge(orders: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return an order of the same items with the least disagreement that was found.

    Up to seven items it is exact. Beyond that, it starts from Borda's order and moves single items to better places
    until no move helps; each result is as good as any order one move away, and never worse than Borda's. Ties fall to
    the order given first.

    Args:
        orders: at least one, each of the numbers from 0 to n - 1.
    """
    first = list(orders[0])
    if len(orders) == 1:
        return tuple(first)
    rank = {item: place for place, item in enumerate(first)}
    above = _times_above(orders)
    places = {item: sum(order.index(item) for order in orders) for item in first}
    order = sorted(first, key=lambda item: (places[item], rank[item]))
    if len(order) <= _EXACT:
        return min(
            itertools.permutations(order),
            key=lambda candidate: (disagreement(candidate, orders), [rank[item] for item in candidate]),
        )
    return tuple(_improved(order, above))


def _improved(order: list[int], above: Sequence[Sequence[int]]) -> list[int]:
    """Return `order` with single items moved as long as that lowers the disagreement."""
    is_better = True
    while is_better:
        is_better = False
        for item in list(order):
            at = order.index(item)
            best, gain, change = at, 0, 0
            for place in range(at - 1, -1, -1):  # upwards: what it passes is then below it
                other = order[place]
                change += above[other][item] - above[item][other]
                if change < gain:
                    best, gain = place, change
            change = 0
            for place in range(at + 1, len(order)):
                other = order[place]
                change += above[item][other] - above[other][item]
                if change < gain:
                    best, gain = place, change
            if best != at:
                order.insert(best, order.pop(at))
                is_better = True
    return order


def _times_above(orders: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return, for each pair, in how many orders the first is above the second."""
    size = len(orders[0])
    above = [[0] * size for _ in range(size)]
    for order in orders:
        for high, low in itertools.combinations(order, 2):
            above[high][low] += 1
    return above
