"""Watching a run from outside: what its files newly say, and each poll reads only what was added."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.files.journal import Tail
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.run_store import Status


class RunUpdate(msgspec.Struct, frozen=True):
    """What happened in a run since the last poll."""

    status: Status
    readings: tuple[StepMetrics, ...]
    validations: tuple[Validation, ...]
    events: tuple[Event, ...]


class Follower:
    """Follows one run; any number may, in any process, without disturbing its worker."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._readings: Tail[ReadingRow] = Tail(folder.readings, ReadingRow)
        self._events: Tail[Event] = Tail(folder.events, Event)

    def poll(self) -> RunUpdate:
        """Return the status now, and the rows since the last poll.

        The status is read first, so none of its rows is missed.
        """
        status = run_store.status(self.folder, datetime.now(UTC))
        rows = self._readings.new()
        return RunUpdate(
            status=status,
            readings=tuple(row for row in rows if isinstance(row, StepMetrics)),
            validations=tuple(row for row in rows if isinstance(row, Validation)),
            events=tuple(self._events.new()),
        )
