"""Reads tables from parquet files and from the Arrow files of a `datasets` folder, row by row.

Invariant: what a parquet file unpacks to is computed from its page headers before any page is unpacked, and a file
whose pages hold more than `packed_files.LARGEST_RATIO` times its size is refused, as any other packed file is. It is
decoded here only after another process has decoded all of it: a damaged page can make the library ask for more memory
than there is, which ends its process at once, and no exception tells of it.

The format: https://parquet.apache.org/docs/file-format/, its records in Thrift's compact protocol.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cerank.errors import FormatError
from cerank.files import packed_files
from cerank.files.line_reader import translate_read_errors
from cerank.files.safe_open import open_file
from cerank.text.safe_text import shown

_MAGIC = b"PAR1"
_VALUE = 4  # bytes that a value counts at least, for a page says in a few bytes that millions are equal
_DEEPEST = 16  # levels of records; a footer has 6
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
# fields of the records, by number
_GROUPS, _CHUNKS, _CHUNK = 4, 1, 3
_VALUES, _PACKED, _DATA_AT, _DICTIONARY_AT = 5, 7, 9, 11
_PAGE_SIZE, _PAGE_PACKED, _PAGES = 2, 3, (5, 7, 8)  # data, dictionary, data of version 2; field 1 of each: its values

Record = dict[int, object]  # field number -> int, list of records, or record; everything else is passed over


class _Cursor:
    """Reads Thrift's compact protocol."""

    def __init__(self, data: mmap.mmap | bytes, at: int, end: int) -> None:
        self._data, self.at, self._end = data, at, end

    def _byte(self) -> int:
        if not 0 <= self.at < self._end:
            raise ValueError("a record goes beyond its end")
        self.at += 1
        return self._data[self.at - 1]

    def _number(self) -> int:
        """Return an unsigned number of at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._number()
        return (value >> 1) ^ -(value & 1)

    def record(self, depth: int = 0) -> Record:
        """Return the record that starts here."""
        fields: Record = {}
        field = 0
        while (head := self._byte()) != _STOP:
            field = field + (head >> 4) if head >> 4 else self._signed()
            fields[field] = self._value(head & 15, depth, is_field=True)
        return fields

    def _value(self, kind: int, depth: int, *, is_field: bool) -> object:
        if depth > _DEEPEST:
            raise ValueError("records nested too deep")
        if kind in {_TRUE, _FALSE}:
            if not is_field:
                self.at += 1
            return None
        if kind in {4, 5, 6}:
            return self._signed()
        if kind == _STRUCT:
            return self.record(depth + 1)
        if kind in {_LIST, _SET}:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._number()
            return [self._value(head & 15, depth + 1, is_field=False) for _ in range(self._fitting(count))]
        if kind == _MAP:
            count = self._number()
            kinds = self._byte() if count else 0
            for _ in range(self._fitting(count)):
                self._value(kinds >> 4, depth + 1, is_field=False)
                self._value(kinds & 15, depth + 1, is_field=False)
            return None
        sizes = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}
        size = self._number() if kind == _BINARY else sizes[kind]  # moves `at`: no `at +=` of it
        self.at += size
        return None

    def _fitting(self, count: int) -> int:
        """Return `count`, if so many values can stand in what is left."""
        if count > self._end - self.at:
            raise ValueError("a list goes beyond its end")
        return count


def _int(record: Record, field: int) -> int:
    value = record.get(field, 0)
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def _records(record: Record, field: int) -> list[Record]:
    value = record.get(field)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"field {field} is no list of records")
    return value


def _within(record: Record, field: int) -> Record:
    value = record.get(field)
    return value if isinstance(value, dict) else {}


def _sizes(data: mmap.mmap) -> Iterator[int]:
    """Yield the unpacked size of each page in bytes, and of the values that the footer counts."""
    end = len(data) - 8
    footer = end - int(struct.unpack("<I", data[end : end + 4])[0])
    if footer < len(_MAGIC) or data[end + 4 :] != _MAGIC:
        raise ValueError("it does not end as parquet does")
    for group in _records(_Cursor(data, footer, end).record(), _GROUPS):
        for chunk in _records(group, _CHUNKS):
            metadata = _within(chunk, _CHUNK)
            starts = [at for at in (_int(metadata, _DATA_AT), _int(metadata, _DICTIONARY_AT)) if at > 0]
            page = _Cursor(data, min(starts, default=0), footer)
            last = page.at + _int(metadata, _PACKED)
            yield _VALUE * _int(metadata, _VALUES)
            while page.at < last:
                header = page.record()
                size, packed = _int(header, _PAGE_SIZE), _int(header, _PAGE_PACKED)
                values = max(_int(_within(header, field), 1) for field in _PAGES)
                if min(size, packed, values) < 0:
                    raise ValueError("a page of a negative size")
                yield max(size, _VALUE * values)
                page.at += packed


def check_size(path: Path) -> None:
    """Check that the file's pages unpack to at most `LARGEST_RATIO` times its size, or to few bytes.

    Raises:
        FormatError: they hold more, or are none that can be found.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    left = max(packed_files.UNCHECKED_BYTES, packed_files.LARGEST_RATIO * size)
    with open_file(path) as file:
        try:
            if size < 12:
                raise ValueError("it is too short")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for page in _sizes(data):
                    left -= page
                    if left < 0:
                        raise packed_files.decompression_bomb(path)
        except (ValueError, KeyError, IndexError, struct.error) as error:
            raise FormatError(
                f"the file is not readable parquet: {error}", where=str(path), code="invalid-parquet"
            ) from error


