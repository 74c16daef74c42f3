"""The largest and the smallest t of differences of which each is known only within limits.

Invariant: what is certified here holds for every choice of differences within the limits; a search that finds no
counterexample is never taken for a proof.

With n differences and a critical value c, t >= c means a positive mean and Q <= k S^2, where S is the sum, Q the sum of
squares and k = (n - 1 + c^2) / (n c^2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_STEPS = 200  # of a search by thirds: it leaves (2/3)^200 of the width
_SLACK = 1e-9


def t_of(d: Floats, shift: float = 0.0) -> float:
    """Return the t of differences against `shift`; infinite where they have no spread, 0 where all equal it."""
    mean, sd = float(d.mean()) - shift, float(d.std(ddof=1))
    if sd <= 1e-12:
        return math.copysign(math.inf, mean) if abs(mean) > 1e-12 else 0.0
    return mean / (sd / math.sqrt(d.size))


def is_always_reached(low: Floats, high: Floats, critical: float) -> bool:
    """Return whether t >= `critical` is proven for all differences within the limits; False may mean not proven.

    For any s, Q - k S^2 <= sum of (d^2 - 2 k s d) + k s^2, whose largest value can be read off query by query: if that
    is not positive for some s, no choice of differences brings t below the critical value (a Lagrangian bound).
    """
    import numpy as np

    n = low.size
    if float(low.sum()) <= 0 or critical <= 0:
        return False
    k = (n - 1 + critical**2) / (n * critical**2)

    def bound(s: float) -> float:
        ends = np.maximum(low**2 - 2 * k * s * low, high**2 - 2 * k * s * high)
        return float(ends.sum()) + k * s * s

    left, right = float(low.sum()), float(high.sum())
    for _ in range(_STEPS):  # the bound is convex in s
        third = (right - left) / 3
        if bound(left + third) <= bound(right - third):
            right -= third
        else:
            left += third
    return bound((left + right) / 2) <= 0


def largest_t(low: Floats, high: Floats) -> float:
    """Return the largest t that differences within the limits can have; infinite where all could be one positive value.

    For a given sum the sum of squares is smallest where every difference is one value as far as its limits allow, so
    only those choices are looked at; t has a single peak along them.
    """
    import numpy as np

    if float(high.sum()) <= 0:
        return t_of(high)
    if float(low.max()) <= float(high.min()) and float(high.min()) > 0:
        return math.inf

    def t_at(value: float) -> float:
        return t_of(np.clip(value, low, high))

    steps = np.unique(np.concatenate([low, high]))
    values = np.array([t_at(float(step)) for step in steps])
    best = float(values.max())
    peaks = np.flatnonzero(values >= best - 1e-9)  # several where no limit lies between two steps
    for at in range(max(int(peaks[0]) - 1, 0), min(int(peaks[-1]) + 1, steps.size - 1)):
        left, right = float(steps[at]), float(steps[at + 1])
        for _ in range(_STEPS):
            third = (right - left) / 3
            if t_at(left + third) < t_at(right - third):
                left += third
            else:
                right -= third
        best = max(best, t_at((left + right) / 2))
    return best


def is_never_reached(low: Floats, high: Floats, critical: float) -> bool:
    """Return whether no differences within the limits have t >= `critical`."""
    return largest_t(low, high) < critical - _SLACK
