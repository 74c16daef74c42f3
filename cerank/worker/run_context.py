"""What every part of one attempt at a run works with: its plan, folder, journals, requests to stop, and its device.

Invariant: a worker that the queue started has inherited the lock on its device. A worker that the user started waits
only for a GPU that a run of another lab uses; within a lab, and on a CPU, the user decided to start it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from cerank.core.ranks import Ranks
from cerank.errors import ExitCode
from cerank.machine import device_locks
from cerank.machine.device_locks import DeviceLock, LockOwner
from cerank.machine.devices import device_key
from cerank.recipes.plan import Plan
from cerank.runs.layout import RunFolder
from cerank.worker.heartbeat import Heartbeat
from cerank.worker.run_log import RunLog

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # Slurm warns by USR1 or USR2
_STOP_CHECK_SECONDS = 0.5  # seconds between checks of the file
LOCK_CHECK_SECONDS = 0.5  # seconds between attempts to lock a device


class StopFlag:
    """A request to stop the worker, by a signal or by a file in the run's folder."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signal = 0
        self._is_requested = False
        self._own_reason = ""
        self._last_check = 0.0

    def install(self) -> None:
        """Handle the signals that ask to stop. A second SIGINT ends the process at once; its last checkpoint stays."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            os._exit(ExitCode.INTERRUPTED)
        self._signal = number

    def request(self, reason: str) -> None:
        """Ask to stop from within: what the run needs has come to a cap."""
        self._own_reason = reason

    @property
    def reason(self) -> str:
        """Return what asked to stop, in a word or two; "" where nothing did."""
        if self._signal:
            return signal.Signals(self._signal).name
        if self._own_reason:
            return self._own_reason
        now = time.monotonic()
        if now - self._last_check >= _STOP_CHECK_SECONDS:
            self._last_check = now
            self._is_requested = self._is_requested or self._file.exists()
        return "a stop request" if self._is_requested else ""


class RunContext(msgspec.Struct, frozen=True):
    """One attempt at a run: its plan and folder, and where the worker reports its progress."""

    plan: Plan
    folder: RunFolder
    log: RunLog
    heartbeat: Heartbeat
    stop: StopFlag
    ranks: Ranks = Ranks()
    own_device: str = ""  # of this process, where there are several

    @property
    def device(self) -> str:
        """Return the device that this process computes on."""
        return self.own_device or self.plan.device

    def raise_if_stopped(self) -> None:
        """Raise an error if the worker was asked to stop.

        Raises:
            PausedError: a signal or a stop request came.
        """
        from cerank.training.trainer import PausedError  # imports torch, which takes seconds

        if self.stop.reason:
            raise PausedError(0)


@contextlib.contextmanager
def hold_devices(context: RunContext, names: Sequence[str]) -> Iterator[None]:
    """Hold the locks of the run's devices during the `with` block, and wait for them first if that is necessary.

    Args:
        context: state of this attempt.
        names: the device of each process of the run.

    Raises:
        PausedError: the worker was asked to stop while it waited.
    """
    folder = context.folder
    named = os.environ.get(device_locks.DEVICE)
    keys = named.split(",") if named else [device_key(name, os.environ) for name in names]
    locks: list[DeviceLock] = []
    is_told = False
    try:
        for key in sorted(set(keys)):  # in one order: two runs that each hold what the other waits for never end
            lock = device_locks.acquire(key, folder.lab, folder.name)
            while isinstance(lock, LockOwner) and names[0] != "cpu" and not lock.is_of(folder.lab):
                if not is_told:
                    why = f"{', '.join(names)} is used by {lock}" if len(names) == 1 else f"a device is used by {lock}"
                    context.heartbeat.enter("wait", why, total=0)
                    context.log.event("waits for a device", why)
                    is_told = True
                context.raise_if_stopped()
                time.sleep(LOCK_CHECK_SECONDS)
                lock = device_locks.acquire(key, folder.lab, folder.name)
            if isinstance(lock, DeviceLock):
                locks.append(lock)
        yield
    finally:
        for held in locks:
            held.release()
