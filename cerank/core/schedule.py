"""The learning rate as a pure function of the step, so that a resume needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["constant", "linear", "cosine"]


def learning_rate(schedule: ScheduleName, step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Return the learning rate for `step` in 1..`steps`.

    It rises linearly to `peak` over the first `warmup` (a share of all steps, in [0, 1)), then stays, falls linearly
    to nearly 0, or follows half a cosine. The last step of a falling schedule is small, never 0: every step changes the
    weights.
    """
    rising = round(warmup * steps)
    if step <= rising:
        return peak * step / rising
    if schedule == "constant":
        return peak
    left = (steps - step + 1) / (steps - rising + 1)
    return peak * left if schedule == "linear" else peak * 0.5 * (1.0 - math.cos(math.pi * left))
