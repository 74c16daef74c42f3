"""Freed memory is kept for the next tensor, and what says that memory is short is told from all else."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from cerank.errors import RunFailedError
from cerank.kernels.memory import is_out_of_memory, release_memory
from tests.refusals import refused

PROGRAM = """
import resource, sys, torch
from cerank.kernels.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        first = torch.ones(2**21)
        second = torch.ones(2**21)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_given_back_is_taken_again_without_the_system():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # 16 MiB are 4096 pages, ten times over


SHORT = [  # what torch raises where memory is short, beside its own OutOfMemoryError
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
]
OTHER = [
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_every_error_of_too_little_memory_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_a_gpu_gives_its_cache_back_and_a_dead_one_ends_the_run_with_a_way_on(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size, device="cpu"))
    release_memory(torch.device("cuda:0"))
    assert emptied == [True]

    def dead(*_, **__):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch, "zeros", dead)
    with refused(RunFailedError, "gpu-failed") as caught:
        release_memory(torch.device("cuda:0"))
    assert "cerank resume" in caught.value.hint
    release_memory(torch.device("cpu"))
