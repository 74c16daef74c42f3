"""Permutations of any number of items that are computed place by place, so that nothing of them is stored.

Invariant: a permutation is a function of its size and its seed alone, on every machine and in every version.
"""

from __future__ import annotations

from collections.abc import Sequence

from cerank.core.seeds import derive

_ROUNDS = 8
_MASK = (1 << 64) - 1
_LEAST_BITS = 3  # of each half: with fewer, some orders of a few items come more often than others


class ComputedPermutation(Sequence[int]):
    """A random permutation of 0..size-1 by a Feistel network with cycle walking; takes no memory.

    The network permutes the numbers of an even number of bits; a number that is no item is permuted again until it is
    one (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Each round mixes as SplitMix64 does.

    Args:
        size: number of items.
        seed: decides the order.

    Example:
        >>> order = ComputedPermutation(5, seed=1)
        >>> sorted(order) == [0, 1, 2, 3, 4], [order.place_of(item) for item in order]
        (True, [0, 1, 2, 3, 4])
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._bits = max(_LEAST_BITS, ((max(1, size - 1).bit_length()) + 1) // 2)
        self._half = (1 << self._bits) - 1
        self._keys = tuple(derive(seed, "permutation", at) for at in range(_ROUNDS))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: int) -> int:  # type: ignore[override]  # no slices
        """Return the item at a place; IndexError beyond the last."""
        if not 0 <= place < self._size:
            raise IndexError(place)
        item = self._forward(place)
        while item >= self._size:
            item = self._forward(item)
        return item

    def place_of(self, item: int) -> int:
        """Return the place of an item: `order[order.place_of(item)] == item`."""
        place = self._backward(item)
        while place >= self._size:
            place = self._backward(place)
        return place

    def _forward(self, number: int) -> int:
        left, right = number >> self._bits, number & self._half
        for key in self._keys:
            left, right = right, left ^ self._mixed(right, key)
        return left << self._bits | right

    def _backward(self, number: int) -> int:
        left, right = number >> self._bits, number & self._half
        for key in reversed(self._keys):
            left, right = right ^ self._mixed(left, key), left
        return left << self._bits | right

    def _mixed(self, half: int, key: int) -> int:
        value = (half + key) * 0x9E3779B97F4A7C15 & _MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
        return (value ^ value >> 31) & self._half
