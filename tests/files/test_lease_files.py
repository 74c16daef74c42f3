from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from cerank.errors import HeldError
from cerank.files import lease, lease_files
from cerank.files.lease import Lease, Owner


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lease on a file system that stands for one without locks."""
    monkeypatch.setenv(lease.NO_FLOCK, "1")
    return tmp_path / "lease"


def claimed_by(path: Path, owner: Owner, age: float = 0.0) -> None:
    folder = lease_files.folder_of(path)
    folder.mkdir(exist_ok=True)
    path.touch()
    claim = folder / "00000007"
    claim.write_bytes(msgspec.json.encode(owner))
    os.utime(claim, (time.time() - age,) * 2)


def test_without_locks_one_holds_it_and_the_next_gets_it_after_a_release(path: Path) -> None:
    with Lease.take(path):
        assert lease.is_held(path)
        with pytest.raises(HeldError):
            Lease.take(path)
    assert not lease.is_held(path)
    Lease.take(path).release()


def test_a_claim_of_a_dead_process_or_a_reused_pid_is_not_believed(path: Path) -> None:
    own = lease.this_process()
    for stale in (
        msgspec.structs.replace(own, ticks=own.ticks - 1),
        msgspec.structs.replace(own, pid=2**22 + 1),
    ):
        claimed_by(path, stale)
        assert not lease.is_held(path)
        Lease.take(path).release()


def test_a_claim_from_another_host_holds_while_it_beats(path: Path) -> None:
    other = Owner(5, 5, "b", "another.host")
    claimed_by(path, other, age=lease_files.STALE_SECONDS / 2)
    with pytest.raises(HeldError):
        Lease.take(path)
    claimed_by(path, other, age=lease_files.STALE_SECONDS * 2)
    Lease.take(path).release()


def test_who_makes_an_older_number_than_the_holders_does_not_hold_it(path: Path) -> None:
    with Lease.take(path):
        folder = lease_files.folder_of(path)
        (newest,) = folder.iterdir()
        assert lease_files.take(path, lease.this_process(), lambda data: False) is not None  # a second one, newer
        assert not newest.exists()
        assert len(list(folder.iterdir())) == 1


def test_the_self_test_tells_locks_from_none(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not lease.has_locks(tmp_path)
    monkeypatch.delenv(lease.NO_FLOCK)
    assert lease.has_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_locks_that_are_granted_to_everyone_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.fcntl, "flock", lambda descriptor, how: None)
    assert not lease.has_locks(tmp_path)
    with Lease.take(tmp_path / "lease"), pytest.raises(HeldError):
        Lease.take(tmp_path / "lease")
