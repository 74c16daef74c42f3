"""Append-only files with one JSON record per line: one worker writes, anyone may read at any time.

Invariant: a record that was read once stays where it is; the writer cuts only a last line that was never finished.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType, UnionType
from typing import Generic, TypeVar

import msgspec

from cerank.errors import os_error
from cerank.files import disk
from cerank.files.disk import DamagedError
from cerank.files.json_records import (
    CRC_DIFFERS,
    DECODE_ERRORS,
    crc_matches,
    decode_reason,
    decoder_of,
    encode_record,
    with_crc,
)
from cerank.files.safe_open import open_file, read_file

R = TypeVar("R")

SYNC_EVERY = 5.0  # seconds; what a power cut may take
_DUE = 2.5  # seconds after which `sync_if_due` syncs: asked every 2, nothing waits for 5


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except DECODE_ERRORS:
        return False
    return True


def _complete_length(data: bytes | mmap.mmap, end: int) -> int:
    """Return the length of `data[:end]` up to the end of its last complete line.

    A line without its line feed was not, nor was a last line that is no JSON at all: a power cut may leave a block
    of zeros. A last line of JSON that is merely another record is kept, for cutting it would lose what was written.
    """
    end = data.rfind(b"\n", 0, end) + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if _is_json(data[start:end]):
            break
        end = start
    return end


def _complete_file_size(path: Path) -> int:
    size = path.stat().st_size
    if not size:
        return 0
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _complete_length(data, size)


class Journal(Generic[R]):
    """The one writer of a journal, in one thread; open it only while holding the run's lease."""

    def __init__(self, path: Path, kind: type[R] | UnionType, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open `path`, made if absent, and cuts an unfinished last line.

        Args:
            path: the file; its folder exists.
            kind: the struct of a row, or a union of tagged ones.
            clock: seconds that never go back.
        """
        self._decoder = decoder_of(kind)
        self._clock = clock
        self._handle = disk.open_append(path)
        self._size = _complete_file_size(path)
        self._is_torn = self._size != path.stat().st_size
        self._cut_unfinished_row()
        self._synced = clock()
        self._is_waiting = False

    def _cut_unfinished_row(self) -> None:
        if self._is_torn:
            disk.truncate(self._handle, self._size)
            self._is_torn = False

    def append(self, record: R) -> None:
        """Add a row; it survives a kill at once, and a power cut after at most 5 seconds or `sync`.

        Raises:
            RunFailedError: the record holds NaN or an infinity, or the disk is full. The journal stays whole: a row
                that went in half is cut before the next one.
        """
        row = with_crc(encode_record(record, self._decoder, str(self._handle.path))) + b"\n"
        self._cut_unfinished_row()
        self._is_torn = True
        disk.append(self._handle, row)
        self._is_torn = False
        self._is_waiting = True
        self._size += len(row)
        if self._clock() - self._synced >= SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Return once every row survives a power cut; call it before a checkpoint."""
        self._is_waiting = False
        disk.sync(self._handle)
        self._synced = self._clock()

    def sync_if_due(self) -> None:
        """Sync where rows have waited for 2.5 seconds; another thread than the writer's may call it until `close`.

        Without it a row followed by a long pause, such as a validation, would stay behind as long as that.
        """
        if self._is_waiting and self._clock() - self._synced >= _DUE:
            self.sync()

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            disk.close(self._handle)

    def __enter__(self) -> Journal[R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise os_error(error, path, DamagedError) from error


def _decode_lines(
    data: bytes, decoder: msgspec.json.Decoder[R], path: Path, first: int = 1
) -> tuple[list[R], list[DamagedError]]:
    """Return the records in complete lines, and an error for each line without one; lines count from `first`."""
    lines = data.split(b"\n")[:-1]
    try:
        records = decoder.decode_lines(data) if all(map(crc_matches, lines)) else []
    except DECODE_ERRORS:
        records = []
    if len(records) == len(lines):
        return records, []
    records = []  # line by line it takes a few times as long, and finds the bad ones
    errors = []
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        try:
            if not crc_matches(line):
                raise ValueError(CRC_DIFFERS)
            records.append(decoder.decode(line))
        except DECODE_ERRORS as error:
            errors.append(DamagedError(f"not a readable row: {decode_reason(error)}", where=f"{path}:{number}"))
    return records, errors


def _read(path: Path, kind: type[R] | UnionType) -> tuple[list[R], list[DamagedError]]:
    data = _bytes(path)
    decoder: msgspec.json.Decoder[R] = decoder_of(kind)
    return _decode_lines(data[: _complete_length(data, len(data))], decoder, path)


def read(path: Path, kind: type[R] | UnionType) -> list[R]:
    """Return every complete row; an absent file has none.

    Raises:
        DamagedError: a row before the last is broken; `where` is file:line.
    """
    records, errors = _read(path, kind)
    if errors:
        raise errors[0]
    return records


def read_valid_rows(path: Path, kind: type[R] | UnionType) -> tuple[list[R], list[str]]:
    """Return every readable row, and a message for each damaged one."""
    records, errors = _read(path, kind)
    return records, [str(error) for error in errors]


class Tail(Generic[R]):
    """Follows a journal that is being written; each call to `new` reads only what was added.

    Attributes:
        restarts: how often the file was cut or replaced; rows given out before the last of these are void.
        damage: a message for each broken row passed over since then.
    """

    def __init__(self, path: Path, kind: type[R] | UnionType) -> None:
        self._path = path
        self._decoder: msgspec.json.Decoder[R] = decoder_of(kind)
        self._inode = 0
        self._offset = 0
        self._line = 1
        self.restarts = 0
        self.damage: list[str] = []

    def new(self, at_most: int = -1) -> list[R]:
        """Return the rows completed since the last call, or all rows after `restarts` went up.

        With `at_most`, those in the next so many bytes, which must be more than a row has.
        """
        try:
            with open_file(self._path) as file:
                state = os.fstat(file.fileno())
                if self._offset and (state.st_size < self._offset or state.st_ino != self._inode):
                    self._start_over()
                self._inode = state.st_ino
                file.seek(self._offset)
                data = file.read(at_most)
        except OSError:
            if self._offset:
                self._start_over()
            return []
        data = data[: _complete_length(data, len(data))]
        records, errors = _decode_lines(data, self._decoder, self._path, self._line)
        self._offset += len(data)
        self._line += data.count(b"\n")
        self.damage += [str(error) for error in errors]
        return records

    def _start_over(self) -> None:
        self._offset, self._line = 0, 1
        self.damage = []
        self.restarts += 1
