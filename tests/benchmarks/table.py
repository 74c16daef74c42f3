"""Lines of the benchmark's table, and what stands in them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from cerank.bench.interleaved_rounds import TaskResponse


class Row(msgspec.Struct, frozen=True):
    """One line: what, its goal, what was measured, and whether the goal is held (None: no goal, or not measured)."""

    what: str
    goal: str
    measured: str
    is_held: bool | None = None

    @property
    def verdict(self) -> str:
        """The last column."""
        if not self.goal:
            return ""
        return {True: "held", False: "**missed**", None: "not measured"}[self.is_held]


def spread(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """Median [lowest, highest]."""
    return f"{statistics.median(values):{form}}{unit} [{min(values):{form}}, {max(values):{form}}]"


def rates(answers: Sequence[TaskResponse]) -> str:
    """Pairs a second over turns."""
    return f"{spread([answer.rate for answer in answers], '.1f')} pairs/s"


def ratio(what: str, own: Sequence[TaskResponse], peer: Sequence[TaskResponse], goal: float, why_not: str) -> Row:
    """So many times the peer's rate, within each turn; `why_not` is said where one of them lacks turns."""
    wanted = f">= {goal:g}x" if goal else ""
    if not own or len(own) != len(peer):
        return Row(what, wanted, why_not or "not measured")
    ratios = [left.rate / right.rate for left, right in zip(own, peer, strict=True)]
    is_held = statistics.median(ratios) >= goal if goal else None
    return Row(what, wanted, spread(ratios, unit="x"), is_held)


def printed(rows: Sequence[Row]) -> str:
    """Goals with their verdicts, then the other figures, as tables of Markdown."""
    goals = [f"| {row.what} | {row.goal} | {row.measured} | {row.verdict} |" for row in rows if row.goal]
    rest = [f"| {row.what} | {row.measured} |" for row in rows if not row.goal]
    lines = ["| | goal | measured: median [lowest, highest] of turns | |", "|---|---|---|---|", *goals] if goals else []
    return "\n".join([*lines, "", "| figure | measured |", "|---|---|", *rest] if rest else lines)
