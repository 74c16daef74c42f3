"""The unit of training: one query with its labeled candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec


class Group(msgspec.Struct, frozen=True):
    """One query and its candidates, by id; `labels` is the target the loss reads, larger is better.

    For `source = "labels"` a label is the grade from the qrels (0 for a negative, whatever its grade). For
    `source = "teacher"` it is `size - rank + 1` in the teacher's order, so the best of n candidates has n and the worst
    1 (those that tie all have the label of the first), or the teacher's own score, as the stage's loss takes it.

    Where a stage trains several losses, `targets` holds the labels of each, in their order: None for a candidate for
    which that loss has no target, such as a positive that its teacher did not rank.
    """

    query_id: str
    doc_ids: tuple[str, ...]
    labels: tuple[float, ...]
    targets: tuple[tuple[float | None, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.doc_ids)

    def targets_of(self, part: int) -> Sequence[float | None]:
        """Return what one of the stage's losses reads, counted from 0; a group without `targets` has `labels` alone."""
        return self.targets[part] if self.targets else self.labels

    @property
    def pairs(self) -> int:
        """Return the number of pairs of a better and a worse candidate: those whose labels differ."""
        return count_pairs(self.labels)


def count_pairs(targets: Sequence[float | None]) -> int:
    """Return the number of pairs of candidates whose targets differ; those without a target are in none.

    >>> count_pairs([2.0, 1.0, 1.0, None])
    2
    """
    counts = Counter(value for value in targets if value is not None)
    size = sum(counts.values())
    same = sum(count * (count - 1) for count in counts.values())
    return (size * (size - 1) - same) // 2
