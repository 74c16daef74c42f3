"""The ids of a collection's documents by their place, so that any of them can be sampled.

Invariant: the order is that in which the collection is iterated, which is the same on every machine.
"""

from __future__ import annotations

from array import array
from functools import cached_property

from cerank.datasets.dataset import Documents


class CollectionIds:
    """The ids of all documents, read once when the first is asked for and kept in one piece of memory.

    8.8 million ids of seven digits take some 130 MB, a fifth of what a list of texts would.

    Args:
        documents: the collection.
        prefix: what ids begin with in the dataset: of a mixture the number of the set.
    """

    def __init__(self, documents: Documents, prefix: str = "") -> None:
        self._documents, self._prefix = documents, prefix

    @cached_property
    def _packed(self) -> tuple[bytes, array[int]]:
        ends, parts, end = array("Q"), bytearray(), 0
        for doc_id, _ in self._documents:
            encoded = doc_id.encode()
            parts += encoded
            end += len(encoded)
            ends.append(end)
        return bytes(parts), ends

    def __len__(self) -> int:
        return len(self._packed[1])

    def __getitem__(self, place: int) -> str:
        data, ends = self._packed
        return self._prefix + data[ends[place - 1] if place else 0 : ends[place]].decode()
