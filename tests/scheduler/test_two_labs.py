"""Two labs of one user on one machine use a device one after the other, and say so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cerank.files import lease
from cerank.machine import device_locks
from cerank.runs.layout import QueueFolder
from cerank.runs.run_store import short_name
from tests.scheduler.conftest import Bench, eventually


@pytest.fixture
def other(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv(device_locks.FOLDER, str(tmp_path / "devices"))
    made = Bench(tmp_path / "other")
    yield made
    made.release()
    made.kill_supervisor()


def test_the_queue_of_one_lab_waits_for_a_device_that_another_lab_uses(bench: Bench, other: Bench) -> None:
    (first,) = bench.enqueued("hold")
    eventually(lambda: bench.is_at_work(first))
    (second,) = other.enqueued("quick")
    slot = other.lab.queue_state().slots[0]
    assert slot.run == f"{short_name(first)} in {bench.folder}"
    assert other.state(second) == "queued"
    bench.kill_supervisor()  # the worker keeps the device
    assert other.lab.queue_state().slots[0].run == slot.run
    bench.release()
    eventually(lambda: other.state(second) == "finished")
    assert bench.state(first) == "finished"


def test_a_killed_worker_frees_its_device_for_the_other_lab(bench: Bench, other: Bench) -> None:
    (first,) = bench.enqueued("hold")
    eventually(lambda: bench.is_at_work(first))
    (second,) = other.enqueued("quick")
    owner = lease.owner(first.lease)
    assert owner is not None
    lease.signal_owner(owner, signal.SIGKILL)
    eventually(lambda: other.state(second) == "finished")


def test_runs_queued_in_two_labs_at_once_never_overlap(bench: Bench, other: Bench, tmp_path: Path) -> None:
    folders = [(lab, *lab.enqueued("quick")) for _ in range(2) for lab in (bench, other)]
    eventually(lambda: all(lab.state(folder) == "finished" for lab, folder in folders))
    assert not (tmp_path / "devices" / "overlap").exists()
    eventually(lambda: device_locks.current_owner("cpu") is None)


def test_where_locks_cannot_be_kept_each_lab_goes_its_own_way(
    bench: Bench, other: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device_locks.FOLDER, str(tmp_path / "absent" / "devices"))
    (first,) = bench.enqueued("hold")
    eventually(lambda: bench.is_at_work(first))
    (second,) = other.enqueued("quick")
    eventually(lambda: other.state(second) == "finished")
    assert bench.state(first) == "running"


def test_the_log_of_a_queue_says_what_it_waits_for_where_two_come_at_once(bench: Bench, other: Bench) -> None:
    with_it = device_locks.acquire("cpu", bench.folder, "theirs", os.environ)
    assert isinstance(with_it, device_locks.DeviceLock)
    (run,) = other.enqueued("quick")
    assert other.lab.queue_state().slots[0].run == f"theirs in {bench.folder}"
    eventually(lambda: f"waiting for cpu, which theirs in {bench.folder} uses" in _log(other))
    assert other.state(run) == "queued"
    with_it.release()
    eventually(lambda: other.state(run) == "finished")


def _log(bench: Bench) -> str:
    path = QueueFolder(bench.folder).log
    return path.read_text() if path.exists() else ""
