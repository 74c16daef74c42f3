"""Leases for file systems without locks, or shared with other machines: numbered lock files with a heartbeat.

Invariant: the highest number holds. It is made with O_EXCL, so one process gets it, and only after the one before was
released or is dead; nobody removes the highest, so a slow process that listed the files earlier cannot get an older
number. A process that dies on this host frees its lock file at once; one on another host when its heartbeat is a minute
old by the file server's clock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cerank.errors import RunFailedError, os_error
from cerank.files import disk
from cerank.files.safe_open import read_file

HEARTBEAT_SECONDS = 10.0  # seconds
STALE_SECONDS = 60.0  # seconds without a heartbeat after which a lock file from another host is stale
_NAME = re.compile(r"[0-9]{8}")
_RELEASED = b"released"


def folder_of(path: Path) -> Path:
    """Return the folder of the lock files for the lease file `path`."""
    return path.with_name(f"{path.name}.claims")


class LockFile:
    """The right to write, held until `release` or the death of the process.

    Args:
        path: the file.
        on_loss: called once by the heartbeat when another process has taken the lease because this one seemed dead:
            its machine, or the network, was silent for a minute. Nothing may be written from then on.
    """

    def __init__(self, path: Path, on_loss: Callable[[], None] = lambda: None) -> None:
        self._path, self._on_loss = path, on_loss
        self._over = threading.Event()
        threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()

    def _send_heartbeats(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._path)
            except FileNotFoundError:  # only who takes the lease removes older lock files
                if not self._over.is_set() and _numbers(self._path.parent)[-1:] > [self._path.name]:
                    self._on_loss()
                    return
            except OSError:
                continue

    def give(self, owner: msgspec.Struct) -> None:
        """Write another owner, such as the child process that keeps the lock file; this process's heartbeat ends."""
        self._over.set()
        disk.write(self._path, msgspec.json.encode(owner) + b"\n")

    def release(self) -> None:
        """Release the lock file."""
        self._over.set()
        with contextlib.suppress(RunFailedError):  # the folder is gone, and the lock file with it
            disk.write(self._path, _RELEASED)

    def forget(self) -> None:
        """End this process's heartbeat and leave the lock file to another process."""
        self._over.set()


def take(
    path: Path,
    owner: msgspec.Struct,
    is_alive: Callable[[bytes], bool | None],
    on_loss: Callable[[], None] = lambda: None,
) -> LockFile | None:
    """Take the lease by a new lock file; return None if another process holds it.

    Args:
        path: path of the lease; the lock file gets a name that begins with it.
        owner: record of the process that wants the lease.
        is_alive: whether the owner in a claim's bytes lives; None where it is on another host or nobody can tell.
        on_loss: as for `LockFile`.

    Raises:
        RunFailedError: the disk refuses.
    """
    folder = folder_of(path)
    disk.make_folder(folder)
    newest = _numbers(folder)[-1:]
    if newest and _is_live(folder / newest[0], is_alive):
        return None
    name = f"{int(newest[0]) + 1 if newest else 1:08d}"
    if not _create_exclusively(folder / name, msgspec.json.encode(owner) + b"\n"):
        return None
    numbers = _numbers(folder)
    if numbers[-1] != name:  # made with an old number, after its holder had cleaned up behind itself
        disk.remove(folder / name)
        return None
    for older in numbers[:-1]:
        disk.remove(folder / older)
    return LockFile(folder / name, on_loss)


def take_from_parent(path: Path, owner: msgspec.Struct) -> LockFile | None:
    """Return the lock file that the parent process took; None if there is none."""
    newest = _numbers(folder_of(path))[-1:]
    if not newest:
        return None
    lock_file = folder_of(path) / newest[0]
    disk.write(lock_file, msgspec.json.encode(owner) + b"\n")
    return LockFile(lock_file)


def is_held(path: Path, is_alive: Callable[[bytes], bool | None]) -> bool:
    """Return whether a live process holds the lease."""
    folder = folder_of(path)
    newest = _numbers(folder)[-1:]
    return bool(newest) and _is_live(folder / newest[0], is_alive)


def _numbers(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))  # noqa: PTH208 - names are wanted
    except OSError:
        return []


def _create_exclusively(path: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise os_error(error, path, RunFailedError, doing="cannot write the file") from error
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    return True


def _is_live(path: Path, is_alive: Callable[[bytes], bool | None]) -> bool:
    try:
        data = read_file(path)
    except OSError:
        return True  # replaced this moment by a newer one
    if data == _RELEASED:
        return False
    is_known_alive = is_alive(data)  # half-written just now: nobody can tell, so its age does
    return _age(path) < STALE_SECONDS if is_known_alive is None else is_known_alive


def _age(path: Path) -> float:
    """Return the seconds since the last heartbeat; 0 where it cannot be told."""
    try:
        return server_age(path)
    except OSError:
        return 0.0


def server_age(path: Path) -> float:
    """Return the seconds since a file was last written, by the clock of the file server, which set its time, too.

    The clocks of the machines that share a file system may be minutes apart. In a folder that may only be read, the
    clock of this machine has to do.

    Raises:
        OSError: there is no such file.
    """
    with contextlib.suppress(OSError), path.open("rb"):
        pass  # opening makes NFS ask the server; without it the time may be a minute old
    now = _server_time(path.parent)
    return (time.time() if now is None else now) - path.stat().st_mtime


_OFFSET_SECONDS = 600.0  # for which a measured difference of clocks is believed
_offsets: dict[int, tuple[float, float]] = {}  # device of a file system -> (monotonic time, difference of its clock)


def clock_offset(folder: Path) -> float:
    """Return how many seconds the file server's clock is ahead of this machine's; 0 where it cannot be told.

    It is measured every ten minutes for each file system, by a file that is written and removed.
    """
    try:
        device = folder.stat().st_dev
    except OSError:
        return 0.0
    if device not in _offsets or time.monotonic() - _offsets[device][0] > _OFFSET_SECONDS:
        now = _server_time(folder)
        _offsets[device] = (time.monotonic(), 0.0 if now is None else now - time.time())
    return _offsets[device][1]


def _server_time(folder: Path) -> float | None:
    """Return the time of the server of the folder's file system; None where nothing can be written."""
    probe = folder / f".now-{os.getpid()}-{threading.get_ident()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return None
    return now


SHARED = "CERANK_SHARED_LAB"  # environment variable: if set, every file system counts as shared with other machines
_LOCAL_SYSTEMS = {
    *("apfs", "bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "ntfs"),
    *("overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs", "hfs", "aufs"),
}


def is_shared(folder: Path) -> bool:
    """Return whether the file system of a folder may be shared with other machines, such as NFS or Lustre.

    There a lock may hold on this machine only (NFS mounted with `nolock` or `local_lock`), so lock files are needed
    beside it. A kind of file system that is not known counts as shared.
    """
    if os.environ.get(SHARED):
        return True
    try:
        kind = _system_of(folder.stat().st_dev)
    except OSError:
        return False
    return bool(kind) and kind not in _LOCAL_SYSTEMS


@functools.cache
def _system_of(device: int) -> str:
    """Return the kind of the file system of a device; "" where the system does not tell."""
    try:
        text = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in text.splitlines():
        mount, _, source = line.partition(" - ")
        if len(mount.split()) > 2 and mount.split()[2] == number:
            return source.split()[0] if source.split() else ""
    return ""
