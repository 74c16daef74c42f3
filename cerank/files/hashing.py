"""SHA-256 of texts, JSON values and files, written as 64 hex digits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from cerank.errors import os_error
from cerank.files.safe_open import open_file


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys: equal values have equal hashes on every machine."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of a regular file.

    Raises:
        MissingError: there is no such file.
        UsageError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise os_error(error, path) from error
