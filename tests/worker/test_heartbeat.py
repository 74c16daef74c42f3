"""The sign of life: what it says of progress."""

from __future__ import annotations

from datetime import UTC, datetime

from cerank.core.metrics import Progress
from cerank.files import json_records
from cerank.worker.heartbeat import Heartbeat


def test_the_time_left_counts_only_what_this_attempt_did(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("cerank.worker.heartbeat.time.monotonic", lambda: clock[0])
    beat = Heartbeat(tmp_path / "progress.json", 1, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    beat.enter("train", "distill", total=200, done=100)
    for _ in range(10):
        clock[0] += 1.0
        beat.advance(1, pairs=32)
    beat.start()
    beat.stop()
    found = json_records.load(tmp_path / "progress.json", Progress)
    assert (found.phase, found.done, found.total) == ("train", 110, 200)
    assert found.seconds_left == 90.0
    assert found.pairs_per_second == 32.0


def test_it_outlives_a_folder_that_is_gone(tmp_path):
    beat = Heartbeat(tmp_path / "gone" / "progress.json", 1, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    beat.start()
    beat.stop()
    assert not (tmp_path / "gone").exists()
