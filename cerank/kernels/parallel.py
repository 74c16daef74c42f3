"""Batches side by side on a CPU: each is computed by one thread from end to end.

Invariant: what a batch gives does not depend on how many threads there are, nor on which of them took it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_MOST = 32  # lanes: what Python itself does between two kernels, it does for one of them at a time

Work = TypeVar("Work")


def side_by_side(work: Callable[[Work], None], items: Sequence[Work], threads: int = 1) -> None:
    """Does `work` on every item, the first ones first, by as many threads as torch has for its kernels here.

    Each thread has torch's modes as the caller has them, and its kernels to itself. An exception of any item ends
    all, once the items under way are done, and is raised.

    Args:
        work: does not set the number of threads itself: a thread that has set it, but has computed nothing yet, still
            takes the number that any other thread sets after it (torch 2.13).
        items: what it is done on.
        threads: that the kernels of each item use.
    """
    waiting = deque(items)
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def lane() -> None:
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

    lanes = min(torch.get_num_threads(), len(items), _MOST)
    with _threads_each(threads):
        if lanes < 2:
            lane()
            return
        with ThreadPoolExecutor(lanes, "lane", initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            try:
                for done in [pool.submit(lane) for _ in range(lanes)]:
                    done.result()
            finally:  # also where the caller is interrupted as it waits
                waiting.clear()


@contextlib.contextmanager
def _threads_each(number: int) -> Iterator[None]:
    """Within, kernels use so many threads; it is this thread's own number, and that of threads that start meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
