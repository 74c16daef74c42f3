"""Read a GPU's memory and compute capability from its driver, without torch, for what a plan decides by them.

Invariant: where a driver does not tell, nothing is guessed.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import msgspec

from cerank.machine.devices import Device, detect_devices, fits

BF16_CAPABILITY = (8, 0)  # compute capability from which a GPU multiplies bf16 and tf32 in its tensor cores: Ampere
FP16_CAPABILITY = (7, 0)  # and fp16: Volta
_QUERY = ("--query-gpu=uuid,memory.total,compute_cap", "--format=csv,noheader,nounits")


class GpuProperties(msgspec.Struct, frozen=True):
    """Model, memory and compute capability of a GPU, as a plan needs them."""

    model: str
    memory: int  # bytes, whether free or not: what is free now says nothing of later
    capability: tuple[int, int]


def smallest_gpu(name: str, environ: Mapping[str, str]) -> GpuProperties | None:
    """Return the GPU with the least memory among those that a plan for `name` may be given; None where one is unknown.

    Args:
        name: device of a plan, "cuda" or "cuda:N".
        environ: environment; CUDA_VISIBLE_DEVICES counts.
    """
    gpus = [device for device in detect_devices(environ) if device.kind == "cuda" and fits(name, device)]
    properties = properties_by_library(gpus) or properties_by_tool(gpus)
    return min(properties, key=lambda gpu: gpu.memory) if properties and len(properties) == len(gpus) else None


def properties_by_library(gpus: list[Device]) -> list[GpuProperties]:
    """Return the GPUs that NVIDIA's library knows, in their order; empty without the library."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return []
    properties = []
    with contextlib.suppress(nvml.NVMLError, AttributeError, TypeError):
        nvml.nvmlInit()
        for gpu in gpus:
            handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            properties.append(GpuProperties(gpu.model, memory, (int(major), int(minor))))
    return properties


def properties_by_tool(gpus: list[Device]) -> list[GpuProperties]:
    """Ask nvidia-smi, which tells of whole GPUs alone."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        output = subprocess.run(
            [tool, *_QUERY], capture_output=True, errors="replace", timeout=20, check=False
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_properties(output, gpus)


def parse_properties(output: str, gpus: list[Device]) -> list[GpuProperties]:
    """Return the properties of `gpus` that a query of nvidia-smi printed, in their order."""
    by_uuid = {}
    for line in output.splitlines():
        words = [word.strip() for word in line.split(",")]
        with contextlib.suppress(ValueError):
            uuid, mebibytes, capability = words
            major, minor = map(int, capability.split("."))
            by_uuid[uuid] = int(mebibytes) << 20, (major, minor)
    return [GpuProperties(gpu.model, *by_uuid[gpu.uuid]) for gpu in gpus if gpu.uuid in by_uuid]
