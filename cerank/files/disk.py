"""Every byte that cerank writes goes to disk here, in an order that survives a kill or a power cut.

The one exception is the index of runs in the cache, which SQLite writes and anyone may delete.

Invariant: a file or new folder has its final name only once all of its content is on the disk; and every change
to the disk passes through `_operation`, the one seam where a test can break it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

import msgspec

from cerank.errors import ExitCode, FormatError, RunFailedError, os_reason

P = ParamSpec("P")
T = TypeVar("T")

Observer = Callable[[str, Path], None]
_observer: Observer | None = None

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: the limit a shell or scheduler sets on file sizes
_FORBIDDEN = {
    errno.EACCES: ("no permission to write here", "check who owns the folder, or choose another with --lab"),
    errno.EPERM: ("no permission to write here", "check who owns the folder, or choose another with --lab"),
    errno.EROFS: ("the file system is read-only", "choose a lab on another disk with --lab"),
}
_RUST_ERROR = re.compile(r"\(os error ([0-9]+)\)")  # how Rust, and so safetensors and tokenizers, words errno
_FOLDER_SYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # some network file systems; nothing to do then


class DamagedError(FormatError):
    """A file or folder that is not as it was written: cut, changed, incomplete; `where` names it."""


class NotWritableError(RunFailedError):
    """A place that cerank may not write to; nothing was begun there."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


class Handle(msgspec.Struct, frozen=True):
    """A file open for appending; `path` is for messages."""

    path: Path
    descriptor: int


# the seam


@contextlib.contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call `observer(name, path)` before each change to the disk; in tests, it may raise to simulate a crash.

    While it watches, each write is done in two halves with the operation "half" between them. A crash is best a
    BaseException that is raised again at every later operation, for a dead process cleans nothing up.
    """
    global _observer  # noqa: PLW0603 - the one seam; threading it through every caller would leave holes
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def _operation(name: str, path: Path, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do one change to the disk.

    Raises:
        RunFailedError: the disk refuses; NotWritableError where permission is missing.
    """
    if _observer is not None:
        _observer(name, path)
    try:
        return act(*args, **kwargs)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> RunFailedError:
    if error.errno in _FORBIDDEN:
        what, hint = _FORBIDDEN[error.errno]
        return NotWritableError(what, where=str(path), hint=hint)
    if error.errno in _NO_SPACE:
        hint = "free some space and resume; all complete files are intact"
        return RunFailedError("no space left to write this file", where=str(path), hint=hint, code="disk-full")
    if error.errno == errno.ENOENT:
        return RunFailedError(
            "the folder of the file is gone",
            where=str(path),
            hint="was the run moved or removed while in use?",
            code="folder-gone",
        )
    return RunFailedError(f"cannot write the file: {os_reason(error)}", where=str(path))


def _underlying_os_error(error: BaseException) -> OSError | None:
    """Return the system error behind an error of a library that writes by itself, such as safetensors; else None."""
    if isinstance(error, OSError):
        return error
    match = _RUST_ERROR.search(str(error)) if not isinstance(error, RunFailedError) else None
    return OSError(int(match[1]), os.strerror(int(match[1]))) if match else None


# files


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _write_observed(descriptor: int, path: Path, data: bytes) -> None:
    """Write all of `data`, in two halves if an observer is installed, as a crash may tear it."""
    if _observer is None:
        _operation("write", path, _write_all, descriptor, data)
        return
    middle = len(data) // 2
    _operation("write", path, _write_all, descriptor, data[:middle])
    _operation("half", path, _write_all, descriptor, data[middle:])


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _FOLDER_SYNC_UNSUPPORTED):
            raise
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    # one name for each target: the next writer replaces the leftover of a killed one
    return path.with_name(f".{path.name}.tmp")


def write(path: Path, data: bytes) -> None:
    """Write `data` to `path`: after a crash at any point it has the old content or the new, never a mix.

    One writer at a time for each path. The folder must exist: a run that was removed is not brought back by a write.

    Raises:
        RunFailedError: no space, no permission, or no such folder; the old content is intact.
    """
    temporary = _temporary(path)
    descriptor = _operation("create", temporary, _open, temporary, os.O_WRONLY | os.O_TRUNC)
    try:
        _write_observed(descriptor, temporary, data)
        _operation("sync", temporary, os.fsync, descriptor)
    except RunFailedError:
        with contextlib.suppress(RunFailedError):  # on a full disk, remove the part that was written
            remove(temporary)
        raise
    finally:
        os.close(descriptor)
    _operation("rename", path, os.replace, temporary, path)
    _operation("sync-folder", path.parent, _sync_path, path.parent)


def touch(path: Path) -> None:
    """Make sure that `path` exists; several processes may do so at once."""
    os.close(_operation("create", path, _open, path, os.O_WRONLY))
    _operation("sync-folder", path.parent, _sync_path, path.parent)


