"""Trackers of queued and submitted runs start as each run begins, and none is waited for in vain."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.app.tracking import track_run, waiting_trackers
from cerank.app.tracking.tracking_process import TrackingRequest
from cerank.files import json_records
from cerank.files.lease import Lease
from cerank.runs import queue, run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt
from tests.trained_run import TrainedRun

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def runs(trained: TrainedRun, tmp_path: Path) -> list[RunFolder]:
    """Three queued runs."""
    folders = [run_store.create(tmp_path / "lab", trained.plan, b"", NOW) for _ in range(3)]
    for folder in folders:
        queue.add(folder, NOW)
    return folders


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The processes that would have been started."""
    told: list[list[str]] = []
    monkeypatch.setattr(waiting_trackers.subprocess, "Popen", lambda line, **_: told.append(line))
    return told


def begin(folder: RunFolder, number: int) -> None:
    json_records.save(folder.attempt(number), Attempt(number=number, started="2026-01-02T00:00:00+00:00"))


def test_each_run_is_sent_once_it_begins_and_one_that_left_the_queue_or_the_lab_is_given_up(
    runs: list[RunFolder],
) -> None:
    first, dropped, removed = runs
    launched: list[tuple[str, int]] = []

    def steps():
        yield lambda: queue.remove(first.lab, [dropped.name])
        yield lambda: (shutil.rmtree(removed.path), begin(first, 1))

    happens = steps()
    waiting_trackers.wait(
        dict.fromkeys((folder.path for folder in runs), 0),
        launch=lambda folder, before: launched.append((folder.name, before)) or [],
        sleep=lambda _seconds: next(happens)(),
    )
    assert launched == [(first.name, 0)]
    assert next(happens, None) is None, "it looked until nothing was left to wait for"


def test_an_attempt_from_before_the_queue_does_not_count(runs: list[RunFolder]) -> None:
    folder = runs[0]
    begin(folder, 1)
    launched: list[int] = []
    happens = iter([lambda: begin(folder, 2)])
    waiting_trackers.wait(
        {folder.path: 1},
        launch=lambda _folder, before: launched.append(before) or [],
        sleep=lambda _seconds: next(happens)(),
    )
    assert launched == [1]


def test_a_run_that_looks_lost_at_one_look_is_still_waited_for(runs: list[RunFolder]) -> None:
    folder = runs[0]
    queue.remove(folder.lab, [folder.name])  # taken out to be started, and not started yet
    launched: list[int] = []
    happens = iter([lambda: begin(folder, 1)])
    waiting_trackers.wait(
        {folder.path: 0},
        launch=lambda _folder, before: launched.append(before) or [],
        sleep=lambda _seconds: next(happens)(),
    )
    assert launched == [0]


def test_what_is_asked_for_is_recorded_and_one_process_waits_for_all(
    runs: list[RunFolder], commands: list[list[str]]
) -> None:
    asked = TrackingRequest(kinds=("recorded",), project="p", is_offline=True)
    waiting_trackers.start_when_they_begin({folder.path: 0 for folder in runs[:2]}, asked)
    assert [line[-4:] for line in commands] == [[str(runs[0].path), "0", str(runs[1].path), "0"]]
    record = track_run.load_record(runs[1], "recorded")
    assert record is not None
    assert (record.project, record.is_offline, record.is_over) == ("p", True, False)
    assert not runs[2].trackers.exists()


def test_a_run_that_goes_on_from_the_queue_is_sent_to_the_trackers_that_it_had(
    runs: list[RunFolder], commands: list[list[str]]
) -> None:
    before = {folder.path: 3 for folder in runs}
    assert waiting_trackers.start_when_they_begin(before) is None, "no run has a tracker"
    assert waiting_trackers.start_when_they_begin(before, TrackingRequest()) is None
    track_run.save_record(runs[0], track_run.TrackingRecord(kind="recorded", project="p", is_over=True))
    track_run.save_record(runs[1], track_run.TrackingRecord(kind="recorded", project="p"))
    with Lease.take(runs[1].trackers / "recorded.lease", NOW):  # a process is sending it already
        waiting_trackers.start_when_they_begin(before)
    assert [line[-2:] for line in commands] == [[str(runs[0].path), "3"]]
