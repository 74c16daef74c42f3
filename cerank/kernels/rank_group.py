"""Several processes that carry out one run, one on each device, by torch.distributed.

Invariant: sums over processes are made here, in an order that the number of processes does not change. A collective of
the library only moves data: its own sums follow rings and trees that differ with the number of GPUs.

Decisions go over gloo, on the CPU, and gradients over what is fast for their device.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cerank.core.ranks import Ranks
from cerank.errors import RunFailedError

Value = TypeVar("Value")

# for one exchange: the first process may save or measure meanwhile, and another may read its inputs. Processes that
# died, are frozen or are stuck are found much sooner, by their signs of life (worker/ranks/rank_signs.py)
LONGEST_WAIT = timedelta(minutes=30)
# the newer name of the same, from torch 2.13 on
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
ORDER_POLL = 0.1  # seconds between two looks for an order


class RankGroup(Ranks):
    """The processes that torchrun started on this run.

    Args:
        device: device of this process.
    """

    def __init__(self, device: torch.device) -> None:
        dist.init_process_group("gloo", init_method="env://", timeout=LONGEST_WAIT)
        self.number, self.count = dist.get_rank(), dist.get_world_size()
        self._device = device
        self._store = dist.distributed_c10d._get_default_store()
        self._told = 0
        self._entered, self._depth = 0, 0  # exchanges so far; how deep in one the main thread is
        self._messages = dist.group.WORLD
        self._tensors = (
            dist.new_group(backend="nccl", timeout=LONGEST_WAIT) if device.type == "cuda" else dist.group.WORLD
        )

    def leave(self) -> None:
        """Leave the group; nothing may be exchanged afterwards."""
        with contextlib.suppress(RuntimeError):  # another process is gone already
            dist.destroy_process_group()

    def exchange(self) -> tuple[int, bool]:
        """Return how many exchanges this process has entered, and whether it is in one; any thread may ask."""
        return self._entered, self._depth > 0

    @contextlib.contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Count an exchange, and note that this process waits in it for the others during the `with` block."""
        self._entered += not self._depth
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def agree(self, value: Value) -> Value:
        """Return the value that the first process gave."""
        box: list[Any] = [value]
        with self._exchanging():
            dist.broadcast_object_list(box, src=0, group=self._messages)
        agreed: Value = box[0]
        return agreed

    def any(self, reason: str) -> str:
        """Return the first reason that is not empty, in the order of the processes; "" if none has one."""
        has_reason = torch.tensor([int(bool(reason))])
        with self._exchanging():
            dist.all_reduce(has_reason, dist.ReduceOp.MAX, group=self._messages)
        if not has_reason.item():
            return ""
        numbered = f"rank {self.number}: {reason}" if reason else ""
        return next(filter(None, self.gather(numbered)))

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order."""
        values: list[Any] = [None] * self.count
        with self._exchanging():
            dist.all_gather_object(values, value, group=self._messages)
        return values

    @contextlib.contextmanager
    def first_one_first(self) -> Iterator[None]:
        """Let the others begin the `with` block when the first process has left it."""
        if not self.is_first:
            self.agree(None)
        yield
        if self.is_first:
            self.agree(None)

    def claim(self, counter: str, limit: int) -> Iterator[int]:
        """Yield numbers from 0 to `limit` - 1, each in one process only: in whichever asks for it first."""
        while (number := int(self._store.add(f"claimed {counter}", 1)) - 1) < limit:
            yield number

    def tell(self, order: bytes) -> None:
        """Let the other processes know what to share in next; the first one decides, others are not heard."""
        if not self.is_first:
            return
        self._store.set(f"order {self._told}", order.decode())
        self._told += 1

    def orders(self) -> Iterator[bytes]:
        """Yield what the first process tells, and wait for it as long as it takes."""
        while True:
            key = f"order {self._told}"
            while not self._store.check([key]):
                time.sleep(ORDER_POLL)
            self._told += 1
            yield self._store.get(key)

    @property
    def tensor_group(self) -> Any:
        """Return torch's group of all processes, over what is fast for their device."""
        return self._tensors

    def is_any(self, value: bool) -> bool:
        """Return whether the value is true in any of the processes."""
        flag = torch.tensor([int(value)])
        with self._exchanging():
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._messages)
        return bool(flag.item())

    def gather_into(self, every: Tensor, values: Tensor) -> None:
        """Write the vectors (n,) of all processes into (processes * n,); a GPU may go on with other work meanwhile."""
        with self._exchanging():
            _all_gather(every, values, group=self._tensors)

    def deal(self, received: Tensor, values: Tensor) -> None:
        """Give each process its part of a vector (processes * n,), and write the parts of all for this one likewise."""
        with self._exchanging():
            dist.all_to_all_single(received, values, group=self._tensors)

    def gather_to(self, values: Tensor, number: int) -> Tensor:
        """Return the tensors (n, ...) of all processes as (processes * n, ...) in that process, (0, ...) in others."""
        parts = [torch.empty_like(values) for _ in range(self.count)] if number == self.number else None
        with self._exchanging():
            dist.gather(values.contiguous(), parts, dst=number, group=self._tensors)
        return torch.cat(parts) if parts is not None else values[:0]

    def gather_tensor(self, values: Tensor) -> Tensor:
        """Return the vectors (n,) of all processes as (processes, n)."""
        every = values.new_empty(self.count * values.numel())
        self._wait_for_device()
        with self._exchanging():
            _all_gather(every, values.contiguous(), group=self._tensors)
            self._wait_for_device()
        return every.view(self.count, -1)

    def sum_tree(self, values: Tensor) -> Tensor:
        """Return the sum (n,) of the vectors of all processes, neighbors added first, then sums of neighbors.

        Each process adds up a part of the vector for all, so that as many bytes go over the wire as in any all-reduce.
        The number of processes is a power of two.
        """
        width = -(-values.numel() // self.count)
        padded = torch.nn.functional.pad(values, (0, width * self.count - values.numel()))
        received = torch.empty_like(padded)
        self._wait_for_device()
        with self._exchanging():
            dist.all_to_all_single(received, padded, group=self._tensors)
        parts = list(received.view(self.count, width))
        while len(parts) > 1:
            parts = [left.add_(right) for left, right in zip(parts[::2], parts[1::2], strict=True)]
        with self._exchanging():
            _all_gather(padded, parts[0].contiguous(), group=self._tensors)
            self._wait_for_device()
        return padded[: values.numel()]

    def _wait_for_device(self) -> None:
        """Wait until a GPU has done all so far: what it computes is no exchange, and an exchange has an end."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def check_equal(self, weights: Tensor, where: str) -> None:
        """Check that all processes have the same weights (n,) of integers, such as the sums of their bits.

        Raises:
            RunFailedError: one has others: a faulty device, or devices of different kinds.
        """
        every = self.gather(weights.tolist())
        different = [number for number, own in enumerate(every) if own != every[0]]
        if different:
            raise RunFailedError(
                f"rank {different[0]} has other weights than rank 0 after the same steps",
                where=where,
                hint="a device computes wrongly, or the devices are of different kinds; `cerank resume` goes on from "
                "the last checkpoint",
                code="ranks-differ",
            )


def is_computing(device: torch.device) -> bool:
    """Return whether a GPU has work left that this process gave it; any thread may ask."""
    if device.type != "cuda":
        return False
    try:
        return not torch.cuda.default_stream(device).query()
    except RuntimeError:  # it failed, which the main thread will hear, too
        return False
