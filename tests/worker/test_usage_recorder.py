"""A run's record of what the machine was doing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cerank.core.metrics import Usage
from cerank.files import journal, lease
from cerank.runs.layout import RunFolder
from cerank.worker.usage_recorder import INTERVAL, UsageRecorder


def test_a_row_is_written_every_15_seconds_with_the_worker_in_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.path.mkdir(parents=True)
    seconds = [0.0]
    held = lease.Lease.take(folder.lease)
    recorder = UsageRecorder(folder, 2, "cpu", lambda: datetime(2026, 11, 28, tzinfo=UTC), lambda: seconds[0])
    for at in (0.0, 1.0, INTERVAL - 0.1, INTERVAL, INTERVAL + 1.0, 2 * INTERVAL):
        seconds[0] = at
        recorder.record_if_due()
    recorder.close()
    held.release()
    rows: list[Usage] = journal.read(folder.usage, Usage)
    assert len(rows) == 3
    assert all(row.attempt == 2 and row.gpu is None for row in rows)
    assert all(row.memory_total and row.worker_memory for row in rows)  # this process holds the lease
