"""The unit of training: one query with its labeled candidates."""

from __future__ import annotations

from collections import Counter

import msgspec


class Group(msgspec.Struct, frozen=True):
    """One query and its candidates, by id; `labels` is the target the loss reads, larger is better.

    For `source = "labels"` a label is the grade from the qrels (0 for a negative, whatever its grade). For
    `source = "teacher"` it is `size - rank + 1` in the teacher's order, so the best of n candidates has n and the worst
    1 (those that tie all have the label of the first), or the teacher's own score, as the stage's loss takes it.
    """

    query_id: str
    doc_ids: tuple[str, ...]
    labels: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.doc_ids)

    @property
    def pairs(self) -> int:
        """Return the number of pairs of a better and a worse candidate: those whose labels differ."""
        same = sum(count * (count - 1) for count in Counter(self.labels).values())
        return (len(self) * (len(self) - 1) - same) // 2
