"""Makes sure that a worker has its device to itself among all labs of the machine, waiting if necessary.

Invariant: a worker that the queue started has inherited the lock. A worker that the user started waits only for a GPU
that a run of another lab uses; within a lab, and on a CPU, the user decided to start it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from cerank.machine import device_locks
from cerank.machine.device_locks import DeviceLock, LockOwner
from cerank.recipes.plan import Plan
from cerank.runs.layout import RunFolder
from cerank.worker.run_context import RunContext

_CHECK_SECONDS = 0.5  # seconds


@contextlib.contextmanager
def hold_device(context: RunContext) -> Iterator[None]:
    """Hold the lock of the plan's device during the `with` block, and wait for it first if that is necessary.

    Raises:
        PausedError: somebody asked the worker to stop while it waited.
    """
    plan, folder = context.plan, context.folder
    key = os.environ.get(device_locks.DEVICE) or plan.device
    found = device_locks.acquire(key, folder.lab, folder.name)
    if isinstance(found, LockOwner) and _must_wait(plan, folder, found):
        why = f"{plan.device} is used by {found}"
        context.heartbeat.enter("wait", why, total=0)
        context.log.event("waits for a device", why)
        while isinstance(found, LockOwner) and _must_wait(plan, folder, found):
            context.raise_if_stopped()
            time.sleep(_CHECK_SECONDS)
            found = device_locks.acquire(key, folder.lab, folder.name)
    try:
        yield
    finally:
        if isinstance(found, DeviceLock):
            found.release()


def _must_wait(plan: Plan, folder: RunFolder, other: LockOwner) -> bool:
    return plan.device != "cpu" and not other.is_of(folder.lab)
