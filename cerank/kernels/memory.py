"""Keep the memory that a model's passes free and take again, and tell errors of too little memory from all others.

Invariant: this changes where memory comes from, never what is computed in it.
"""

from __future__ import annotations

import ctypes
import gc

import torch

from cerank.errors import RunFailedError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's names for what mallopt sets
_KEPT_BYTES = 1 << 30  # freed memory that stays with the process
_HEAP_BYTES = 1 << 26  # padding of the heaps of all threads but the first, which are else given back whole
_OLD_GLIBC_LIMIT = 1 << 25  # the largest value of the third setting before glibc 2.35


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for the next tensor; return False where it is not glibc.

    By default the system takes the memory of every large tensor back and clears its pages for the next one, which took
    a fifth of the time of re-ranking in bf16. The process does not grow larger than it has been.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    is_set = mallopt(_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_TOP_PAD, _HEAP_BYTES)
    return bool(is_set and (mallopt(_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_MMAP_THRESHOLD, _OLD_GLIBC_LIMIT)))


# what torch raises as a plain RuntimeError where memory is short: cuBLAS and cuDNN take theirs beside torch's own, CUDA
# loads kernels when they are first used, and the CPU's and Apple's allocators have no error of their own
_OUT_OF_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "can't allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is too small, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def release_memory(device: torch.device) -> None:
    """Give memory that nothing uses back to the device after it was too small; the error must be gone by then.

    Else the next, smaller attempt meets a cache that is cut into the sizes of the larger one.

    Raises:
        RunFailedError: the device does nothing any more, as after an uncorrectable memory error.
    """
    gc.collect()
    if device.type != "cuda":
        return
    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        hint = "`nvidia-smi` shows its state; `cerank resume` continues in a new process"
        what = f"the GPU does not answer after it ran out of memory: {str(error).splitlines()[0][:200]}"
        raise RunFailedError(what, where=str(device), hint=hint, code="gpu-failed") from error
