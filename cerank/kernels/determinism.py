"""Make the same plan give the same bits, and say how far that promise goes on a device."""

from __future__ import annotations

import platform

import torch

from cerank.errors import UsageError
from cerank.kernels.attention import flash_attn_function, flash_attn_identity, kernel_name
from cerank.kernels.memory import keep_freed_memory
from cerank.machine.devices import cpu_model, driver_version

# keys of `gpu_environment`: another of these may give other bits
GPU_VERSIONS = (
    "gpu", "gpu capability", "gpu multiprocessors", "gpu driver", "cuda", "cudnn", "attention", "flash-attn"
)  # fmt: skip


def make_deterministic(device: str, threads: int) -> str:
    """Pin threads, algorithms and memory of the process; return the promise in words, for the attempt's record.

    Raises:
        UsageError: the device is not on this machine, or this torch cannot compute on it.
    """
    torch.set_num_threads(threads)
    kind = device.split(":", maxsplit=1)[0]
    # use_deterministic_algorithms does the same, but imports torch's compiler: a second of CPU. On a GPU an operation
    # that has no deterministic form is an error: with a mere warning flash-attention's backward pass has none either
    torch.set_deterministic_debug_mode("error" if kind == "cuda" else "warn")
    # that mode also fills new memory, to show reads of unwritten memory: a tenth of the time in bf16
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of a module
    keep_freed_memory()
    if kind == "cuda":
        _check_cuda(device)
        # else every library call makes a context on the first GPU, too
        torch.cuda.set_device(torch.device(device).index or 0)
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.benchmark = False
        flash_attn_function()  # a build from the hub that does not load is an error before anything is computed
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


def _check_cuda(device: str) -> None:
    """Return if torch computes on this GPU.

    Raises:
        UsageError: it does not, and the error says which of many reasons it is.
    """
    if torch.version.cuda is None:
        hint = "install a build for CUDA (https://pytorch.org/get-started/locally), or use --device cpu"
        raise UsageError(
            f"this torch ({torch.__version__}) is built without CUDA",
            where="device",
            hint=hint,
            code="cuda-unavailable",
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        count = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:  # a driver that is too old, absent, or not allowed to be used
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise UsageError(
            f"CUDA does not start: {reason}", where="device", hint="use --device cpu", code="cuda-unavailable"
        ) from error
    index = torch.device(device).index or 0
    if index >= count:
        what = f"torch sees {count} CUDA device{'' if count == 1 else 's'}, so there is no '{device}'"
        raise UsageError(
            what,
            where="device",
            hint="CUDA_VISIBLE_DEVICES says which it may see; or use --device cpu",
            code="device-not-found",
        )
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        major, minor = torch.cuda.get_device_capability(device)
        what = (
            f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor}) does not run this torch, which "
            f"is built for {' '.join(torch.cuda.get_arch_list())}: {str(error).splitlines()[0][:200]}"
        )
        hint = "install a torch that is built for it (the cu126 builds still have sm_70), or use --device cpu"
        raise UsageError(what, where="device", hint=hint, code="gpu-not-supported") from error


def hardware_name(device: str) -> str:
    """Return the name of what computes: the GPU's, or the processor's with its instructions."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    model = cpu_model()
    if not model:
        return platform.processor() or platform.machine()
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"


def gpu_environment(device: str) -> dict[str, str]:
    """Return everything about a GPU that may change the bits of what it computes; {} for other devices.

    Multiprocessors count, because they decide how a matrix product is split: a slice of a GPU has fewer than the whole.
    """
    if not device.startswith("cuda"):
        return {}
    properties = torch.cuda.get_device_properties(device)
    place = torch.device(device)
    environment = {
        "gpu": str(properties.name),
        "gpu capability": f"{properties.major}.{properties.minor}",
        "gpu multiprocessors": str(properties.multi_processor_count),
        "gpu driver": driver_version(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]  # torch leaves it untyped
        "attention": f"{kernel_name(place, torch.bfloat16, 64, has_window=False)}, "
        f"{kernel_name(place, torch.float32, 64, has_window=False)} in float32",
    }
    if identity := flash_attn_identity():
        environment["flash-attn"] = identity
    return environment
