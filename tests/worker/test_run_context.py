"""A worker holds its device among all labs of the machine, or waits for it and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.machine import device_locks
from cerank.runs.layout import RunFolder
from cerank.worker import run_context
from tests.scheduler.conftest import plan_for


class Context:
    """The part of a run's context that waiting for a device uses; it collects the events."""

    def __init__(self, device: str, folder: RunFolder, *, may_wait: bool = True) -> None:
        self.plan, self.folder, self.may_wait = plan_for(device), folder, may_wait
        self.heartbeat = self.log = self
        self.told: list[str] = []

    def enter(self, *_: object, **__: object) -> None:
        assert self.may_wait

    def event(self, _: str, text: str) -> None:
        self.told.append(text)

    def raise_if_stopped(self) -> None:
        raise InterruptedError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv(device_locks.FOLDER, str(tmp_path / "devices"))
    monkeypatch.setenv(device_locks.DEVICE, "GPU-1")
    monkeypatch.setattr(run_context, "LOCK_CHECK_SECONDS", 0.0)
    return RunFolder(tmp_path / "lab" / "runs" / "own")


def test_a_run_waits_for_a_gpu_of_another_lab_and_holds_it_then(run: RunFolder, tmp_path: Path) -> None:
    other = device_locks.acquire("GPU-1", tmp_path / "other", "theirs")
    assert isinstance(other, device_locks.DeviceLock)
    context = Context("cuda", run)
    context.raise_if_stopped = other.release
    with run_context.hold_devices(context, (context.plan.device,)):
        assert str(device_locks.current_owner("GPU-1")) == f"own in {run.lab}"
    (told,) = context.told
    assert told.endswith(f"theirs in {tmp_path}/other")
    assert device_locks.current_owner("GPU-1") is None


def test_a_stop_request_is_heard_while_it_waits(run: RunFolder, tmp_path: Path) -> None:
    other = device_locks.acquire("GPU-1", tmp_path / "other", "theirs")
    assert isinstance(other, device_locks.DeviceLock)

    with pytest.raises(InterruptedError), run_context.hold_devices(Context("cuda", run), ("cuda",)):
        raise AssertionError
    other.release()


@pytest.mark.parametrize(("kind", "lab"), [("cuda", "lab"), ("cpu", "other")])
def test_it_does_not_wait_within_its_lab_nor_for_a_cpu(kind: str, lab: str, run: RunFolder, tmp_path: Path) -> None:
    other = device_locks.acquire("GPU-1", tmp_path / lab, "theirs")
    assert isinstance(other, device_locks.DeviceLock)
    with run_context.hold_devices(Context(kind, run, may_wait=False), (kind,)):
        pass
    assert str(device_locks.current_owner("GPU-1")) == f"theirs in {tmp_path / lab}"
    other.release()
