"""Read the energy that a GPU has used, from its driver; nothing here needs a GPU or its libraries."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from cerank.machine.devices import device_key


def gpu_joules(device: str, environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the joules that the GPU has used since its driver was loaded; None where nothing tells them.

    Only differences mean something: read it before and after.
    """
    if not device.startswith("cuda"):
        return None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    key = device_key(device, environ)
    try:
        nvml.nvmlInit()
        if key.startswith(("GPU-", "MIG-")):
            handle = nvml.nvmlDeviceGetHandleByUUID(key)
        else:
            number = key.partition(":")[2]
            handle = nvml.nvmlDeviceGetHandleByIndex(int(number) if number.isdecimal() else 0)
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except (nvml.NVMLError, AttributeError):  # parts of a GPU, and GPUs before Volta, do not count it
        return None


def joules_between(before: float | None, after: float | None) -> float | None:
    """Return the joules used between two readings of `gpu_joules`; None where one of them told nothing."""
    return None if before is None or after is None else after - before
