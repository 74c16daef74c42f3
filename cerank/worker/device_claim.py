"""A worker's device is its own among all labs of the machine: it holds the device's lock, or waits for it.

Invariant: a worker that the queue started has inherited the lock. One that a person started waits only for a GPU that
a run of another lab uses; within a lab, and on a CPU, starting it was the person's own word.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from cerank.machine import device_locks
from cerank.machine.device_locks import Hold, Holder
from cerank.recipes.plan import Plan
from cerank.runs.layout import RunFolder

_LOOK_EVERY = 0.5  # seconds


@contextlib.contextmanager
def hold_device(
    plan: Plan, folder: RunFolder, tell: Callable[[str], None], pause: Callable[[], None]
) -> Iterator[None]:
    """Within it the plan's device is the run's, as far as devices are shared out here.

    Args:
        plan: says which device.
        folder: the run.
        tell: called once with what it waits for, where it waits.
        pause: called while it waits; may raise.
    """
    key = os.environ.get(device_locks.DEVICE) or plan.device
    found = device_locks.take(key, folder.lab, folder.name)
    if isinstance(found, Holder) and _must_wait(plan, folder, found):
        tell(f"{plan.device} is used by {found}")
        while isinstance(found, Holder) and _must_wait(plan, folder, found):
            pause()
            time.sleep(_LOOK_EVERY)
            found = device_locks.take(key, folder.lab, folder.name)
    try:
        yield
    finally:
        if isinstance(found, Hold):
            found.release()


def _must_wait(plan: Plan, folder: RunFolder, other: Holder) -> bool:
    return plan.device != "cpu" and not other.is_of(folder.lab)
