"""The curves of a run, read as they grow: columns on one axis over all stages, smoothed and thinned for drawing.

Invariant: a step stands once, as it was done last; reading takes in a piece at a time, so that whoever draws meanwhile
never waits long. NumPy is needed here, so the front imports this module only when a curve is asked for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cerank.core.metrics import StepMetrics, Validation
from cerank.files.journal import Tail
from cerank.runs.layout import ReadingRow, RunFolder

Floats: TypeAlias = NDArray[np.float64]
Quantity: TypeAlias = Literal["loss", "learning rate", "gradient norm", "pairs/s"]

QUANTITIES: tuple[Quantity, ...] = ("loss", "learning rate", "gradient norm", "pairs/s")
PIECE = 1 << 18  # bytes read at once: some 1300 rows, 2 ms in which no other thread moves
SMOOTHINGS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_BLOCK = 128  # steps smoothed by one matrix product


class Boundary(NamedTuple):
    """Where a stage begins on the axis of all steps."""

    at: int  # steps before it
    stage: int  # its index in the chain


class Columns(NamedTuple):
    """What a run's readings say; arrays (rows,), the axis strictly rising."""

    steps: Floats  # over all stages
    values: dict[Quantity, Floats]
    boundaries: tuple[Boundary, ...]
    validations: tuple[tuple[float, Validation], ...]  # with their place on the axis
    losses: dict[str, Floats]  # of stages that train several: each by name; NaN where it was not trained
    cosines: dict[str, Floats]  # "LOSS, LOSS" -> cosine of their gradients; NaN where it was not read


