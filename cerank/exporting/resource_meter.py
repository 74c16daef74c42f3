"""Time, memory and energy that a piece of work takes, measured from outside: nothing here changes what it computes.

Invariant: what cannot be measured on a machine is None, never an estimate.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from typing import Any

import msgspec

from cerank.machine.devices import gpu_joules, joules_between


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece of work took."""

    seconds: float  # by the clock on the wall
    user: float | None = None  # seconds of processor time in the program, all its threads together
    system: float | None = None  # seconds of processor time in the operating system on its behalf
    memory: int | None = None  # largest bytes of memory that the process has held since it started
    gpu_memory: int | None = None  # largest bytes of GPU memory that tensors held; None without a GPU
    gpu_joules: float | None = None  # energy of the GPU by its own counter
    cpu_joules: float | None = None  # energy of all processors by their counters, other programs' share included
    notes: tuple[str, ...] = ()  # why energy is missing


class ResourceMeter:
    """Measures from its making to `stop`.

    Args:
        device: device whose energy and memory are read: "cpu", "cuda", "cuda:1".
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._tracker, self._missing = _start_tracker()
        self._gpu = gpu_joules(device)
        self._times = os.times()
        self._start = time.perf_counter()

    def stop(self) -> Resources:
        """Return what was used until now; to be called once."""
        seconds, times = time.perf_counter() - self._start, os.times()
        gpu = joules_between(self._gpu, gpu_joules(self._device))
        cpu, missing = _stop_tracker(self._tracker) if self._tracker is not None else (None, self._missing)
        return Resources(
            seconds=seconds,
            user=times.user - self._times.user,
            system=times.system - self._times.system,
            memory=_largest_memory(),
            gpu_memory=_largest_gpu_memory(self._device),
            gpu_joules=gpu,
            cpu_joules=cpu,
            notes=(missing,) if missing else (),
        )


def _start_tracker() -> tuple[Any, str]:
    """Return tirex-tracker's handle, already measuring, and ""; or None and the reason."""
    try:
        library = importlib.import_module("tirex_tracker")
    except (ImportError, OSError):  # the latter where its own library does not load
        return None, "the processor's energy is not in the metadata: pip install 'cerank[energy]' measures it"
    measure = library.Measure.CPU_ENERGY_SYSTEM_JOULES
    return library.start_tracking(measures={measure}), ""


def _stop_tracker(tracker: Any) -> tuple[float | None, str]:
    measured = tracker.stop()
    value = next((entry.value for key, entry in measured.items() if key.name == "CPU_ENERGY_SYSTEM_JOULES"), None)
    joules = None
    with contextlib.suppress(TypeError, ValueError):
        joules = float(json.loads(value))  # type: ignore[arg-type]  # None raises TypeError
    if joules is None:
        return None, "the processor's energy is not in the metadata: its counters cannot be read here"
    return joules, ""


def _largest_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _largest_gpu_memory(device: str) -> int | None:
    torch = sys.modules.get("torch")  # where it was not imported, nothing was computed on a GPU
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated(device))
