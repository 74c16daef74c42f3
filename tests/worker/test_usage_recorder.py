"""A run's record of what the machine was doing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.core.metrics import UsageRow
from cerank.files import journal, lease
from cerank.machine.system_usage import Machine
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
    rows: list[UsageRow] = journal.read(folder.usage, UsageRow)
    assert len(rows) == 3
    assert all(row.attempt == 2 and row.gpu is None for row in rows)
    assert all(row.memory_total and row.worker_memory for row in rows)  # this process holds the lease


def test_a_machine_that_cannot_be_sampled_ends_no_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such counter")

    monkeypatch.setattr(Machine, "sample", fails)
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.path.mkdir(parents=True)
    recorder = UsageRecorder(folder, 1, "cuda:1", lambda: datetime(2026, 11, 28, tzinfo=UTC), lambda: 0.0)
    recorder.record_if_due()
    recorder.close()
    assert journal.read(folder.usage, UsageRow) == []
