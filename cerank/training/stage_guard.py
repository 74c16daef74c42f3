"""Notice while a stage trains that it teaches nothing: scores that collapsed to one value, a loss that does not move.

Invariant: it only looks; neither weights nor what is stored of a stage depend on it.
"""

from __future__ import annotations

import math
from collections import deque

from cerank.recipes.schema import Stage

WINDOW = 8  # steps in a row that must show it: one batch may hold easy groups alone

COLLAPSED, STILL = "scores collapsed", "loss does not move"  # kinds of the events
HINTS = {
    COLLAPSED: (
        "the model no longer tells documents apart: try a lower learning_rate, a longer warmup, or another seed, and "
        "look at the texts (`cerank data check`)"
    ),
    STILL: (
        "the groups give nothing to learn from: try other negatives or a larger window, a higher learning_rate, or "
        "fewer frozen layers"
    ),
}


class StageGuard:
    """Watches the steps of a stage; `look` is called after each.

    Args:
        stage: the stage, with its limits.
        steps: steps of the stage.
        warned: kinds that an earlier attempt at the run warned of already.
    """

    def __init__(self, stage: Stage, steps: int, warned: frozenset[str] = frozenset()) -> None:
        self._stage = stage
        self._first = max(WINDOW, math.ceil(stage.warn_after * steps))
        self._spreads: deque[float] = deque(maxlen=WINDOW)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self.warned = set(warned)

    def look(self, step: int, loss: float, spread: float) -> dict[str, str]:
        """Return what is to be warned of after a step for the first time: kind of the event -> what was seen."""
        self._losses.append(loss)
        self._spreads.append(spread)
        new = (
            {kind: what for kind, what in self.now().items() if kind not in self.warned} if step >= self._first else {}
        )
        self.warned |= new.keys()
        return new

    def now(self) -> dict[str, str]:
        """Return what the last steps show: kind of the event -> what was seen; empty for a stage that learns."""
        if len(self._losses) < WINDOW:
            return {}
        seen = {}
        spread, low, high = max(self._spreads), min(self._losses), max(self._losses)
        if spread < self._stage.least_spread:
            seen[COLLAPSED] = (
                f"in the last {WINDOW} steps the scores of no group differed by more than {spread:.1e} "
                f"(least_spread = {self._stage.least_spread:g})"
            )
        mean = math.fsum(self._losses) / WINDOW
        if self._stage.least_loss_change and high - low <= self._stage.least_loss_change * abs(mean):
            seen[STILL] = (
                f"in the last {WINDOW} steps the loss stayed between {low:.6g} and {high:.6g} "
                f"(least_loss_change = {self._stage.least_loss_change:g})"
            )
        return seen
