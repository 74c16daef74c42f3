"""A run's log as lines: what happened to it, and what its worker wrote; each look reads only what was added."""

from __future__ import annotations

from cerank.core.metrics import Event
from cerank.files.journal import Tail
from cerank.runs.layout import RunFolder
from cerank.runs.run_summaries import LogTail

LONGEST = 2000  # characters of a line; the file has it whole


class Log:
    """Follows the events and the output of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self._events: Tail[Event] = Tail(folder.events, Event)
        self._text = LogTail(folder.log)

    def look(self) -> list[str]:
        """Return the new lines, events before output."""
        lines = [f"{event.time[11:19]} [{event.attempt}] {event.kind}: {event.text}" for event in self._events.new()]
        return lines + [_clipped(line) for line in self._text.new()]


def _clipped(line: str) -> str:
    """Return a line as a terminal shows it after control characters.

    A bar of progress is written over itself, and only its last state stands.
    """
    last = line.rstrip("\r").rpartition("\r")[2]
    return last[:LONGEST] + ("…" if len(last) > LONGEST else "")
