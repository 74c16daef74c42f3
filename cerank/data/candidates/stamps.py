"""Which run files were ingested, known again by their size and time, so that gigabytes are not hashed at every start.

Invariant: a file that was written to since, by anything that leaves its time to the system, is not known.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from cerank.data.files import io_mistake
from cerank.store import disk


class Stamp(msgspec.Struct, frozen=True):
    """A file as it was when it was ingested; one that still has this stamp is not hashed again."""

    path: str
    size: int
    modified: int  # nanoseconds
    inode: int
    sha256: str = ""


def room(cache: Path) -> Path:
    """The folder of ingested runs."""
    return cache / "rankings"


def stamp_of(path: Path) -> Stamp:
    """The file's stamp, its hash left open.

    Raises:
        MissingError, UsageError: it is not there, or cannot be looked at.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise io_mistake(path, error) from error
    return Stamp(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)


def named(path: Path) -> str:
    """A name for what belongs to the file at this place."""
    return hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def known_sha256(path: Path, cache: Path) -> str:
    """The hash of a file that was ingested and has not changed since, by its size and time; else ""."""
    try:
        found = msgspec.json.decode((room(cache) / f"{named(path)}.stamp").read_bytes(), type=Stamp)
    except (OSError, ValueError):
        return ""
    return found.sha256 if msgspec.structs.replace(found, sha256="") == stamp_of(path) else ""


def keep(path: Path, cache: Path, stamp: Stamp) -> None:
    """Notes that the file with this stamp was ingested."""
    disk.write(room(cache) / f"{named(path)}.stamp", msgspec.json.encode(stamp))
