"""The record of looks at test sets, LAB/looks.jsonl: which comparisons were made on which judgments, and when.

Invariant: rows are only ever added, each in one write at the end of the file, so that processes that look at once lose
nothing; a row that cannot be read hides no other. A lab that cannot be written to keeps no count and stops nobody.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.errors import CerankError, MissingError, UsageError
from cerank.files import disk, journal
from cerank.files.json_records import decoder_of, encode_record, with_crc

_KEY_LENGTH = 16  # hex digits that tell comparisons apart: 64 bits


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One table of comparisons that somebody saw."""

    time: str  # UTC, ISO 8601
    by: str  # the command, such as "compare"
    comparisons: dict[str, tuple[str, ...]]  # SHA-256 of the judgments -> a key for each comparison on them
    descriptive: tuple[str, ...] = ()  # the keys among them that had no verdict; older records count all as if they had
    pooled: tuple[str, ...] = ()  # the keys among them of lines over several test sets: under the judgments of each


def path_of(lab: Path) -> Path:
    """Return the file of a lab's looks, whether it is there or not."""
    return lab / "looks.jsonl"


def short_key(sha256: str) -> str:
    """Return a hash as rows keep it."""
    return sha256[:_KEY_LENGTH]


def distinct(comparisons: Mapping[str, Sequence[str]], pooled: Container[str]) -> set[tuple[str, str]]:
    """Return each comparison once, as (judgments, key); one over several test sets as ("", key).

    Args:
        comparisons: judgments -> keys.
        pooled: the keys of comparisons over several test sets.
    """
    return {("" if key in pooled else judged, key) for judged, keys in comparisons.items() for key in keys}


def load(lab: Path) -> list[Look]:
    """Return the looks that can be read, the oldest first."""
    try:
        return journal.read_valid_rows(path_of(lab), Look)[0]
    except CerankError:
        return []


def load_all(lab: Path) -> list[Look]:
    """Return every look that was recorded, the oldest first.

    Raises:
        MissingError: the lab keeps no record.
        UsageError: the record cannot be read, or a row of it.
    """
    path = path_of(lab)
    by_hand = "count the comparisons that were made on these judgments yourself: --family N, or --look K of a gate"
    if not path.exists():
        raise MissingError(
            "the lab has no record of looks at its test sets, so that earlier ones cannot be counted",
            where=str(path),
            hint=f"the first comparison without --family looks begins one in a lab that is there; else {by_hand}",
            code="looks-unknown",
        )
    try:
        looks, damaged = journal.read_valid_rows(path, Look)
    except CerankError as error:
        damaged, looks = [str(error)], []
    if damaged:
        raise UsageError(
            f"the record of looks is damaged, so that earlier ones cannot be counted: {damaged[0]}",
            where=str(path),
            hint=by_hand,
            code="looks-damaged",
        )
    return looks


def record(lab: Path, look: Look) -> bool:
    """Add a look; return whether the lab could take it."""
    path = path_of(lab)
    try:
        disk.make_folder(lab)
        row = with_crc(encode_record(look, decoder_of(Look), str(path))) + b"\n"
        handle = disk.open_append(path)
        try:
            if _is_cut_off(path):  # a writer was killed in its row
                row = b"\n" + row
            disk.append(handle, row)
        finally:
            disk.close(handle)
    except (CerankError, OSError):
        return False
    return True


def _is_cut_off(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
