"""What the processes of one run have to agree on. A run on one device is a single process, which agrees with itself.

`kernels/rank_group.py` has the same calls for several processes; callers never ask which of the two they have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

Value = TypeVar("Value")

MOST_SHARDS = 8  # of a training step: as many devices as one machine usually has


def shard_count(groups_per_step: int, most: int = MOST_SHARDS) -> int:
    """Return the number of shards of a training step: the largest power of two that leaves no shard without a group.

    >>> [shard_count(groups) for groups in (1, 3, 4, 12, 100)]
    [1, 2, 4, 8, 8]
    """
    return 1 << (min(most, groups_per_step).bit_length() - 1)


class Ranks:
    """The only process of a run.

    Every method is a meeting point: where there are several processes, all of them must make the same calls in the
    same order.

    >>> ranks = Ranks()
    >>> ranks.agree(7), ranks.any("out of memory"), ranks.gather(7)
    (7, 'out of memory', [7])
    """

    number = 0  # of this process, from 0
    count = 1  # processes of the run

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that writes to the run's folder."""
        return self.number == 0

    def agree(self, value: Value) -> Value:
        """Return the value that the first process gave."""
        return value

    def any(self, reason: str) -> str:
        """Return the first reason that is not empty, in the order of the processes; "" if none has one."""
        return reason

    def is_any(self, value: bool) -> bool:
        """Return whether the value is true in any of the processes."""
        return value

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order."""
        return [value]

    @contextlib.contextmanager
    def first_one_first(self) -> Iterator[None]:
        """Let the others begin the `with` block when the first process has left it."""
        yield

    def claim(self, counter: str, limit: int) -> Iterator[int]:
        """Yield numbers from 0 to `limit` - 1, each in one process only: in whichever asks for it first.

        Args:
            counter: name of the work that is dealt out; another one for each call.
            limit: how many numbers there are.
        """
        del counter
        yield from range(limit)

    def tell(self, order: bytes) -> None:
        """Let the other processes know what to share in next."""

    def gather_tensor(self, values: Any) -> Any:
        """Return the vectors (n,) of all processes as (processes, n)."""
        return values[None]

    def sum_tree(self, values: Any) -> Any:
        """Return the sum of the vectors (n,) of all processes, added as a tree of neighbors."""
        return values

    def check_equal(self, weights: Any, where: str) -> None:
        """Check that all processes have the same weights, given as a vector (n,) of integers."""
