"""How far a run is and how long it still takes, from the expected seconds of its parts, corrected by what they took.

Invariant: the time left that is shown rises by at most 2 % from one call to the next, and is 0 once everything is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

RISE = 1.02  # the largest factor by which the time left may grow between two calls
_SMOOTHING = 12.0  # seconds in which the shown time comes two thirds nearer to the expected one
_TRUST = 0.05  # fraction of a kind's expected seconds after which observed times weigh as much as the expectation


class ProgressPart(msgspec.Struct, frozen=True):
    """A part of a run that takes time."""

    phase: str  # as `Progress.phase`
    detail: str  # as `Progress.detail`
    order: int  # when a part begins, all parts of a lower order are over
    kind: str  # parts of one kind are expected wrongly by the same factor
    seconds: float  # expected
    times: int = 1  # that its phase is entered


class ProgressEstimator:
    """The parts of a run, how far each is, and what they took.

    Args:
        parts: the parts of the run, in any order.
        now: the time at the start, in seconds of a monotonic clock.
    """

    def __init__(self, parts: Sequence[ProgressPart], now: float) -> None:
        self._parts = {(part.phase, part.detail): part for part in parts}
        self._done = dict.fromkeys(self._parts, 0.0)  # shares, 0 to 1
        self._expected: dict[str, float] = {}  # seconds of what was observed
        self._observed: dict[str, float] = {}
        self._at: tuple[str, str] | None = None
        self._total = 0  # units of the phase at work
        self._since = now  # when the newest unit ended
        self._shown: float | None = None
        self._last_check = now
        self._share = 0.0

    @property
    def seconds(self) -> float:
        """Return the expected seconds of all parts."""
        return sum(part.seconds for part in self._parts.values())

    @property
    def left(self) -> float:
        """Return the expected seconds of what is not done yet."""
        return sum(part.seconds * (1.0 - self._done[key]) for key, part in self._parts.items())

    def mark_done(self, *names: str) -> None:
        """Mark parts as done before this attempt, each named by its phase and detail."""
        for phase, detail in self._done:
            if f"{phase} {detail}" in names:
                self._done[phase, detail] = 1.0

    def enter(self, phase: str, detail: str, total: int, done: int, now: float) -> None:
        """Begin a phase of `total` units, of which `done` were done before."""
        key = (phase, detail)
        self._at, self._total, self._since = (key if key in self._parts else None), total, now
        if self._at is None:
            return
        part = self._parts[key]
        for other in self._parts.values():
            if other.order < part.order:
                self._done[other.phase, other.detail] = 1.0
        if total and part.times == 1:
            self._done[key] = max(self._done[key], done / total)
        for other in self._parts.values():  # validations run during the training of their stage
            if other.order == part.order and other.times > 1 and phase != other.phase and total:
                over = math.floor(done / total * other.times) / other.times
                self._done[other.phase, other.detail] = max(self._done[other.phase, other.detail], over)

    def advance(self, units: int, now: float) -> None:
        """Count `units` more of the current phase as done."""
        if self._at is None or not self._total:
            return
        part = self._parts[self._at]
        share = units / self._total / part.times
        self._done[self._at] = min(1.0, self._done[self._at] + share)
        self._expected[part.kind] = self._expected.get(part.kind, 0.0) + share * part.seconds
        self._observed[part.kind] = self._observed.get(part.kind, 0.0) + max(0.0, now - self._since)
        self._since = now

    def complete(self) -> None:
        """Mark the whole run as done."""
        self._done = dict.fromkeys(self._parts, 1.0)
        self._shown, self._share = 0.0, 1.0

    def estimate(self, now: float) -> tuple[float, float]:
        """Return (fraction of the run that is done, seconds left), smoothed since the last call."""
        factors = {part.kind: self._factor(part.kind) for part in self._parts.values()}
        spent = sum(part.seconds * factors[part.kind] * self._done[key] for key, part in self._parts.items())
        left = sum(part.seconds * factors[part.kind] * (1.0 - self._done[key]) for key, part in self._parts.items())
        if self._at is not None and self._total:  # the unit at work is as far as its time says, but not over
            part = self._parts[self._at]
            share = min(1.0 - self._done[self._at], 1.0 / self._total / part.times)
            under_way = min(max(0.0, now - self._since), 0.95 * share * part.seconds * factors[part.kind])
            spent, left = spent + under_way, left - under_way
        passed, self._last_check = max(0.0, now - self._last_check), now
        if self._shown is None:
            self._shown = left
        else:
            expected = max(0.0, self._shown - passed)
            moved = expected + (1.0 - math.exp(-passed / _SMOOTHING)) * (left - expected)
            self._shown = min(moved, self._shown * RISE)
        if left <= 0.0:
            self._shown = 0.0
        share = spent / (spent + self._shown) if spent + self._shown > 0 else 1.0
        self._share = max(self._share, min(share, 1.0))
        return self._share, self._shown

    def _factor(self, kind: str) -> float:
        """Return the actual time of parts of a kind divided by their expected time."""
        expected = sum(part.seconds for part in self._parts.values() if part.kind == kind)
        prior = max(1.0, _TRUST * expected)
        return (self._observed.get(kind, 0.0) + prior) / (self._expected.get(kind, 0.0) + prior)
