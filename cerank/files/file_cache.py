"""Remembers the SHA-256 of large files by size and modification time, so that they are not hashed at every start.

Invariant: a file that was written to since, by anything that leaves its time to the system, is not known.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.errors import HeldError, os_error
from cerank.files import disk, json_records
from cerank.files.lease import Lease


class FileStamp(msgspec.Struct, frozen=True):
    """Size, time and inode of a file when it was hashed; a file that still has them is not hashed again."""

    path: str
    size: int
    modified: int  # nanoseconds
    inode: int
    sha256: str = ""


def stamp_of(path: Path) -> FileStamp:
    """Return the file's stamp, without a hash.

    Raises:
        MissingError, UsageError: the file does not exist or cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise os_error(error, path) from error
    return FileStamp(os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino)


def cache_name(path: Path) -> str:
    """Return the name of cache files that belong to the file at this path."""
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def known_sha256(path: Path, folder: Path) -> str:
    """Return the remembered SHA-256 of a file that has not changed since, by size and time; else ""."""
    try:
        stamp = json_records.decode((folder / f"{cache_name(path)}.stamp").read_bytes(), FileStamp)
    except (OSError, ValueError):
        return ""
    return stamp.sha256 if msgspec.structs.replace(stamp, sha256="") == stamp_of(path) else ""


def remember(path: Path, folder: Path, stamp: FileStamp) -> None:
    """Remember that the file with this stamp was processed."""
    disk.write(folder / f"{cache_name(path)}.stamp", msgspec.json.encode(stamp))


@contextlib.contextmanager
def exclusive_lock(path: Path, folder: Path) -> Iterator[None]:
    """Wait until no other process processes the same file; the lock ends with its holder."""
    disk.make_folder(folder)
    while True:
        try:
            lease = Lease.take(folder / f"{cache_name(path)}.lock", datetime.now(UTC))
        except HeldError:
            time.sleep(0.5)
            continue
        with lease:
            yield
            return
