"""How far rankings and grades agree: Kendall's tau, rank-biased overlap, Cohen's kappa, AP correlation.

Invariant: pure functions of lists.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def kendall_tau(left: Sequence[T], other: Sequence[T]) -> float:
    """Return Kendall's tau of two orders of the same items: 1 for equal, -1 for reversed; 1 for fewer than two."""
    place = {item: rank for rank, item in enumerate(other)}
    pairs = list(itertools.combinations([place[item] for item in left], 2))
    return 1.0 - 2.0 * sum(high > low for high, low in pairs) / len(pairs) if pairs else 1.0


def tau_ap(order: Sequence[T], truth: Sequence[T]) -> float:
    """Return the AP correlation of an order with the true one (Yilmaz et al. 2008): errors at the top weigh more."""
    place = {item: rank for rank, item in enumerate(truth)}
    ranks = [place[item] for item in order]
    if len(ranks) < 2:
        return 1.0
    correct = (sum(above < ranks[at] for above in ranks[:at]) / at for at in range(1, len(ranks)))
    return 2.0 * math.fsum(correct) / (len(ranks) - 1) - 1.0


def rank_biased_overlap(left: Sequence[T], other: Sequence[T]) -> float:
    """Return rank-biased overlap, extrapolated from the shorter list's depth (Webber et al. 2010): 0 to 1."""
    persistence = 0.9
    depth = min(len(left), len(other))
    if not depth:
        return 0.0
    seen_one: set[T] = set()
    seen_other: set[T] = set()
    total = 0.0
    overlap = 0
    for rank in range(1, depth + 1):
        seen_one.add(left[rank - 1])
        seen_other.add(other[rank - 1])
        overlap = len(seen_one & seen_other)
        total += overlap / rank * persistence**rank
    return overlap / depth * persistence**depth + (1 - persistence) / persistence * total


def kappa(pairs: Sequence[tuple[int, int]], *, weighted: bool = False) -> float | None:
    """Return Cohen's kappa of two judges' grades; with quadratic weights, near misses count less. None if undefined."""
    if not pairs:
        return None
    grades = sorted({grade for pair in pairs for grade in pair})
    spread = (grades[-1] - grades[0]) or 1
    count = len(pairs)
    left, right = Counter(first for first, _ in pairs), Counter(other for _, other in pairs)

    def cost(first: int, other: int) -> float:
        return ((first - other) / spread) ** 2 if weighted else float(first != other)

    seen = math.fsum(cost(first, other) for first, other in pairs) / count
    expected = math.fsum(
        cost(first, other) * left[first] * right[other] for first, other in itertools.product(grades, grades)
    ) / (count * count)
    return 1.0 - seen / expected if expected else None
