"""What this machine is doing: processor, memory, disk, GPUs, and the process of a run's worker.

Invariant: psutil and NVIDIA's library are imported at the first sample; without them their figures are absent, and
nothing else is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from cerank.files import lease

_FIRST = 0.1  # seconds that the first sample looks on; a share since a sample that never was would be 0


class Gpu(msgspec.Struct, frozen=True):
    """One NVIDIA GPU; bytes, and shares from 0 to 1."""

    index: int
    name: str
    busy: float
    memory: int
    memory_total: int
    watts: float = 0.0
    celsius: float = 0.0


class Work(msgspec.Struct, frozen=True):
    """The process of a worker."""

    pid: int
    cores: float  # busy, on average since the sample before
    memory: int  # bytes resident


class UsageSample(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at one moment; None where it does not tell."""

    cpu: float | None = None  # share of all cores, since the sample before
    cores: int = 0
    load: float | None = None  # processes that want to run, mean over a minute
    memory: int | None = None  # bytes in use
    memory_total: int | None = None
    disk_free: int | None = None  # where the lab is
    gpus: tuple[Gpu, ...] = ()
    work: Work | None = None


class Machine:
    """Takes samples; used by one thread at a time."""

    def __init__(self, lab: Path) -> None:
        self._lab = lab
        self._nvml: Any = None
        self._is_nvml_tried = False
        self._has_sampled = False
        self._processes: dict[int, Any] = {}

    def sample(self, lease_file: Path | None = None) -> UsageSample:
        """Return the figures now, with those of the process that holds a lease, where it is on this machine."""
        gpus = self.gpus()
        free = None
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._lab).free
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        try:
            import psutil
        except ImportError:
            return UsageSample(cores=os.cpu_count() or 0, load=load, disk_free=free, gpus=gpus)
        memory = psutil.virtual_memory()
        usage_sample = UsageSample(
            cpu=psutil.cpu_percent(None if self._has_sampled else _FIRST) / 100,
            cores=os.cpu_count() or 0,
            load=load,
            memory=memory.total - memory.available,
            memory_total=memory.total,
            disk_free=free,
            gpus=gpus,
            work=self._work(lease_file) if lease_file else None,
        )
        self._has_sampled = True
        return usage_sample

    def _work(self, lease_file: Path) -> Work | None:
        import psutil

        owner = lease.owner(lease_file)
        if owner is None or not lease.is_same_process(owner):
            return None
        try:
            process = self._processes.setdefault(owner.pid, psutil.Process(owner.pid))
            return Work(owner.pid, process.cpu_percent() / 100, process.memory_info().rss)
        except psutil.Error:
            self._processes.pop(owner.pid, None)
            return None

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the GPUs; none where there are none, or NVIDIA's library is not installed."""
        if not self._is_nvml_tried:
            self._is_nvml_tried = True
            self._nvml = _nvml()
        if self._nvml is None:
            return ()
        try:
            return tuple(self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount()))
        except self._nvml.NVMLError:
            return ()

    def _gpu(self, index: int) -> Gpu:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        busy, watts, celsius = 0.0, 0.0, 0.0
        with contextlib.suppress(nvml.NVMLError):  # parts of a GPU tell their memory alone
            busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        with contextlib.suppress(nvml.NVMLError):
            watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        with contextlib.suppress(nvml.NVMLError):
            celsius = float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        name = nvml.nvmlDeviceGetName(handle)
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return Gpu(index, text, busy, memory.used, memory.total, watts, celsius)


def _nvml() -> Any:
    """NVIDIA's library, ready to be asked; None where it or its driver is absent."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return None
    except pynvml.NVMLError:
        return None
    return pynvml


def briefly(gpus: tuple[Gpu, ...]) -> str:
    """Return the GPUs in a few characters each: "GPU0 92% 61/80G"."""
    return "  ".join(
        f"GPU{gpu.index} {100 * gpu.busy:.0f}% {gpu.memory / 2**30:.0f}/{gpu.memory_total / 2**30:.0f}G" for gpu in gpus
    )
