"""Find out what the processor multiplies fast: its instructions, and matrix products timed within a bounded time.

Invariant: nothing here takes random numbers or changes a setting, so that a run's bits do not depend on it.
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

FAST_BF16 = frozenset({"amx_bf16", "avx512_bf16"})  # ARM's instructions were not measured
TIME_LIMIT = 1.0  # seconds that the products of one precision may take
_DECISION_SECONDS = 0.25  # seconds for each precision before "auto" takes bf16
_WARM_UP_SHAPES = ((64, 64, 64), (128, 128, 128), (256, 256, 256))  # rows, inner, columns; emulation gets no further
_DECISION_SHAPE = (512, 384, 1536)
_MIN_PRODUCTS = 3  # products of each shape, however little time is left: the first ones start threads and build kernels

Shape = tuple[int, int, int]


class Peaks(msgspec.Struct, frozen=True):
    """Floating point operations a second of matrix products."""

    best: float  # rate of the fastest single product
    sustained: float  # rate of the best shape's products one after another


def cpu_flags() -> frozenset[str]:
    """Return the flags of the first CPU in /proc/cpuinfo; none where the system has no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError):
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def multiplies_bf16() -> bool:
    """Return whether the CPU has instructions for bf16 products and torch's kernels may use them here.

    Where either is missing, torch emulates the products, which is hundreds of times slower without AVX-512.
    """
    if not FAST_BF16 & cpu_flags():
        return False
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


@functools.cache
def bf16_is_faster() -> bool:
    """Return whether "auto" means bf16: the CPU has instructions for it, and a measurement of half a second agrees.

    The measurement only overrules the instructions if bf16 runs at less than half of float32's rate, as emulated
    products do: a busy machine must not change the precision, or the same plan would give other bits there.
    """
    if not multiplies_bf16():
        return False
    of_bf16, of_fp32 = (
        measure_peaks("cpu", precision, (_DECISION_SHAPE,), _DECISION_SECONDS).best for precision in ("bf16", "fp32")
    )
    return 2 * of_bf16 > of_fp32


@torch.inference_mode()
def measure_peaks(device: str, precision: str, shapes: Sequence[Shape], budget: float = TIME_LIMIT) -> Peaks:
    """Return how fast products of these shapes are, smaller ones first; those that would take too long are not tried.

    Args:
        device: device to measure, such as "cpu" or "cuda:0".
        precision: "fp32" or "bf16", the precision of the products.
        shapes: (rows, inner size, columns) of each matrix product.
        budget: seconds for all products, those of the small warm-up shapes included.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    over = time.perf_counter() + budget
    warm = Peaks(0.0, 0.0)
    for shape in _WARM_UP_SHAPES:
        if _has_time_for(shape, warm.best, over):
            # several products, because the first may wait for a thread to start
            measured = time_products(device, kind, shape, budget / 12)
            warm = Peaks(max(warm.best, measured.best), max(warm.sustained, measured.sustained))
    by_size = sorted(shapes, key=_operations)
    out = Peaks(0.0, 0.0)
    for number, shape in enumerate(by_size):
        if _has_time_for(shape, max(warm.best, out.best), over):
            share = max(0.0, over - time.perf_counter()) / (len(by_size) - number)
            measured = time_products(device, kind, shape, share)
            out = Peaks(max(out.best, measured.best), max(out.sustained, measured.sustained))
    return out if out.best else warm


def _operations(shape: Shape) -> float:
    rows, inner, columns = shape
    return 2.0 * rows * inner * columns


def _has_time_for(shape: Shape, rate: float, over: float) -> bool:
    """Return whether the least number of products would end before `over`, at this rate."""
    return not rate or time.perf_counter() + (_MIN_PRODUCTS + 1) * _operations(shape) / rate < over


def time_products(device: str, kind: torch.dtype, shape: Shape, seconds: float) -> Peaks:
    """Return the speeds of products of two matrices of this type and shape, measured for some `seconds`."""
    rows, inner, columns = shape
    left = torch.full((rows, inner), 0.5, device=device, dtype=kind)
    right = torch.full((inner, columns), 0.25, device=device, dtype=kind)
    out = left @ right
    synchronize(device)
    best, count, begun = 0.0, 0, time.perf_counter()
    while count < _MIN_PRODUCTS or time.perf_counter() < begun + seconds:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronize(device)
        best = max(best, _operations(shape) / max(time.perf_counter() - started, 1e-9))
        count += 1
    return Peaks(best, _operations(shape) * count / max(time.perf_counter() - begun, 1e-9))


def synchronize(device: str) -> None:
    """Wait until the device has done what it was asked to; a clock read before would flatter it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(torch.device(device))
    elif device.startswith("mps"):
        torch.mps.synchronize()


def instruction_set() -> str:
    """Return the name of the widest instructions that torch's kernels use on this CPU."""
    allowed = str(torch.backends.cpu.get_cpu_capability())
    if "AVX512" not in allowed:
        return allowed
    return "AVX-512 and AMX" if "amx_bf16" in cpu_flags() and multiplies_bf16() else "AVX-512"


def main() -> int:
    """Print what `cerank doctor` shows of the CPU as JSON; the argument is the number of threads."""
    torch.set_num_threads(int(sys.argv[1]))
    shapes = ((512, 384, 1536), (2048, 384, 1536), (1024, 1024, 1024))
    has_bf16 = multiplies_bf16()
    report = {
        "instructions": instruction_set(),
        "bf16": has_bf16,
        "fp32": measure_peaks("cpu", "fp32", shapes, 0.7).best,
        "bf16_rate": measure_peaks("cpu", "bf16", shapes, 0.7).best,
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
