"""Labs of one machine share its devices out: one lock a device, which dies with its process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from cerank.errors import UsageError
from cerank.files import lease
from cerank.machine import device_locks
from cerank.machine.device_locks import DeviceLock, LockOwner
from cerank.machine.devices import Device
from tests.refusals import refused


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {device_locks.FOLDER: str(tmp_path / "devices")}


def held(key: str, lab: Path, environ: dict[str, str]) -> DeviceLock:
    found = device_locks.acquire(key, lab, "run", environ)
    assert isinstance(found, DeviceLock)
    return found


def test_a_device_is_held_by_one_run_of_one_lab_and_says_by_which(tmp_path: Path, environ: dict[str, str]) -> None:
    with_it = held("GPU-1", tmp_path / "a", environ)
    other = device_locks.acquire("GPU-1", tmp_path / "b", "two", environ)
    assert other == LockOwner(str(tmp_path / "a"), "run")
    assert str(other) == f"run in {tmp_path}/a"
    assert device_locks.current_owner("GPU-1", environ) == other
    assert isinstance(device_locks.acquire("GPU-2", tmp_path / "b", "two", environ), DeviceLock)
    with_it.release()
    assert device_locks.current_owner("GPU-1", environ) is None
    held("GPU-1", tmp_path / "b", environ).release()


def test_the_lock_dies_with_its_process_and_passes_to_who_inherits_it(tmp_path: Path, environ: dict[str, str]) -> None:
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        kept = device_locks.acquire("cpu", tmp_path, "dies", environ)
        os.write(into, b"x")
        time.sleep(60)
        os._exit(kept is None)
    os.read(out, 1)
    assert isinstance(device_locks.acquire("cpu", tmp_path, "two", environ), LockOwner)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = held("cpu", tmp_path, environ)
    copy = os.dup(found.descriptor)
    found.hand_over()
    assert device_locks.current_owner("cpu", environ) is not None
    os.close(copy)
    assert device_locks.current_owner("cpu", environ) is None


def test_names_of_devices_become_plain_distinct_files(tmp_path: Path, environ: dict[str, str]) -> None:
    for key in ("cuda:0", "cuda-0", "../../x", "a/b", "MIG-1/2/3"):
        held(key, tmp_path, environ)
    assert len(list((tmp_path / "devices").iterdir())) == 5


@pytest.mark.parametrize("kind", ["link", "file", "open to others", "no place", "relative", "no locks"])
def test_without_a_safe_folder_or_locks_nothing_is_shared_out_and_nothing_waits(kind: str, tmp_path: Path) -> None:
    where = tmp_path / "devices"
    environ = {device_locks.FOLDER: str(where)}
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        where.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        where.touch()
    elif kind == "open to others":
        where.mkdir()
        where.chmod(0o777)
    elif kind == "no place":
        environ = {device_locks.FOLDER: str(tmp_path / "absent" / "devices")}
    elif kind == "relative":
        environ = {device_locks.FOLDER: "devices"}
    else:
        environ |= {lease.NO_FLOCK: "1"}
    assert device_locks.acquire("cpu", tmp_path, "run", environ) is None
    assert device_locks.current_owner("cpu", environ) is None
    if kind != "no locks":
        assert str(environ[device_locks.FOLDER]) in device_locks.lock_problem(environ)
    if kind == "link":
        assert not list((tmp_path / "elsewhere").iterdir())


def test_the_folder_is_the_users_own_and_depends_on_no_session() -> None:
    usual = device_locks.lock_folder({})
    assert str(os.getuid()) in usual.name
    assert device_locks.lock_folder({"XDG_RUNTIME_DIR": "/run/x", "TMPDIR": "/y"}) == usual


def test_a_command_on_a_gpu_holds_its_lock_and_is_rejected_beside_a_run(monkeypatch, tmp_path):
    environ = {device_locks.FOLDER: str(tmp_path / "devices"), "CUDA_VISIBLE_DEVICES": "GPU-1"}
    monkeypatch.setattr("cerank.machine.devices.detect_gpus", lambda: [Device("cuda:0", "GPU-1")])
    with device_locks.hold_gpu("cuda", tmp_path, "cerank rerank", environ):
        assert device_locks.current_owner("GPU-1", environ).run == "cerank rerank"
        with (
            refused(UsageError, "device-in-use"),
            device_locks.hold_gpu("cuda:0", tmp_path, "cerank bench", environ),
        ):
            raise AssertionError
    assert device_locks.current_owner("GPU-1", environ) is None
    with device_locks.hold_gpu("cpu", tmp_path, "cerank bench", environ):
        assert device_locks.current_owner("cpu", environ) is None
