"""Leases: one worker at a time may write to a run, by a lock that ends with its process.

Invariant: the flock is the truth; where the file system has none, or none that keeps others out, as each taking finds
out, a numbered lock file is (`lease_files`). On a file system that other machines may share, both are taken, for a
flock may hold on one machine only. The owner written inside the file is a hint, trusted only if process id, start time
and boot all match.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import signal
import socket
import time
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType

import msgspec

from cerank.errors import HeldError, RunFailedError, os_error
from cerank.files import disk, json_records, lease_files
from cerank.files.json_records import DECODE_ERRORS, timestamp
from cerank.files.safe_open import read_file

NO_FLOCK = "CERANK_NO_FLOCK"  # environment variable for tests: if set, the file system counts as one without locks

_TRIES, _PAUSE = 10, 0.005  # seconds; a reader's `is_held` shares the lock for some microseconds
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class Owner(msgspec.Struct, frozen=True):
    """The process that took a lease."""

    pid: int
    ticks: int  # its start, in clock ticks since boot; 0 where the system does not tell
    boot: str  # the boot it belongs to; "" where the system does not tell
    host: str
    time: str = ""  # UTC, ISO 8601


def boot_id() -> str:
    """Return a word that stands for this start of the machine; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot; 0 if it is gone or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(stat.rpartition(")")[2].split()[19])  # the name before ")" may itself hold spaces and brackets
    except (OSError, ValueError, IndexError):
        return 0


def this_process(now: datetime | None = None) -> Owner:
    """Return the owner record of this process."""
    pid = os.getpid()
    return Owner(pid, start_ticks(pid), boot_id(), socket.gethostname(), timestamp(now) if now else "")


def is_same_process(owner: Owner) -> bool:
    """Return whether the process that wrote `owner` is still alive on this host; False if that is unknown."""
    is_identified = bool(owner.ticks and owner.boot and owner.pid > 0)
    is_here = owner.host == socket.gethostname() and owner.boot == boot_id()
    return is_identified and is_here and owner.ticks == start_ticks(owner.pid)


def signal_owner(owner: Owner, signum: int) -> bool:
    """Send a signal to the owner if it is certainly that process; return whether it was sent."""
    if not is_same_process(owner):
        return False
    if not hasattr(os, "pidfd_open"):
        return False  # without it the process id may be reused between the check and the signal
    try:
        descriptor = os.pidfd_open(owner.pid)
    except OSError:
        return False
    try:
        if not is_same_process(owner):  # check again, now that the descriptor pins the process
            return False
        signal.pidfd_send_signal(descriptor, signum)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


class Lease:
    """The right to write to a run, held until `release`, the end of a `with`, or the death of the process."""

    def __init__(self, handle: disk.Handle, lock_file: lease_files.LockFile | None = None) -> None:
        self._handle: disk.Handle | None = handle
        self._lock_file = lock_file
        _close_in_children()
        _leases.add(self)

    @classmethod
    def take(cls, path: Path, now: datetime | None = None, on_loss: Callable[[], None] = lambda: None) -> Lease:
        """Take the lease on the file `path`, which is created if absent.

        Args:
            path: the file.
            now: written into it.
            on_loss: called if another machine takes the lease because this one was silent for a minute.

        Raises:
            HeldError: another process, or another part of this one, holds it.
            RunFailedError: the folder is gone or not writable, or its file system has no locks.
        """
        handle = disk.open_append(path)
        lock_file = None
        try:
            if not _lock(handle) or lease_files.is_shared(path.parent):
                lock_file = lease_files.take(path, this_process(now), _is_alive, on_loss)
                if lock_file is None:
                    raise _held_error(path)
            _check_file_exists(handle)
            with contextlib.suppress(RunFailedError):  # advice; a full disk must not bar the way to freeing it
                disk.truncate(handle, 0)
                disk.append(handle, msgspec.json.encode(this_process(now)) + b"\n")
        except BaseException:
            if lock_file is not None:
                lock_file.release()
            disk.close(handle)
            raise
        return cls(handle, lock_file)

    @classmethod
    def from_descriptor(cls, path: Path, descriptor: int) -> Lease:
        """Return the lease on the file `path` that the parent process took and handed over as an open descriptor."""
        os.set_inheritable(descriptor, False)
        handle = disk.Handle(path, descriptor)
        with contextlib.suppress(RunFailedError):
            disk.truncate(handle, 0)
            disk.append(handle, msgspec.json.encode(this_process()) + b"\n")
        return cls(handle, lease_files.take_from_parent(path, this_process()))

    @property
    def descriptor(self) -> int:
        """Return the descriptor of the open file that holds the lock, for a child process to inherit.

        Raises:
            ValueError: the lease was released, which is an internal error.
        """
        if self._handle is None:
            raise ValueError("the lease was released")
        return self._handle.descriptor

    def hand_over(self, child: int = 0) -> None:
        """Close this process's copy without unlocking: the lock lives on in the child that was given `descriptor`.

        Args:
            child: the child's process id, which a lock file then names; with 0, the lock file is released.
        """
        if self._lock_file is not None and child:
            self._lock_file.give(Owner(child, start_ticks(child), boot_id(), socket.gethostname()))
        elif self._lock_file is not None:
            self._lock_file.release()
        self._forget()

    def release(self) -> None:
        """Release the lease; a second call does nothing."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            if self._lock_file is not None:
                self._lock_file.release()
            with contextlib.suppress(OSError):
                fcntl.flock(handle.descriptor, fcntl.LOCK_UN)  # also frees it from under a copy in a forked child
            disk.close(handle)

    def _forget(self) -> None:
        """Close this process's copy of the descriptor without unlocking the lock of another process."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with contextlib.suppress(OSError):
                disk.close(handle)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


