"""What an experiment tracker is told of a run, and what it must do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import msgspec

from cerank.text.table_data import Table

Setting: TypeAlias = str | int | float | bool | None
Outcome = Literal["finished", "failed", "paused"]

PROJECT = "cerank"  # under which trackers file runs, unless the user names another project
LONGEST_SETTING = 500  # characters; MLflow refuses more than 6000, and no table shows more than these


class TrackedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as a tracker lists it."""

    key: str  # the run's id in its lab; a tracker that takes ids of others knows the run by it
    title: str
    recipe: str
    settings: dict[str, Setting]  # flat: keys such as "stages.distill.learning_rate"


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tracker keeps what it is sent."""

    project: str
    folder: Path  # of the lab, for trackers that write files; it exists
    is_offline: bool = False  # nothing may be sent anywhere, whatever the library is set up for
    tracker_id: str = ""  # that the tracker gave this run when it was first tracked


class MetricRow(msgspec.Struct, frozen=True):
    """Values of one step; their names have a stage first, such as "distill/loss"."""

    step: int  # over all stages of the run
    seconds: float  # when, since 1970
    values: dict[str, float]  # finite


class Tracker(Protocol):
    """One run in one tracker. Any call may raise whatever its library raises, and may block."""

    tracker_id: str  # under which the run is found there again
    where: str  # what the user is told: an address or a folder

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Send values; steps never fall."""

    def result(self, values: dict[str, float], tables: Sequence[Table], text: str) -> None:
        """Send final values, tables, and the verdict in Markdown."""

    def close(self, outcome: Outcome) -> None:
        """Return once everything is sent or written."""