class Curves:
    """The readings of one run; `read` takes in what is new, in one thread at a time."""

    def __init__(self, folder: RunFolder) -> None:
        self._tail: Tail[ReadingRow] = Tail(folder.readings, ReadingRow)
        self._restarts = 0
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._table: Floats = np.empty((5, 1024))
        self._starts: list[int] = [0]
        self._more: dict[tuple[str, str], int] = {}  # ("losses" or "cosines", name) -> its row in the table
        self._validations: dict[tuple[int, int], Validation] = {}

    def read(self, seconds: float = 0.25) -> bool:
        """Take in new rows for about so long; whether there may be more."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            rows = self._tail.new(PIECE)
            if self._tail.restarts != self._restarts:
                self._restarts = self._tail.restarts
                self._clear()
            if not rows:
                return False
            self._take(rows)
            time.sleep(0)  # lets the thread that draws go first
        return True

    @property
    def damage(self) -> list[str]:
        """Return an error message for each row of the log that could not be read."""
        return self._tail.damage

    @property
    def columns(self) -> Columns:
        """Return everything read so far; later reads do not change it, unless steps are repeated."""
        table = self._table[:, : self._count]
        return Columns(
            steps=table[0],
            values=dict(zip(QUANTITIES, table[1:], strict=False)),
            boundaries=tuple(Boundary(at, stage) for stage, at in enumerate(self._starts)),
            validations=tuple(
                (float(self._starts[stage] + step), row)
                for (stage, step), row in sorted(self._validations.items())
                if stage < len(self._starts)
            ),
            losses={name: table[row] for (kind, name), row in self._more.items() if kind == "losses"},
            cosines={name: table[row] for (kind, name), row in self._more.items() if kind == "cosines"},
        )

    def _take(self, rows: Sequence[ReadingRow]) -> None:
        run: list[StepMetrics] = []
        for row in rows:
            if isinstance(row, Validation):
                self._flush(run)
                run = []
                self._enter(row.stage)
                self._validations[row.stage, row.step] = row
                continue
            if not row.groups:  # a filter left the step without an update: it has neither loss nor gradient
                continue
            if run and (row.stage != run[-1].stage or row.step <= run[-1].step):
                self._flush(run)
                run = []
            run.append(row)
        self._flush(run)

    def _flush(self, run: list[StepMetrics]) -> None:
        """Add readings of one stage with rising steps; drop what they replace."""
        if not run:
            return
        self._enter(run[0].stage)
        start = self._starts[run[0].stage]
        first = start + run[0].step
        if self._count and first <= self._table[0, self._count - 1]:
            self._cut(run[0].stage, first)
        size = self._count + len(run)
        new = dict.fromkeys(key for row in run for key in _more_of(row) if key not in self._more)
        if new:
            self._more |= {key: len(self._table) + place for place, key in enumerate(new)}
            self._table = np.vstack([self._table, np.full((len(new), self._table.shape[1]), np.nan)])
        if size > self._table.shape[1]:
            grown = np.empty((len(self._table), 2 * size))
            grown[:, : self._count] = self._table[:, : self._count]
            self._table = grown
        part = self._table[:, self._count : size]
        part[0] = [start + row.step for row in run]
        part[1] = [row.loss for row in run]
        part[2] = [row.learning_rate for row in run]
        part[3] = [row.grad_norm for row in run]
        part[4] = [row.pairs / row.seconds if row.seconds > 0 else np.nan for row in run]
        for key, place in self._more.items():
            part[place] = [_more_of(row).get(key, np.nan) for row in run]
        self._count = size

    def _enter(self, stage: int) -> None:
        """Continue the axis where the previous stage ended; a stage without metrics has no length."""
        while len(self._starts) <= stage:
            last = int(self._table[0, self._count - 1]) if self._count else 0
            self._starts.append(max(last, self._starts[-1]))

    def _cut(self, stage: int, first: int) -> None:
        """Drop everything from step `first` on, because the run repeats it from there."""
        self._count = int(np.searchsorted(self._table[0, : self._count], first))
        self._table = self._table.copy()  # whoever draws keeps the columns it was given
        del self._starts[stage + 1 :]
        step = first - self._starts[stage]
        self._validations = {key: row for key, row in self._validations.items() if key < (stage, step)}


def _more_of(row: StepMetrics) -> dict[tuple[str, str], float]:
    """Return what a step has beside the quantities of all steps, by kind and name."""
    losses = {("losses", name): value for name, value in row.parts.items()}
    return losses | {("cosines", name): value for name, value in row.cosines.items()}


def smoothed(values: Floats, weight: float, starts: Sequence[int] = ()) -> Floats:
    """Return the exponential moving average of the values, corrected for the bias of its start.

    Args:
        values: (n,), finite; where one is not, all after it in its stage are not.
        weight: weight of the past, at least 0 and below 1.
        starts: indexes in `values` at which the mean starts anew, such as the first step of each stage.
    """
    if not weight or not len(values):
        return values
    out = np.empty(len(values))
    edges = sorted({0, len(values), *(start for start in starts if 0 < start < len(values))})
    for low, high in itertools.pairwise(edges):
        out[low:high] = _exponential_mean(values[low:high], weight)
    return out


def _exponential_mean(values: Floats, weight: float) -> Floats:
    """Return blocks by one matrix product; only what passes from block to block is a loop."""
    count = len(values)
    blocks = -(-count // _BLOCK)
    padded = np.zeros(blocks * _BLOCK)
    padded[:count] = values
    powers = weight ** np.arange(_BLOCK + 1)
    past = np.arange(_BLOCK)[:, None] - np.arange(_BLOCK)[None, :]
    matrix = np.where(past >= 0, powers[np.maximum(past, 0)], 0.0) * (1 - weight)
    inside = padded.reshape(blocks, _BLOCK) @ matrix.T
    carried = np.empty(blocks)
    carry = 0.0
    for index, last in enumerate(inside[:, -1].tolist()):
        carried[index] = carry
        carry = last + float(powers[_BLOCK]) * carry
    inside += carried[:, None] * powers[1:]
    means: Floats = inside.reshape(-1)[:count]
    unbiased: Floats = means / (1 - weight ** np.arange(1, count + 1))
    return unbiased


def thinned(steps: Floats, values: Floats, low: float, high: float, count: int) -> tuple[Floats, Floats]:
    """Return the least and the largest value in each of `count` equal parts of [low, high]; NaN where nothing stands.

    Where points are farther apart than parts are wide, parts between two points lie on the line between them.

    Args:
        steps: (n,) positions on the axis, in rising order.
        values: (n,) the value at each position.
        low, high: the part of the axis that is drawn; high > low.
        count: number of parts, one for each column of dots.

    Returns:
        Two arrays (count,).
    """
    lows, highs = np.full(count, np.nan), np.full(count, np.nan)
    start = max(0, int(np.searchsorted(steps, low, "left")) - 1)  # one more on each side, so that lines leave the frame
    stop = int(np.searchsorted(steps, high, "right")) + 1
    steps, values = steps[start:stop], values[start:stop]
    is_there = np.isfinite(values)
    if not is_there.all():
        steps, values = steps[is_there], values[is_there]
    if not len(steps):
        return lows, highs
    width = (high - low) / count
    edges = low + width * np.arange(count + 1)
    centers = edges[:-1] + width / 2
    between = (centers >= steps[0] - width / 2) & (centers <= steps[-1] + width / 2)
    lows[between] = highs[between] = np.interp(centers[between], steps, values)
    firsts = np.searchsorted(steps, edges)
    firsts[-1] = np.searchsorted(steps, high, "right")
    parts = np.flatnonzero(firsts[1:] > firsts[:-1])
    if len(parts):
        values = values[: firsts[-1]]
        lows[parts] = np.minimum.reduceat(values, firsts[parts])
        highs[parts] = np.maximum.reduceat(values, firsts[parts])
    return lows, highs
