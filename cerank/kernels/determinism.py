"""What makes the same plan give the same bits, and how far that promise goes on a device."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

import torch

from cerank.errors import UsageError
from cerank.kernels.allocator import keep_freed


def prepare(device: str, threads: int) -> str:
    """Pins threads, algorithms and memory for the process; returns the promise in words, for the attempt's record.

    Raises:
        UsageError: the device is not on this machine.
    """
    torch.set_num_threads(threads)
    # as use_deterministic_algorithms(True, warn_only=True), which imports all of torch's compiler: a second of CPU
    torch.set_deterministic_debug_mode("warn")
    # with it torch also fills all memory it takes, so that reading it unwritten would show: a tenth of the time in bf16
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of a module
    keep_freed()
    kind = device.split(":", maxsplit=1)[0]
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("torch sees no CUDA device", where="device", hint="use --device cpu")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        # the fused attention kernels sum gradients in any order; the mathematical one in a fixed order
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
        return "same order of data; same bits on the same GPU model, driver and torch as far as its kernels allow"
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("torch sees no MPS device", where="device", hint="use --device cpu")
        return "same order of data; loss close, bits not promised"
    return f"same bits on this kind of CPU with {threads} threads and the same torch"


def automatic() -> str:
    """The device to use where none is named: a CUDA device, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_name(device: str) -> str:
    """What computes: the GPU's name, or the processor's."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({torch.backends.cpu.get_cpu_capability()})"
    return platform.processor() or platform.machine()
