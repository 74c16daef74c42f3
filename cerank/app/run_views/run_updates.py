"""Following one run: its new metrics and events, and its log as lines; each poll reads only what was added."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.files.journal import Tail
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.run_store import Status
from cerank.runs.run_summaries import LogTail

LONGEST = 2000  # characters of a line of a log; the file has it whole


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


class LogFollower:
    """Follows the events and the output of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self._events: Tail[Event] = Tail(folder.events, Event)
        self._text = LogTail(folder.log)

    def poll(self) -> list[str]:
        """Return the new lines, events before output."""
        lines = [f"{event.time[11:19]} [{event.attempt}] {event.kind}: {event.text}" for event in self._events.new()]
        return lines + [_clipped(line) for line in self._text.new()]


def _clipped(line: str) -> str:
    """Return a line as a terminal shows it after control characters.

    A bar of progress is written over itself, and only its last state stands.
    """
    last = line.rstrip("\r").rpartition("\r")[2]
    return last[:LONGEST] + ("…" if len(last) > LONGEST else "")
