"""Sets of row numbers at a bit a row, and some items of a long sequence that are chosen by such a set.

Invariant: rows are in ascending order, whatever the order in which they were added.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import overload

_FLAGS = [tuple(byte >> bit & 1 for bit in range(8)) for byte in range(256)]  # of each byte, its bits from the lowest
_BLOCK = 64  # bytes; before each, the number of rows in all blocks before is kept


class RowSet(Sequence[int]):
    """Some of the rows 0..size-1: a bit for each row of the whole, and 8 bytes for every 512.

    Args:
        size: number of rows of the whole.

    Example:
        >>> rows = RowSet(1000)
        >>> for row in (7, 3, 999):
        ...     rows.add(row)
        >>> list(rows), rows[1], 7 in rows, rows.count_before(900)
        ([3, 7, 999], 7, True, 2)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._bits = bytearray(-(-size // (8 * _BLOCK)) * _BLOCK)
        self._before: array[int] | None = None  # made when it is first needed after the last row was added

    @classmethod
    def of_bits(cls, size: int, bits: bytes) -> RowSet:
        """Return the set whose `bits` these are; ValueError where they are not those of so many rows."""
        rows = cls(size)
        beyond = int.from_bytes(bits[size >> 3 :], "little") >> (size & 7)
        if len(bits) != len(rows._bits) or beyond:
            raise ValueError(f"{len(bits)} bytes are not a set of {size} rows")
        rows._bits[:] = bits
        return rows

    @property
    def bits(self) -> bytes:
        """Return a bit for each row, the first one lowest, filled up with zeros to whole blocks of 64 bytes."""
        return bytes(self._bits)

    def add(self, row: int) -> None:
        """Add a row; one that is in the set already changes nothing."""
        self._bits[row >> 3] |= 1 << (row & 7)
        self._before = None

    def _counts(self) -> array[int]:
        """Return the number of rows before each block, and of all rows."""
        if self._before is None:
            before, total = array("Q", [0]), 0
            for start in range(0, len(self._bits), _BLOCK):
                total += int.from_bytes(self._bits[start : start + _BLOCK], "little").bit_count()
                before.append(total)
            self._before = before
        return self._before

    def __len__(self) -> int:
        return self._counts()[-1]

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < self.size and bool(self._bits[row >> 3] >> (row & 7) & 1)

    def __getitem__(self, place: int) -> int:  # type: ignore[override]  # no slices
        """Return the row at a place of the set; IndexError beyond the last."""
        before = self._counts()
        if not 0 <= place < before[-1]:
            raise IndexError(place)
        block = bisect_right(before, place) - 1
        left = place - before[block]
        for at in range(block * _BLOCK, (block + 1) * _BLOCK):
            count = self._bits[at].bit_count()
            if left < count:
                byte = self._bits[at]
                for _ in range(left):
                    byte &= byte - 1  # takes out the lowest bit
                return 8 * at + (byte & -byte).bit_length() - 1
            left -= count
        raise AssertionError("the counts disagree with the bits")

    def __iter__(self) -> Iterator[int]:
        return itertools.compress(range(self.size), self._flags())

    def _flags(self) -> Iterator[int]:
        """Yield 1 for each row of the whole that is in the set, else 0; as fast as C, for there may be millions."""
        return itertools.chain.from_iterable(map(_FLAGS.__getitem__, self._bits))

    def at_places(self, places: RowSet) -> RowSet:
        """Return the rows of this set at some places of it."""
        chosen = RowSet(self.size)
        for row in itertools.compress(self, places._flags()):
            chosen.add(row)
        return chosen

    def count_before(self, row: int) -> int:
        """Return how many rows of the set are smaller than a row."""
        block = row // (8 * _BLOCK)
        within = int.from_bytes(self._bits[block * _BLOCK : (block + 1) * _BLOCK], "little")
        return self._counts()[block] + (within & (1 << row % (8 * _BLOCK)) - 1).bit_count()


class ItemsByPlace(Sequence[str], ABC):
    """Items that are looked up one at a time; slices are lists."""

    @abstractmethod
    def item(self, place: int) -> str:
        """Return the item at a place from 0 to the length less one."""

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return list(map(self.item, range(*place.indices(len(self)))))
        at = place + len(self) if place < 0 else place
        if not 0 <= at < len(self):
            raise IndexError(place)
        return self.item(at)


class ChosenItems(ItemsByPlace):
    """The items of a sequence at some of its places, looked up when they are asked for.

    Args:
        items: the whole sequence.
        rows: places of it that are chosen; None chooses all.
    """

    def __init__(self, items: Sequence[str], rows: Sequence[int] | None = None) -> None:
        self._items, self._rows = items, rows

    def __len__(self) -> int:
        return len(self._items) if self._rows is None else len(self._rows)

    def item(self, place: int) -> str:
        """Return the item at a place of those chosen."""
        return self._items[place if self._rows is None else self._rows[place]]

    def __iter__(self) -> Iterator[str]:
        if self._rows is None:
            return iter(self._items)
        return (self._items[row] for row in self._rows)


class KnownItems(ChosenItems):
    """Chosen items that are not kept in memory, of which it is known whether something is among them.

    Args:
        items: the whole sequence.
        rows: as for `ChosenItems`.
        has: returns whether something is one of the chosen items, without going through them.
    """

    def __init__(self, items: Sequence[str], rows: Sequence[int] | None, has: Callable[[object], bool]) -> None:
        super().__init__(items, rows)
        self._has = has

    def __contains__(self, item: object) -> bool:
        return self._has(item)
