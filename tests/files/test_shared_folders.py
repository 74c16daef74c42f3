"""Leases in a folder that several machines share: their flocks may not see each other, and their clocks differ."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cerank.errors import HeldError
from cerank.files import lease, lease_files
from cerank.files.lease import Lease, Owner
from tests.refusals import refused

# A machine of its own: another name, another boot, a clock that is ahead, and flocks that only it sees.
MACHINE = """
import fcntl, socket, sys, time
from pathlib import Path
from cerank.errors import HeldError
from cerank.files import lease
name, ahead, path = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
real = time.time
time.time = lambda: real() + ahead
socket.gethostname = lambda: name
lease.boot_id = lambda: f"boot of {name}"
real_flock, shadows = fcntl.flock, {}
def flock(descriptor, how):
    if how != fcntl.LOCK_UN:
        shadows[descriptor] = path.with_name(f"{name}.flock").open("a")
    if descriptor in shadows:
        real_flock(shadows[descriptor], how)
    if how & fcntl.LOCK_SH:
        shadows.pop(descriptor).close()
fcntl.flock = flock
taken = None
for order in sys.stdin:
    order = order.strip()
    if order == "take":
        try:
            taken = lease.Lease.take(path)
            print("took", flush=True)
        except HeldError:
            print("held", flush=True)
    elif order == "look":
        print("held" if lease.is_held(path) else "free", flush=True)
    elif order == "release":
        taken.release()
        print("released", flush=True)
"""


class Machine:
    def __init__(self, name: str, ahead: float, path: Path) -> None:
        environ = os.environ | {lease_files.SHARED: "1"}
        command = [sys.executable, "-c", MACHINE, name, str(ahead), str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)

    def does(self, order: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def dies(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """One whose clock is ten minutes behind, and one whose clock is right."""
    (tmp_path / "run").mkdir()
    pair = (Machine("a", -600.0, tmp_path / "run" / "lease"), Machine("b", 0.0, tmp_path / "run" / "lease"))
    yield pair
    for machine in pair:
        machine.dies()


def age(tmp_path: Path, seconds: float) -> None:
    """Make the newest lock file look as if its holder had been silent for so long."""
    newest = max((tmp_path / "run" / "lease.claims").iterdir())
    os.utime(newest, (time.time() - seconds,) * 2)


def test_two_machines_with_clocks_ten_minutes_apart_exclude_each_other_without_flock(
    tmp_path: Path, machines: tuple[Machine, Machine]
) -> None:
    late, right = machines
    assert late.does("take") == "took"
    assert (right.does("take"), right.does("look"), late.does("look")) == ("held", "held", "held")
    assert late.does("release") == "released"
    assert right.does("take") == "took"
    assert (late.does("take"), late.does("look")) == ("held", "held")  # by its clock the holder beats in the future
    right.dies()
    assert late.does("take") == "held"  # nobody can know from here that it is dead
    age(tmp_path, lease_files.STALE_SECONDS + 1)
    assert late.does("take") == "took"


def test_a_holder_that_was_silent_too_long_learns_that_another_took_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lease_files.SHARED, "1")
    monkeypatch.setattr(lease_files, "HEARTBEAT_SECONDS", 0.02)
    lost = threading.Event()
    path = tmp_path / "lease"
    with Lease.take(path, on_loss=lost.set):
        assert lease_files.take(path, Owner(1, 1, "boot", "b"), lambda data: False) is not None
        assert lost.wait(60)


def test_a_machine_of_the_same_name_and_another_boot_holds_while_it_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lease_files.SHARED, "1")
    path = tmp_path / "lease"
    path.touch()
    folder = lease_files.folder_of(path)
    folder.mkdir()
    claim = folder / "00000001"
    claim.write_bytes(msgspec.json.encode(msgspec.structs.replace(lease.this_process(), boot="another boot")))
    with refused(HeldError, "run-held"):
        Lease.take(path)
    os.utime(claim, (time.time() - lease_files.STALE_SECONDS - 1,) * 2)
    Lease.take(path).release()


def test_a_difference_of_clocks_is_measured_at_the_file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ticks = time.time, time.monotonic
    monkeypatch.setattr(lease_files.time, "time", lambda: real() + 600)
    monkeypatch.setattr(lease_files.time, "monotonic", lambda: ticks() + 10_000)  # what was measured is too old
    assert abs(lease_files.clock_offset(tmp_path) + 600) < 5
    path = tmp_path / "file"
    path.touch()
    assert abs(lease_files.server_age(path)) < 5
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_of_this_machine_needs_no_lock_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lease_files.SHARED, raising=False)
    if lease_files.is_shared(tmp_path):
        pytest.skip("the temporary folder may be shared")
    with Lease.take(tmp_path / "lease"):
        assert [path.name for path in tmp_path.iterdir()] == ["lease"]
