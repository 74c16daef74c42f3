"""Make the same plan give the same bits, and say how far that promise goes on a device."""

from __future__ import annotations

import platform

import torch

from cerank.errors import UsageError
from cerank.kernels.allocator import keep_freed_memory
from cerank.machine.devices import cpu_model


def make_deterministic(device: str, threads: int) -> str:
    """Pin threads, algorithms and memory of the process; return the promise in words, for the attempt's record.

    Raises:
        UsageError: the device is not on this machine.
    """
    torch.set_num_threads(threads)
    # use_deterministic_algorithms(True, warn_only=True) does the same, but imports torch's compiler: a second of CPU
    torch.set_deterministic_debug_mode("warn")
    # that mode also fills new memory, to show reads of unwritten memory: a tenth of the time in bf16
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of a module
    keep_freed_memory()
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


def hardware_name(device: str) -> str:
    """Return the name of what computes: the GPU's, or the processor's with its instructions."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    model = cpu_model()
    if not model:
        return platform.processor() or platform.machine()
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"
