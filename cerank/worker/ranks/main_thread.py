"""How long the main thread of this process has stood still: at the same line, while nothing was computed for it.

A thread that waits for what never comes uses no processor. Honest work does not look so, however slow it is: a step
of minutes on a busy machine, kernels that other processes compile, a model that is written to a slow disk, a GPU that
computes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

import psutil

_WORKING = 0.02  # share of a processor; libraries' threads that only look around use less
_AT_WORK = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)

Use = tuple[float, bool]  # processor seconds so far, and whether anyone computes or waits for a disk just now


class MainThread:
    """Watches the main thread from another one, which looks every few seconds.

    Args:
        is_device_busy: returns whether the device of this process computes.
        processor: returns what was used for the work of the main thread.
    """

    def __init__(
        self, is_device_busy: Callable[[], bool] = lambda: False, processor: Callable[[], Use] | None = None
    ) -> None:
        self._is_device_busy, self._processor = is_device_busy, processor or processor_use
        self._at: tuple[tuple[object, int], ...] = ()
        self._used = self._still = 0.0

    def seconds_still(self, passed: float) -> float:
        """Look, `passed` seconds after the last time, and return for how many seconds it has stood still by now."""
        at, (used, is_at_work) = tuple(_position(self._frame())), self._processor()
        is_working = is_at_work or used - self._used > _WORKING * passed or self._is_device_busy()
        self._still = 0.0 if at != self._at or is_working else self._still + passed
        self._at, self._used = at, used
        return self._still

    def place(self) -> str:
        """Return where it is in cerank's code, as file, line and function; a library's line says less."""
        for call in reversed(traceback.extract_stack(self._frame())):
            if f"{os.sep}cerank{os.sep}" in call.filename:
                return f"{call.filename.rpartition(os.sep)[2]}:{call.lineno}, {call.name}"
        return "outside of cerank's code"

    def stack(self) -> str:
        """Return all its calls, for a log."""
        return "".join(traceback.format_stack(self._frame()))

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(threading.main_thread().ident or 0)


def _position(frame: FrameType | None) -> Iterator[tuple[object, int]]:
    """Yield function and instruction of each call of a stack."""
    while frame is not None:
        yield frame.f_code, frame.f_lasti
        frame = frame.f_back


def processor_use() -> Use:
    """Return what this process and its children use; Python's daemon threads, which only report, do not count."""
    process = psutil.Process()
    reporting = {thread.native_id for thread in threading.enumerate() if thread.daemon}
    try:
        threads = [thread for thread in process.threads() if thread.id not in reporting]
        children = process.children(recursive=True)
    except psutil.Error:  # a system that does not tell: then nobody counts as stuck
        return time.process_time(), True
    used = sum(thread.user_time + thread.system_time for thread in threads)
    states = []
    for thread in threads:
        with contextlib.suppress(psutil.Error):  # it has ended, or the system does not tell of single threads
            states.append(psutil.Process(thread.id).status())
    for child in children:
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            used += times.user + times.system
            states.append(child.status())
    return used, any(state in _AT_WORK for state in states)
