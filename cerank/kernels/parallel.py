"""Compute several batches at once on a CPU, each by one thread from end to end.

Invariant: the result of a batch does not depend on how many threads there are, nor on which of them computed it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_MAX_THREADS = 32  # between two kernels Python itself runs for one thread at a time, so more gain nothing

Work = TypeVar("Work")


def run_in_threads(work: Callable[[Work], None], items: Sequence[Work], threads_per_item: int = 1) -> None:
    """Call `work` on every item, the first ones first, in as many threads as torch has for its kernels here.

    Each thread has the caller's torch modes (inference, gradients), and computes its kernels alone. An exception in any
    item ends all, once the items under way are done, and is raised.

    Args:
        work: called with each item. It must not set the number of threads itself: a thread that has set it, but has
            computed nothing yet, still takes the number that any other thread sets after it (torch 2.13).
        items: the items, most expensive first.
        threads_per_item: number of threads that the kernels of each item use.
    """
    waiting = deque(items)
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def take_items() -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients), torch.autocast("cpu", enabled=False):
            while True:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                try:
                    work(item)
                except BaseException:
                    waiting.clear()
                    raise

    threads = min(torch.get_num_threads(), len(items), _MAX_THREADS)
    with _kernel_threads(threads_per_item):
        if threads < 2:
            take_items()
            return
        with ThreadPoolExecutor(
            threads, "compute", initializer=torch.set_num_threads, initargs=(threads_per_item,)
        ) as pool:
            try:
                for done in [pool.submit(take_items) for _ in range(threads)]:
                    done.result()
            finally:  # also if the caller is interrupted while it waits
                waiting.clear()


@contextlib.contextmanager
def _kernel_threads(number: int) -> Iterator[None]:
    """Set the number of threads of each kernel within this context, for this thread and those that it starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
