"""Lock a device of this machine for one worker, whatever lab its run is in: one lock a device, in a folder of the
user's own.

Invariant: only the lock counts, and it ends with the process that holds it; what is written in its file is advice.
Where no such folder can be made, or its file system has no locks, labs do not share devices, and nothing waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from cerank.errors import RunFailedError, UsageError, os_reason
from cerank.files import disk, json_records, lease
from cerank.files.json_records import DECODE_ERRORS
from cerank.files.safe_open import read_file
from cerank.machine.devices import device_key

FOLDER = "CERANK_DEVICES"  # environment variable: the folder of locks, if not the usual one
DEVICE = "CERANK_DEVICE"  # environment variable of a worker: the device's key, which its launcher found


class LockOwner(msgspec.Struct, frozen=True):
    """The run that uses a device."""

    lab: str  # folder of the lab
    run: str  # name of the run

    def is_of(self, lab: Path) -> bool:
        """Return whether the run is in that lab."""
        return self.lab == str(lab.resolve())

    def __str__(self) -> str:
        return f"{self.run} in {self.lab}" if self.run else "another worker"


UNKNOWN_OWNER = LockOwner("", "")  # the file of the lock cannot be read


class DeviceLock:
    """The lock on a device, held until `release` or the death of every process that has the descriptor."""

    def __init__(self, handle: disk.Handle) -> None:
        self._handle: disk.Handle | None = handle

    @property
    def descriptor(self) -> int:
        """Return the open file that holds the lock, for a worker to inherit.

        Raises:
            ValueError: it was let go of; a fault of the program.
        """
        if self._handle is None:
            raise ValueError("the device was let go of")
        return self._handle.descriptor

    def release(self) -> None:
        """Release the device."""
        if self._handle is not None:
            with contextlib.suppress(OSError, RunFailedError):
                disk.truncate(self._handle, 0)  # while the lock is held: the next owner must not be shown as this one
            with contextlib.suppress(OSError):
                fcntl.flock(self._handle.descriptor, fcntl.LOCK_UN)
        self.hand_over()

    def hand_over(self) -> None:
        """Close this process's copy: the lock lives on in the worker that inherited it."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with contextlib.suppress(OSError):
                disk.close(handle)


def lock_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the locks.

    They are not in XDG_RUNTIME_DIR, which is removed when its user logs out although a detached worker still runs; nor
    in TMPDIR, which differs from one job of a cluster to the next.
    """
    named = environ.get(FOLDER)
    if named:
        return Path(named)
    shared = Path("/tmp")  # noqa: S108 - a folder of the user's own within it, and looked at before it is used
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / f"cerank-devices-{os.getuid()}"


def lock_problem(environ: Mapping[str, str] = os.environ) -> str:
    """Return why labs do not share devices here; "" if they do. Makes the folder."""
    where = lock_folder(environ)
    wrong = _folder_problem(where)
    if wrong:
        return f"{where}: {wrong}"
    try:
        return "" if lease.has_locks(where) else f"{where}: its file system has no locks that hold"
    except RunFailedError as error:
        return str(error)


def _folder_problem(where: Path) -> str:
    """Return why the folder cannot be used; "" if it is this user's, and nobody else can write to it."""
    if not where.is_absolute():
        return "not an absolute path, so each program would use another folder"
    try:
        with contextlib.suppress(FileExistsError):
            where.mkdir(mode=0o700)
        state = where.lstat()
    except OSError as error:
        return f"cannot be made: {os_reason(error)}"
    if not stat.S_ISDIR(state.st_mode):
        return "not a folder"
    if state.st_uid != os.getuid():
        return "belongs to another user"
    return "other users may read or write it" if state.st_mode & 0o077 else ""


def acquire(key: str, lab: Path, run: str, environ: Mapping[str, str] = os.environ) -> DeviceLock | LockOwner | None:
    """Lock a device for a run: return the lock, or its present owner, or None where locks do not work.

    Args:
        key: UUID of the device, or its name if it has none.
        lab: folder of the lab that the run is in.
        run: name of the run, which others see as the owner.
        environ: environment variables; one of them may name the folder of locks.
    """
    where = lock_folder(environ)
    if environ.get(lease.NO_FLOCK) or _folder_problem(where):
        return None
    try:
        handle = disk.open_append(_path(where, key))
    except RunFailedError:
        return None
    is_ours = _take_lock(handle)
    if not is_ours:
        disk.close(handle)
        return None if is_ours is None else _read_owner(handle.path)
    try:
        with contextlib.suppress(RunFailedError):  # the content is only advice
            disk.truncate(handle, 0)
            disk.append(handle, msgspec.json.encode(LockOwner(str(lab.resolve()), run)) + b"\n")
    except BaseException:
        disk.close(handle)
        raise
    return DeviceLock(handle)


@contextlib.contextmanager
def hold_gpu(device: str, lab: Path, command: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Hold the lock of a GPU while a command computes on it outside any run; other devices are shared.

    Args:
        device: the device, such as "cuda:1".
        lab: the lab of the settings.
        command: what to call the owner for those who wait, such as "cerank rerank".
        environ: environment; it says which GPUs are visible.

    Raises:
        UsageError: a run or another command uses the GPU: beside it both would be slow or run out of memory.
    """
    lock = acquire(device_key(device, environ), lab, command, environ) if device.startswith("cuda") else None
    if isinstance(lock, LockOwner):
        raise UsageError(
            f"{device} is used by {lock}",
            where="device",
            hint="wait for it, or give another --device",
            code="device-in-use",
        )
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def current_owner(key: str, environ: Mapping[str, str] = os.environ) -> LockOwner | None:
    """Return the owner of the device's lock; None if it has none or locks do not work. Cheap; changes nothing."""
    where = lock_folder(environ)
    path = _path(where, key)
    try:
        if environ.get(lease.NO_FLOCK) or not path.exists() or _folder_problem(where):
            return None
        return _read_owner(path) if lease.is_held(path) else None
    except (OSError, RunFailedError):
        return None


def _path(where: Path, key: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9.-]", "-", key)[:64]
    return where / (plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}")


def _take_lock(handle: disk.Handle) -> bool | None:
    """Return whether the lock was taken; None where the file system has none that holds."""
    is_locked = lease.try_lock(handle.descriptor)
    if not is_locked:
        return is_locked
    try:  # a cleaner of old files may have removed it, and another process made it anew
        return os.path.samestat(os.fstat(handle.descriptor), handle.path.stat())
    except OSError:
        return False


def _read_owner(path: Path) -> LockOwner:
    try:
        return json_records.decode(read_file(path), LockOwner)
    except (OSError, *DECODE_ERRORS):
        return UNKNOWN_OWNER