@functools.cache
def _close_in_children() -> None:
    def forget() -> None:
        for lease in list(_leases):
            lease._forget()

    os.register_at_fork(after_in_child=forget)


def has_locks(folder: Path) -> bool:
    """Return whether the file system of a folder has locks that exclude a second opening of a locked file.

    Raises:
        RunFailedError: nothing can be written there.
    """
    probe = folder / f".locks-{os.getpid()}"
    handle = disk.open_append(probe)
    try:
        return _lock(handle)
    finally:
        disk.close(handle)
        disk.remove(probe)


def _excludes_others(handle: disk.Handle) -> bool:
    """Return whether the lock just taken keeps others out; some network file systems grant it to everyone."""
    try:
        other = os.open(handle.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # gone meanwhile, which is found next
    try:
        is_same = os.path.samestat(os.fstat(other), os.fstat(handle.descriptor))
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return not is_same
    finally:
        os.close(other)


def _is_alive(data: bytes) -> bool | None:
    """Return whether the process that a lock file names is alive; None if it is on another host or unreadable.

    A host of this name with another boot may be this one before it was started anew, or another machine of the same
    name: None, too.
    """
    try:
        holder = json_records.decode(data, Owner)
    except DECODE_ERRORS:
        return None
    if (holder.host, holder.boot) != (socket.gethostname(), boot_id()) or not (holder.ticks and holder.boot):
        return None
    return is_same_process(holder)


def _lock(handle: disk.Handle) -> bool:
    """Take the lock; return False if the file system has none that excludes others."""
    if os.environ.get(NO_FLOCK):
        return False
    locked = try_lock(handle.descriptor)
    if locked is False:
        raise _held_error(handle.path)
    return locked is True and _excludes_others(handle)


def try_lock(descriptor: int) -> bool | None:
    """Return True if the file's lock was taken, False if another process has it, None if there are no locks.

    False where another process has it, None where the file system has none.
    """
    for attempt in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                return None
            if attempt < _TRIES - 1:
                time.sleep(_PAUSE)
        else:
            return True
    return False


def _held_error(path: Path) -> HeldError:
    holder = owner(path)
    who = f"pid {holder.pid} on {holder.host}" if holder else "another process"
    hint = f"`cerank stop {path.parent.name}` asks it to stop"
    return HeldError(f"held by {who}", where=path.parent.name, hint=hint, code="run-held")


def _check_file_exists(handle: disk.Handle) -> None:
    """Check that the locked file was not removed meanwhile: the next process would lock a new file."""
    try:
        is_same = os.path.samestat(os.fstat(handle.descriptor), handle.path.stat())
    except OSError:
        is_same = False
    if not is_same:
        raise RunFailedError("the run was removed", where=handle.path.parent.name, code="run-removed")


def is_held(path: Path) -> bool:
    """Return whether a live process holds the lease on `path`.

    It asks by sharing the lock for a moment, which `take` sits out.

    Raises:
        RunFailedError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name must not block
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise os_error(error, path, RunFailedError) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return True
    finally:
        os.close(descriptor)
    return lease_files.is_held(path, _is_alive)  # where there are no locks, or none that hold


def owner(path: Path) -> Owner | None:
    """Return who took the lease last; a hint only. None if the file is unreadable."""
    try:
        return json_records.decode(read_file(path), Owner)
    except (OSError, *DECODE_ERRORS):
        return None
