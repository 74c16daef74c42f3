"""SHA-256 of texts, JSON values and files, written as 64 hex digits.

Invariant: the hash of an input that was written to since, by anything that leaves the time of its last change of state
to the system, is computed again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from cerank.errors import os_error
from cerank.files.safe_open import open_file

_SETTLED = 2 * 10**9  # nanoseconds after a change before a hash is kept: clocks of file systems are that coarse


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of texts without line feeds, a line each; they are gone through once and not kept."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys: equal values have equal hashes on every machine."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def combined_sha256(hashes: Sequence[str]) -> str:
    """Return one SHA-256 for files with these: of a single file its own, of several that of the list of them."""
    return hashes[0] if len(hashes) == 1 else sha256_text("\n".join(hashes))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of a regular file; reads all of it.

    Raises:
        MissingError: there is no such file.
        UsageError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise os_error(error, path) from error


class HashedFile(msgspec.Struct, frozen=True):
    """An input, its state when it was hashed, and its hash; a list of them is the manifest of a plan."""

    path: str
    size: int
    modified: int  # nanoseconds
    changed: int  # nanoseconds; of the last change of state, which nobody can set back
    inode: int
    device: int
    sha256: str = ""


_hashed: dict[str, HashedFile] = {}  # by path


def input_sha256(path: Path) -> str:
    """Return the SHA-256 of an input, which is read only if it is new or has changed since it was hashed.

    Raises:
        MissingError, UsageError: as `sha256_file`.
    """
    try:
        before = _state_of(path)
    except OSError as error:
        raise os_error(error, path) from error
    known = _hashed.get(before.path)
    if known is not None and msgspec.structs.replace(known, sha256="") == before:
        return known.sha256
    sha256 = sha256_file(path)
    if time.time_ns() - before.changed > _SETTLED and _state_of(path) == before:
        _hashed[before.path] = msgspec.structs.replace(before, sha256=sha256)
    return sha256


def _state_of(path: Path) -> HashedFile:
    state = path.stat()
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return HashedFile(os.path.realpath(path), state.st_size, *times, state.st_ino, state.st_dev)


def hashed_inputs() -> tuple[HashedFile, ...]:
    """Return the inputs that this process has hashed or knows, by path, for a worker that will read the same."""
    return tuple(_hashed[path] for path in sorted(_hashed))


def trust_hashes(files: Iterable[HashedFile]) -> None:
    """Take over hashes that another process computed; each counts only while its file is as it was then."""
    _hashed.update({file.path: file for file in files})
