"""Which worker uses which device of this machine, whatever lab its run is in: one lock a device, in a folder of the
user's own.

Invariant: the lock is the truth and dies with the process that holds it; what is written in its file is advice. Where
no such folder can be made, or its file system has no locks, nothing is shared out between labs, and nothing waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cerank.errors import RunFailedError
from cerank.files import disk, lease
from cerank.files.json_records import DECODE_ERRORS
from cerank.files.safe_open import read_file

FOLDER = "CERANK_DEVICES"  # environment: the folder, where the usual one does not suit
DEVICE = "CERANK_DEVICE"  # environment of a worker: the device's key, which its launcher found


class Holder(msgspec.Struct, frozen=True):
    """Whose worker uses a device."""

    lab: str  # the lab's folder
    run: str  # the run's name

    def is_of(self, lab: Path) -> bool:
        """Whether the run is in that lab."""
        return self.lab == str(lab.resolve())

    def __str__(self) -> str:
        return f"{self.run} in {self.lab}" if self.run else "another worker"


UNKNOWN = Holder("", "")  # the file says nothing readable


class Hold:
    """A device's lock, held until `release` or the death of every process that has the descriptor."""

    def __init__(self, handle: disk.Handle) -> None:
        self._handle: disk.Handle | None = handle

    @property
    def descriptor(self) -> int:
        """The open file that holds the lock, for a worker to inherit.

        Raises:
            ValueError: it was let go of; a fault of the program.
        """
        if self._handle is None:
            raise ValueError("the device was let go of")
        return self._handle.descriptor

    def release(self) -> None:
        """Gives the device back."""
        if self._handle is not None:
            with contextlib.suppress(OSError, RunFailedError):
                disk.truncate(self._handle, 0)  # while it is ours: the next one must not be taken for this one
            with contextlib.suppress(OSError):
                fcntl.flock(self._handle.descriptor, fcntl.LOCK_UN)
        self.hand_over()

    def hand_over(self) -> None:
        """Closes this process's copy: the lock lives on in the worker that inherited it."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with contextlib.suppress(OSError):
                disk.close(handle)


def folder_named(environ: Mapping[str, str]) -> Path:
    """Where the locks are.

    Not in XDG_RUNTIME_DIR, which goes when its user logs out while a detached worker goes on; nor by TMPDIR, which
    differs from one job of a cluster to the next.
    """
    given = environ.get(FOLDER)
    if given:
        return Path(given)
    shared = Path("/tmp")  # noqa: S108 - a folder of the user's own within it, and looked at before it is used
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / f"cerank-devices-{os.getuid()}"


def trouble(environ: Mapping[str, str] = os.environ) -> str:
    """Why devices are not shared out between labs here; "" where they are. Makes the folder."""
    where = folder_named(environ)
    wrong = _unsafe(where)
    if wrong:
        return f"{where}: {wrong}"
    try:
        return "" if lease.has_locks(where) else f"{where}: its file system has no locks that hold"
    except RunFailedError as error:
        return str(error)


def _unsafe(where: Path) -> str:
    """Why the folder cannot be used; "" where it is this user's, and nobody else can put anything there."""
    if not where.is_absolute():
        return "not an absolute path, so another folder for each program"
    try:
        with contextlib.suppress(FileExistsError):
            where.mkdir(mode=0o700)
        found = where.lstat()
    except OSError as error:
        return f"cannot be made: {(error.strerror or '').lower()}"
    if not stat.S_ISDIR(found.st_mode):
        return "not a folder"
    if found.st_uid != os.getuid():
        return "belongs to another user"
    return "others may look or write there" if found.st_mode & 0o077 else ""


def take(key: str, lab: Path, run: str, environ: Mapping[str, str] = os.environ) -> Hold | Holder | None:
    """The device for a run: the lock; or who has it; or None where nothing is shared out.

    Args:
        key: of the device: its UUID, or its name where it has none.
        lab: the run's.
        run: its name.
        environ: may name the folder.
    """
    where = folder_named(environ)
    if environ.get(lease.NO_FLOCK) or _unsafe(where):
        return None
    try:
        handle = disk.open_append(_path(where, key))
    except RunFailedError:
        return None
    is_ours = _lock(handle)
    if not is_ours:
        disk.close(handle)
        return None if is_ours is None else _holder(handle.path)
    try:
        with contextlib.suppress(RunFailedError):  # advice
            disk.truncate(handle, 0)
            disk.append(handle, msgspec.json.encode(Holder(str(lab.resolve()), run)) + b"\n")
    except BaseException:
        disk.close(handle)
        raise
    return Hold(handle)


def holder(key: str, environ: Mapping[str, str] = os.environ) -> Holder | None:
    """Who uses the device; None where nobody does, or nothing is shared out. Cheap, and changes nothing."""
    where = folder_named(environ)
    path = _path(where, key)
    try:
        if environ.get(lease.NO_FLOCK) or not path.exists() or _unsafe(where):
            return None
        return _holder(path) if lease.is_held(path) else None
    except (OSError, RunFailedError):
        return None


def _path(where: Path, key: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9.-]", "-", key)[:64]
    return where / (plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}")


def _lock(handle: disk.Handle) -> bool | None:
    """Whether the lock was taken; None where the file system has none that holds."""
    taken = lease.try_lock(handle.descriptor)
    return _is_there(handle) if taken else taken


def _is_there(handle: disk.Handle) -> bool:
    """Whether the locked file is still the one of that name; a cleaner of old files may have taken it away."""
    try:
        return os.path.samestat(os.fstat(handle.descriptor), handle.path.stat())
    except OSError:
        return False


def _holder(path: Path) -> Holder:
    try:
        return msgspec.json.decode(read_file(path), type=Holder)
    except (OSError, *DECODE_ERRORS):
        return UNKNOWN
