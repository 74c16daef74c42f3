"""What the processor multiplies fast: its instructions, and matrix products timed within a bounded time.

Invariant: nothing here draws random numbers or changes a setting, so that a run's bits do not depend on it.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

FAST_BF16 = frozenset({"amx_bf16", "avx512_bf16"})  # ARM's were not measured
BUDGET = 1.0  # seconds that the products of one precision may take
_TRIED = 0.25  # seconds for each precision before "auto" takes bf16
_WARM = ((64, 64, 64), (128, 128, 128), (256, 256, 256))  # rows, inner, columns; emulated ones end here
_CONFIRMING = (512, 384, 1536)
_AT_LEAST = 3  # products of a shape, however little time is left: the first ones wake threads and build kernels

Shape = tuple[int, int, int]


class Peaks(msgspec.Struct, frozen=True):
    """Floating point operations a second of matrix products."""

    best: float  # of the fastest single product
    sustained: float  # of the best shape's products one after another


def flags() -> frozenset[str]:
    """What the first CPU says it can do; nothing where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError):
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16 products and torch's kernels may use them here.

    Where either is missing, torch computes the same products by detours: hundreds of times slower without AVX-512.
    """
    if not FAST_BF16 & flags():
        return False
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


@functools.cache
def bf16_pays() -> bool:
    """Whether "auto" takes bf16: the CPU has instructions for it, and products within half a second do not deny it.

    Only a rate below half of float32's denies it, as imitated products show; a busy machine alone is to change
    nothing, or the same plan would give other bits there.
    """
    if not multiplies_bf16():
        return False
    narrow, wide = (peaks("cpu", precision, (_CONFIRMING,), _TRIED).best for precision in ("bf16", "fp32"))
    return 2 * narrow > wide


@torch.inference_mode()
def peaks(device: str, precision: str, shapes: Sequence[Shape], budget: float = BUDGET) -> Peaks:
    """How fast products of these shapes are, smaller ones first; what would take longer than is left is not tried.

    Args:
        device: where.
        precision: "fp32" or "bf16".
        shapes: (rows, inner, columns).
        budget: seconds for all of them, the small ones that come first included.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    over = time.perf_counter() + budget
    warm = Peaks(0.0, 0.0)
    for shape in _WARM:
        if _fits(shape, warm.best, over):
            found = _tried(device, kind, shape, budget / 12)  # one alone may wait for a thread to wake
            warm = Peaks(max(warm.best, found.best), max(warm.sustained, found.sustained))
    asked = sorted(shapes, key=_operations)
    out = Peaks(0.0, 0.0)
    for number, shape in enumerate(asked):
        if _fits(shape, max(warm.best, out.best), over):
            share = max(0.0, over - time.perf_counter()) / (len(asked) - number)
            found = _tried(device, kind, shape, share)
            out = Peaks(max(out.best, found.best), max(out.sustained, found.sustained))
    return out if out.best else warm


def _operations(shape: Shape) -> float:
    rows, inner, columns = shape
    return 2.0 * rows * inner * columns


def _fits(shape: Shape, rate: float, over: float) -> bool:
    """Whether as many products as are tried at least would end before `over`, at this rate."""
    return not rate or time.perf_counter() + (_AT_LEAST + 1) * _operations(shape) / rate < over


def _tried(device: str, kind: torch.dtype, shape: Shape, seconds: float) -> Peaks:
    rows, inner, columns = shape
    left = torch.full((rows, inner), 0.5, device=device, dtype=kind)
    right = torch.full((inner, columns), 0.25, device=device, dtype=kind)
    out = left @ right
    synchronized(device)
    best, count, begun = 0.0, 0, time.perf_counter()
    while count < _AT_LEAST or time.perf_counter() < begun + seconds:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronized(device)
        best = max(best, _operations(shape) / max(time.perf_counter() - started, 1e-9))
        count += 1
    return Peaks(best, _operations(shape) * count / max(time.perf_counter() - begun, 1e-9))


def synchronized(device: str) -> None:
    """Returns once the device has done what it was asked; a clock read before would flatter it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device.startswith("mps"):
        torch.mps.synchronize()


def instructions() -> str:
    """The widest instructions that torch's kernels use on this CPU, in words."""
    allowed = str(torch.backends.cpu.get_cpu_capability())
    if "AVX512" not in allowed:
        return allowed
    return "AVX-512 and AMX" if "amx_bf16" in flags() and multiplies_bf16() else "AVX-512"


def main() -> int:
    """Prints what `cerank doctor` says of the CPU as JSON; the argument is the number of threads."""
    torch.set_num_threads(int(sys.argv[1]))
    shapes = ((512, 384, 1536), (2048, 384, 1536), (1024, 1024, 1024))
    has_bf16 = multiplies_bf16()
    found = {
        "instructions": instructions(),
        "bf16": has_bf16,
        "fp32": peaks("cpu", "fp32", shapes, 0.7).best,
        "bf16_rate": peaks("cpu", "bf16", shapes, 0.7).best,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
