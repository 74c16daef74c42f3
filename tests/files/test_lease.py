from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cerank.errors import ExitCode, HeldError, RunFailedError
from cerank.files import lease
from cerank.files.lease import Lease, Owner
from tests.refusals import refused

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell start times")
needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")

# Each starter says how it went, and a holder keeps the lease until its standard input ends.
STARTER = """
import sys
import time
from pathlib import Path
from cerank.errors import HeldError
from cerank.files.lease import Lease
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    taken = Lease.take(path)
except HeldError as error:
    print("held", flush=True)
else:
    print("took", flush=True)
    sys.stdin.readline()
"""


def starter(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STARTER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert said(process) == "ready"
    return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], "no answer"
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "lease"


def test_a_lease_is_held_until_it_is_given_back(path: Path) -> None:
    assert not lease.is_held(path)
    with Lease.take(path) as taken:
        assert lease.is_held(path)
    assert not lease.is_held(path)
    taken.release()
    with Lease.take(path):
        assert lease.is_held(path)


def test_a_second_taker_learns_who_holds_it(path: Path) -> None:
    with Lease.take(path), refused(HeldError, "run-held", os.getpid()) as caught:
        Lease.take(path)
    assert caught.value.exit_code == ExitCode.HELD
    assert caught.value.where == "run"
    assert caught.value.hint


@pytest.mark.thorough
def test_of_eight_starters_exactly_one_takes_the_lease_in_every_round(path: Path) -> None:
    for _ in range(3):
        starters = [starter(path) for _ in range(8)]
        try:
            for process in starters:
                go(process)
            assert sorted(said(process) for process in starters) == ["held"] * 7 + ["took"]
            assert lease.is_held(path)
        finally:
            for process in starters:
                process.kill()
                process.communicate()
        assert not lease.is_held(path)  # kill -9 frees it


def test_a_reader_who_is_just_asking_does_not_make_a_taker_fail(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.close(asking))  # it has its answer and goes
    with Lease.take(path):
        assert lease.is_held(path)


def test_a_lease_that_came_free_because_its_run_was_removed_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    remover = os.open(path, os.O_RDONLY)
    fcntl.flock(remover, fcntl.LOCK_EX)

    def finish(seconds: float) -> None:
        path.unlink()
        os.close(remover)

    monkeypatch.setattr(time, "sleep", finish)
    with refused(RunFailedError, "run-removed"):
        Lease.take(path)


def test_a_copy_of_the_descriptor_does_not_outlive_a_lease_that_was_given_back(path: Path) -> None:
    with Lease.take(path) as taken:
        copy = os.dup(taken.descriptor)  # as in a child that C code forked
    assert not lease.is_held(path)
    os.close(copy)


def test_a_forked_child_does_not_keep_the_lease_of_its_parent(path: Path) -> None:
    """A worker dies by kill -9 while a child it forked lives on."""
    ready, told = os.pipe()
    worker = os.fork()
    if worker == 0:
        held = Lease.take(path)
        grandchild = os.fork()
        if grandchild == 0:
            os.setsid()
            os.write(told, f"{os.getpid()}\n".encode())
            signal.pause()
        signal.pause()
        os._exit(held is None)
    grandchild = int(os.read(ready, 100))
    try:
        was_held = lease.is_held(path)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        assert was_held
        os.kill(grandchild, 0)  # it lives
        assert not lease.is_held(path)
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_free_the_lease_of_its_parent(path: Path) -> None:
    with Lease.take(path) as taken:
        child = os.fork()
        if child == 0:
            taken.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert lease.is_held(path)


def test_the_lease_of_a_run_that_was_removed_is_refused(path: Path) -> None:
    path.parent.rmdir()
    with refused(RunFailedError, "folder-gone"):
        Lease.take(path)
    assert not lease.is_held(path)


@needs_proc
def test_the_owner_is_this_process(path: Path) -> None:
    with Lease.take(path, datetime(2026, 11, 23, 10, 43, 31, tzinfo=UTC)):
        owner = lease.owner(path)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert owner.time == "2026-11-23T10:43:31+00:00"
    assert lease.is_same_process(owner)


@needs_proc
@pytest.mark.parametrize("change", [{"ticks": 1}, {"ticks": 0}, {"boot": "another"}, {"host": "another"}, {"pid": 0}])
def test_an_owner_whose_number_passed_to_another_process_is_not_believed(change: dict[str, object]) -> None:
    owner = lease.this_process()
    assert lease.is_same_process(owner)
    stale = msgspec.structs.replace(owner, **change)
    assert not lease.is_same_process(stale)
    assert not lease.signal_owner(stale, signal.SIGTERM)  # this very process would have died of it


@needs_proc
@needs_pidfd
def test_a_signal_reaches_the_owner_and_nobody_once_it_is_dead(path: Path) -> None:
    process = starter(path)
    go(process)
    assert said(process) == "took"
    owner = lease.owner(path)
    assert owner is not None
    assert owner.pid == process.pid
    assert lease.signal_owner(owner, signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGTERM
    assert not lease.signal_owner(owner, signal.SIGTERM)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"[]", b'{"pid":"1"}', b"\xff"])
def test_an_unreadable_owner_is_no_owner_and_does_not_bar_the_lease(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert lease.owner(path) is None
    with Lease.take(path):
        owner = lease.owner(path)
    assert isinstance(owner, Owner)


def test_a_lease_works_where_the_system_tells_no_start_times(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "start_ticks", lambda pid: 0)
    monkeypatch.setattr(lease, "boot_id", lambda: "")
    with Lease.take(path):
        owner = lease.owner(path)
        assert owner is not None
        assert lease.is_held(path)
        assert not lease.signal_owner(owner, signal.SIGTERM)
        with pytest.raises(HeldError):
            Lease.take(path)
    assert not lease.is_held(path)


def test_no_owner_is_known_where_there_is_no_lease(path: Path) -> None:
    assert lease.owner(path) is None
