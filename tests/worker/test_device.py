"""A worker holds its device among all labs of the machine, or waits for it and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.store import machine
from cerank.store.layout import RunFolder
from cerank.worker import device
from tests.launch.conftest import plan_for


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv(machine.FOLDER, str(tmp_path / "devices"))
    monkeypatch.setenv(machine.DEVICE, "GPU-1")
    monkeypatch.setattr(device, "_LOOK_EVERY", 0.0)
    return RunFolder(tmp_path / "lab" / "runs" / "own")


def test_a_run_waits_for_a_gpu_of_another_lab_and_holds_it_then(run: RunFolder, tmp_path: Path) -> None:
    other = machine.take("GPU-1", tmp_path / "other", "theirs")
    assert isinstance(other, machine.Hold)
    told: list[str] = []
    with device.held(plan_for("cuda"), run, told.append, other.release):
        assert str(machine.holder("GPU-1")) == f"own in {run.lab}"
    assert told == [f"cuda is used by theirs in {tmp_path}/other"]
    assert machine.holder("GPU-1") is None


def test_a_stop_request_is_heard_while_it_waits(run: RunFolder, tmp_path: Path) -> None:
    other = machine.take("GPU-1", tmp_path / "other", "theirs")
    assert isinstance(other, machine.Hold)

    def pause() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), device.held(plan_for("cuda"), run, lambda _: None, pause):
        raise AssertionError
    other.release()


@pytest.mark.parametrize(("kind", "lab"), [("cuda", "lab"), ("cpu", "other")])
def test_it_does_not_wait_within_its_lab_nor_for_a_cpu(kind: str, lab: str, run: RunFolder, tmp_path: Path) -> None:
    other = machine.take("GPU-1", tmp_path / lab, "theirs")
    assert isinstance(other, machine.Hold)
    with device.held(plan_for(kind), run, _never, _never):
        pass
    assert str(machine.holder("GPU-1")) == f"theirs in {tmp_path / lab}"
    other.release()


def _never(*_: object) -> None:
    raise AssertionError
