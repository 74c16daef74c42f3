"""The run's journals, and the audit that repeated steps are bit-identical."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from cerank.core.metrics import Event, Position, RankRow, Scoring
from cerank.files import journal, json_records
from cerank.files.journal import Journal
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.text.safe_text import redacted

_Key = tuple[str, int, int]


def _key(row: ReadingRow) -> _Key:
    return (type(row).__name__, row.stage, row.step)


def _reproducible_part(row: ReadingRow) -> ReadingRow:
    """Return the row without the fields that may differ between attempts."""
    return msgspec.structs.replace(row, seconds=0.0, attempt=0)


class RunLog:
    """Writes the events and metrics of one attempt; open it only while holding the run's lease."""

    def __init__(self, folder: RunFolder, attempt: int, now: Callable[[], datetime]) -> None:
        self.attempt, self._now = attempt, now
        self._events: Journal[Event] = Journal(folder.events, Event)
        self._readings: Journal[ReadingRow] = Journal(folder.readings, ReadingRow)
        self._scorings: Journal[Scoring] = Journal(folder.scorings, Scoring)
        self._rank_rows = folder.rank_rows
        before: list[ReadingRow] = journal.read(folder.readings, ReadingRow)
        self._before: dict[_Key, ReadingRow] = {_key(row): row for row in before}
        self.replayed = 0
        self.mismatches = 0

    def time(self) -> str:
        """Return the current time as records hold it."""
        return json_records.timestamp(self._now())

    def event(self, kind: str, text: str, position: Position | None = None) -> None:
        """Append an event; it survives a power cut at once."""
        text = redacted(text)
        self._events.append(Event(kind=kind, text=text, time=self.time(), attempt=self.attempt, position=position))
        self._events.sync()

    def write_metrics(self, row: ReadingRow) -> None:
        """Append a row of metrics, or compare it with the row of an earlier attempt; a difference becomes an event."""
        row = msgspec.structs.replace(row, attempt=self.attempt)
        old = self._before.pop(_key(row), None)
        if old is None:
            self._readings.append(row)
            return
        self.replayed += 1
        if _reproducible_part(old) != _reproducible_part(row):
            self.mismatches += 1
            self._readings.append(row)
            what = f"step {row.step} gave {_reproducible_part(row)} and before {_reproducible_part(old)}"
            self.event("replay mismatch", what, Position(row.stage, row.step))

    def write_scoring(self, row: Scoring) -> None:
        """Add what re-ranking a chunk of queries took."""
        self._scorings.append(msgspec.structs.replace(row, attempt=self.attempt))

    def write_ranks(self, rows: Sequence[RankRow]) -> None:
        """Add what the processes of the run did since the last validation."""
        with Journal(self._rank_rows, RankRow) as journal_of_ranks:
            for row in rows:
                journal_of_ranks.append(msgspec.structs.replace(row, attempt=self.attempt))

    def sync(self) -> None:
        """Return once all readings survive a power cut."""
        self._readings.sync()

    def sync_if_due(self) -> None:
        """Sync if the newest rows have waited long enough; any thread may call this every 2 seconds."""
        self._readings.sync_if_due()

    def close(self) -> None:
        """Sync and close all journals."""
        self._readings.close()
        self._scorings.close()
        self._events.close()
