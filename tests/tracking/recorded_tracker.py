"""A tracker that keeps what it is sent, for tests; it may be told to fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cerank.tracking.tracker import MetricRow


class RecordedTracker:
    """Keeps rows, result and outcome."""

    tracker_id, where = "recorded-1", "memory"

    def __init__(self, before_log: Callable[[], None] = lambda: None) -> None:
        self.rows: list[MetricRow] = []
        self.results: list[tuple] = []
        self.outcomes: list[str] = []
        self.before_log = before_log

    def log(self, rows: Sequence[MetricRow]) -> None:
        self.before_log()
        self.rows += rows

    def result(self, *result) -> None:
        self.results.append(result)

    def close(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def steps_of(self, name: str) -> list[int]:
        """The steps at which a value was sent."""
        return [row.step for row in self.rows if name in row.values]