_IDS_AT_ONCE, _TEXTS_AT_ONCE = 500_000, 20_000  # rows of a file in memory at once: of ids and numbers, of texts
_DECODING_PROGRAM = """
import json, sys
from pathlib import Path
from cerank.files.tables import decode
for line in sys.stdin:
    path, columns = json.loads(line)
    decode(Path(path), columns)
    print(flush=True)
"""


def is_parquet(path: Path) -> bool:
    """Return whether the file is parquet, by its first bytes; raises as `line_reader.translate_read_errors`."""
    with translate_read_errors(path), open_file(path) as file:
        return file.read(4) == _MAGIC


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a parquet file.

    Raises:
        FormatError: it is no readable parquet file.
    """
    check_size(path)
    return list(scan_parquet(path)[1])


def column_kinds(path: Path) -> dict[str, str]:
    """Return column -> "text", "whole", "number" or "other"; raises as `column_names`."""
    import polars

    def kind_of(dtype: Any) -> str:
        if dtype == polars.String:
            return "text"
        return "whole" if dtype.is_integer() else "number" if dtype.is_numeric() else "other"

    check_size(path)
    return {name: kind_of(dtype) for name, dtype in scan_parquet(path)[1].items()}


def find_column(names: Sequence[str], accepted: Sequence[str], where: str) -> str:
    """Return the one of the accepted names that a table has.

    Raises:
        FormatError: it has none of them, or several.
    """
    matches = [name for name in accepted if name in names]
    if len(matches) != 1:
        what = f"has both columns {' and '.join(matches)}" if matches else f"has no column {' or '.join(accepted)}"
        raise FormatError(what, where=where, hint="its columns: " + shown(", ".join(names), 300), code="wrong-columns")
    return matches[0]


def rows(path: Path, columns: Sequence[str], *, has_texts: bool = False) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield (row number from 1, values of `columns`) of each row of a parquet file, one slice of it in memory.

    Args:
        columns: names of the columns to read.
        has_texts: whether some of them are texts, of which fewer fit into memory than of ids.

    Raises:
        FormatError: it is no readable parquet file.
    """
    check_size(path)
    _decode_in_other_process(path, columns)
    at_once = _TEXTS_AT_ONCE if has_texts else _IDS_AT_ONCE
    for start, part in _slices(path, columns, at_once):
        import polars

        texts = [name for name, dtype in part.schema.items() if dtype == polars.String]
        if sum(int(part[name].str.len_bytes().sum() or 0) for name in texts) > 4 * packed_files.UNCHECKED_BYTES:
            raise packed_files.decompression_bomb(path)  # a text that a dictionary has once and every row names
        yield from enumerate(part.iter_rows(), start + 1)


def decode(path: Path, columns: Sequence[str]) -> None:
    """Decode everything that `rows` will, in a process that may die of it; `rows` reports unreadable files."""
    with contextlib.suppress(FormatError):
        for _ in _slices(path, columns, _TEXTS_AT_ONCE):
            pass


def arrow_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (row number from 1, column -> value) of an Arrow stream, as `datasets` saves one in a folder.

    Raises:
        FormatError: it is no Arrow stream.
    """
    import polars

    try:
        frame = polars.read_ipc_stream(path)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise FormatError(f"the file is not a readable Arrow stream: {shown(error, 200)}", where=str(path)) from error
    yield from enumerate(frame.iter_rows(named=True), 1)


def _decode_in_other_process(path: Path, columns: Sequence[str]) -> None:
    other = _decoding_process(os.getpid())
    assert other.stdin is not None  # noqa: S101 - a pipe
    assert other.stdout is not None  # noqa: S101 - a pipe
    try:
        other.stdin.write(json.dumps([str(path.absolute()), list(columns)]) + "\n")
        other.stdin.flush()
        answer = other.stdout.readline()
    except OSError:  # it had ended before
        answer = ""
    if not answer:
        _decoding_process.cache_clear()
        other.kill()
        code = other.wait()
        ending = f"signal {-code}" if code < 0 else f"{code}"
        raise _damaged_error(path, f"decoding it ended with {ending}")


@functools.lru_cache(maxsize=1)
def _decoding_process(_: int) -> subprocess.Popen[str]:
    """Return the process that decodes files first; it ends with this process, whose id is the argument."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _DECODING_PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf8",
    )


def _slices(path: Path, columns: Sequence[str], at_once: int) -> Iterator[tuple[int, Any]]:
    """Yield the number of rows before a slice, and the slice."""
    import polars

    frame, _ = scan_parquet(path)
    try:
        length = int(frame.select(polars.len()).collect().item())
        for start in range(0, length, at_once):
            yield start, frame.select(columns).slice(start, at_once).collect()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise _damaged_error(path, error) from error


def scan_parquet(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return the file, scanned, and the types of its columns by name."""
    import polars

    try:
        frame = polars.scan_parquet(path, glob=False)
        return frame, frame.collect_schema()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise _damaged_error(path, error) from error


def _damaged_error(path: Path, error: BaseException | str) -> FormatError:
    return FormatError(
        f"the file is not readable parquet: {shown(error, 200)}", where=str(path), code="invalid-parquet"
    )