def remove(path: Path) -> None:
    """Remove one file, where it exists."""
    if path.exists() or path.is_symlink():
        _operation("remove", path, path.unlink, missing_ok=True)
        _operation("sync-folder", path.parent, _sync_path, path.parent)


def link(source: Path, target: Path) -> None:
    """Make `target` a file with the same content: a hard link, or a copy if the file system has none.

    For files that nobody changes in place, as all that cerank writes whole; the folder of `target` exists.

    Raises:
        RunFailedError: the disk refuses.
    """
    try:
        _operation("link", target, os.link, source, target, follow_symlinks=False)
    except RunFailedError:
        _operation("copy", target, shutil.copyfile, source, target)


# appending


def open_append(path: Path) -> Handle:
    """Open `path` for appending, creating it if absent. Close it with `close`."""
    is_new = not path.exists()
    handle = Handle(path, _operation("create", path, _open, path, os.O_RDWR | os.O_APPEND))
    if is_new:
        _operation("sync-folder", path.parent, _sync_path, path.parent)
    return handle


def append(handle: Handle, data: bytes) -> None:
    """Append `data`; a crash may leave any prefix of it."""
    _write_observed(handle.descriptor, handle.path, data)


def sync(handle: Handle) -> None:
    """Return once everything appended survives a power cut."""
    _operation("sync", handle.path, os.fsync, handle.descriptor)


def truncate(handle: Handle, size: int) -> None:
    """Cut the file to `size` bytes."""
    _operation("truncate", handle.path, os.ftruncate, handle.descriptor, size)


def close(handle: Handle) -> None:
    """Close the handle; it cannot be used again."""
    os.close(handle.descriptor)


# folders


def make_folder(path: Path) -> None:
    """Make sure that the folder and those above it exist, durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        _operation("make-folder", folder, folder.mkdir, exist_ok=True)
        _operation("sync-folder", folder.parent, _sync_path, folder.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it, if it exists; links in it are removed, not followed."""
    if not path.is_dir() or path.is_symlink():
        remove(path)
        return
    for entry in _operation("list", path, lambda: sorted(path.iterdir())):
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            _operation("remove", entry, entry.unlink, missing_ok=True)
    _operation("remove-folder", path, path.rmdir)


DISCARDED = ".removed"  # the end of the hidden name of what is being removed


def discard(path: Path) -> None:
    """Remove a folder so that it disappears at once: a kill leaves a hidden folder that the next call removes."""
    if not path.exists():
        return
    trash = path.with_name(f".{path.name}{DISCARDED}")
    remove_tree(trash)
    rename(path, trash)
    remove_tree(trash)
    # else a power cut could bring the hidden folder back, and nobody would remove it from a finished run
    _operation("sync-folder", path.parent, _sync_path, path.parent)


def rename(path: Path, target: Path) -> None:
    """Give `path` another name in the same folder, durably.

    Raises:
        RunFailedError: `target` is a folder that holds something.
    """
    _operation("rename", target, path.rename, target)
    _operation("sync-folder", target.parent, _sync_path, target.parent)


def quarantine(path: Path) -> Path:
    """Rename `path` to its name with `.bad` (`.bad2`, `.bad3` ...) appended; return the new path."""
    number = 1
    while True:
        target = path.with_name(f"{path.name}.bad{number if number > 1 else ''}")
        if not (target.exists() or target.is_symlink()):
            rename(path, target)
            return target
        number += 1


def list_content(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files (with links) and the folders under `folder`, in the order of their paths."""
    files: list[Path] = []
    folders: list[Path] = []
    for path in sorted(folder.rglob("*")):
        (folders if path.is_dir() and not path.is_symlink() else files).append(path)
    return files, folders


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Create a temporary folder beside `final` to fill; rename it to `final` once everything in it is on the disk.

    An exception inside removes the temporary folder; a kill leaves it, and the next one for `final` replaces it.

    Raises:
        RunFailedError: `final` exists already, or the disk refuses.
    """
    if final.exists():
        raise RunFailedError(
            "the folder exists already", where=str(final), hint="rename or remove it first", code="folder-exists"
        )
    temporary = _temporary(final)
    make_folder(final.parent)
    remove_tree(temporary)
    _operation("make-folder", temporary, temporary.mkdir)
    try:
        yield temporary
        files, folders = list_content(temporary)
        for file in files:
            _operation("sync", file, _sync_path, file)
        for folder in [*reversed(folders), temporary]:
            _operation("sync-folder", folder, _sync_path, folder)
        rename(temporary, final)
    except BaseException as error:
        with contextlib.suppress(RunFailedError):  # the first error is more useful than one of the clean-up
            remove_tree(temporary)
        system_error = _underlying_os_error(error)
        if system_error is not None:
            raise _write_error(final, system_error) from error
        raise
