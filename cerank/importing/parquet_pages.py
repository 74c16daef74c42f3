"""Computes how much a parquet file unpacks to from its page headers, before any page is unpacked.

Invariant: no page is unpacked here; a file whose pages hold more than `line_reader.LARGEST_RATIO` times its size is
refused, as any other packed file is. Headers are read one by one, because a writer may put any totals in the footer.

The format: https://parquet.apache.org/docs/file-format/, its records in Thrift's compact protocol.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from cerank.errors import FormatError
from cerank.files import line_reader
from cerank.files.safe_open import open_file

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
    left = max(line_reader.UNCHECKED_BYTES, line_reader.LARGEST_RATIO * size)
    with open_file(path) as file:
        try:
            if size < 12:
                raise ValueError("it is too short")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for page in _sizes(data):
                    left -= page
                    if left < 0:
                        raise line_reader.decompression_bomb(path)
        except (ValueError, KeyError, IndexError, struct.error) as error:
            raise FormatError(f"not a readable parquet file: {error}", where=str(path)) from error
