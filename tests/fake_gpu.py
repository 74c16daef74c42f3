"""A GPU that is not there: what torch says of it, for tests of decisions that depend on a GPU but compute nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cerank.kernels import attention, prebuilt

CUDA = torch.device("cuda:0")


def clear_choices() -> None:
    """Forget what was found out about GPUs and kernels before."""
    attention.kernel_name.cache_clear()
    attention.flash_attn_function.cache_clear()
    attention.installed_flash_attn.cache_clear()
    prebuilt.load_prebuilt.cache_clear()


@pytest.fixture
def fake_gpu(monkeypatch):
    """A function that makes torch describe a GPU: its compute capability, name, and number of multiprocessors."""

    def describe(capability=(9, 0), name="NVIDIA H100 80GB HBM3", multiprocessors=132, *, has_flash_attn=False):
        attention.kernel_name.cache_clear()
        properties = SimpleNamespace(
            name=name, major=capability[0], minor=capability[1], multi_processor_count=multiprocessors
        )
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
        found = (lambda **_: None) if has_flash_attn else None
        monkeypatch.setattr(attention, "flash_attn_function", lambda: found)

    yield describe
    attention.kernel_name.cache_clear()
