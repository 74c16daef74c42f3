"""A device is prepared so that the same plan gives the same bits, or rejected with the reason that holds."""

from __future__ import annotations

import pytest
import torch
from torch.cuda._utils import _get_device_index

from cerank.errors import UsageError
from cerank.inference.score_cache import score_cache_key
from cerank.kernels import determinism, processor
from cerank.models.forward_pass import resolve_precision
from tests.fake_gpu import CUDA
from tests.refusals import refused


@pytest.fixture
def cuda(fake_gpu, monkeypatch):
    """A machine with one H100 that computes, as far as preparing it goes; calls are collected."""
    fake_gpu()
    calls = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: calls.append(("set_device", _get_device_index(device)))
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: calls.append(("synchronize", str(device))))
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size, device="cpu"))
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    yield calls
    torch.set_deterministic_debug_mode(mode)
    torch.set_num_threads(threads)
    torch.backends.cuda.enable_flash_sdp(flags[0])
    torch.backends.cuda.enable_mem_efficient_sdp(flags[1])
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


def test_on_a_gpu_an_operation_without_a_deterministic_form_is_an_error_and_not_a_warning(cuda):
    determinism.make_deterministic("cuda:1", 1)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    determinism.make_deterministic("cpu", 1)
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_certain_gpu_is_the_one_that_is_set_and_waited_for(cuda):
    determinism.make_deterministic("cuda:1", 1)
    processor.synchronize("cuda:1")
    assert cuda == [("set_device", 1), ("synchronize", "cuda:1")]


def test_any_gpu_is_the_first_that_the_process_sees(cuda):
    """torch's own set_device takes no device without a number."""
    determinism.make_deterministic("cuda", 1)
    assert cuda == [("set_device", 0)]


def no_kernel(*_, **__):
    raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")


def too_old():
    raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040)")


@pytest.mark.parametrize(
    ("target", "name", "value", "device", "what"),
    [
        (torch.version, "cuda", None, "cuda", "cuda-unavailable"),
        (torch.cuda, "init", too_old, "cuda", "cuda-unavailable"),
        (torch.cuda, "device_count", lambda: 0, "cuda", "device-not-found 0"),
        (torch.cuda, "device_count", lambda: 1, "cuda:1", "device-not-found cuda:1"),
        (
            torch,
            "zeros",
            no_kernel,
            "cuda",
            "gpu-not-supported 9.0 sm_75 sm_80",
        ),
    ],
)
def test_a_gpu_that_cannot_compute_is_rejected_with_its_own_reason(
    cuda, monkeypatch, target, name, value, device, what
):
    monkeypatch.setattr(target, name, value)
    with refused(UsageError, *what.split()):
        determinism.make_deterministic(device, 1)


@pytest.mark.parametrize(
    ("capability", "asked", "precision"),
    [
        ((9, 0), "auto", "bf16"),
        ((8, 0), "tf32", "tf32"),
        ((7, 5), "auto", "fp32"),
        ((7, 5), "fp16", "fp16"),
        ((7, 0), "fp32", "fp32"),
    ],
)
def test_the_precision_on_a_gpu_follows_from_its_capability(fake_gpu, capability, asked, precision):
    fake_gpu(capability)
    assert resolve_precision(asked, CUDA) == precision


@pytest.mark.parametrize(
    ("capability", "training", "reranking"),
    [((9, 0), "bf16", "bf16"), ((7, 5), "fp32", "fp16"), ((7, 0), "fp32", "fp16"), ((6, 1), "fp32", "fp32")],
)
def test_a_gpu_without_bf16_trains_in_float32_and_re_ranks_in_fp16(fake_gpu, capability, training, reranking):
    fake_gpu(capability)
    for asked in (None, "auto"):
        assert resolve_precision(asked, CUDA) == training
        assert resolve_precision(asked, CUDA, trains=False) == reranking


def test_a_precision_left_out_is_float32_on_a_cpu():
    assert resolve_precision(None, torch.device("cpu")) == "fp32"
    assert resolve_precision(None, torch.device("cpu"), trains=False) == "fp32"


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_precision_that_a_gpu_only_emulates_is_rejected(fake_gpu, precision):
    fake_gpu((7, 5), "Tesla T4")
    with refused(UsageError, "precision-not-supported", precision):
        resolve_precision(precision, CUDA)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_precisions_of_gpus_are_rejected_elsewhere(precision):
    with refused(UsageError, "precision-not-supported"):
        resolve_precision(precision, torch.device("cpu"))


def test_whatever_decides_bits_on_a_gpu_is_part_of_the_key_of_cached_scores(fake_gpu, monkeypatch):
    keys = set()
    for change in (
        {},
        {"capability": (8, 0)},
        {"name": "NVIDIA A100"},
        {"multiprocessors": 16},  # a slice of a GPU
        {"has_flash_attn": True},
    ):
        fake_gpu(**change)
        keys.add(score_cache_key("m", "t", device="cuda", threads=2, precision="bf16"))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    keys.add(score_cache_key("m", "t", device="cuda", threads=2, precision="bf16"))
    monkeypatch.setattr(determinism, "driver_version", lambda: "580.65")
    keys.add(score_cache_key("m", "t", device="cuda", threads=2, precision="bf16"))
    assert len(keys) == 7


def test_every_key_of_a_gpus_environment_is_compared_before_a_stage_is_reused(fake_gpu):
    fake_gpu()
    assert set(determinism.gpu_environment("cuda")) <= set(determinism.GPU_VERSIONS)
    assert determinism.gpu_environment("cpu") == {}
