"""Which attention kernel computes where, and that each is called as its signature in this torch has it."""

from __future__ import annotations

import sys

import pytest
import torch

from cerank.kernels import attention
from cerank.kernels.attention import AttentionOptions, kernel_name
from cerank.kernels.packing import pack
from cerank.tokenization.tokens import Pair
from tests.fake_gpu import CUDA, clear_choices

META = torch.device("meta")


@pytest.mark.parametrize(
    ("capability", "dtype", "size", "window", "flash_attn", "kernel"),
    [
        ((9, 0), torch.bfloat16, 64, False, False, "torch flash"),
        ((9, 0), torch.float16, 64, True, False, "torch flash"),
        ((8, 0), torch.bfloat16, 32, False, False, "torch flash"),
        ((8, 0), torch.bfloat16, 64, False, True, "flash-attn"),
        ((9, 0), torch.bfloat16, 264, False, True, "torch efficient"),  # heads of more than 256
        ((9, 0), torch.bfloat16, 20, False, True, "spans"),  # no multiple of 8
        ((9, 0), torch.float32, 64, False, True, "torch efficient"),
        ((9, 0), torch.float32, 64, True, True, "spans"),  # the efficient kernel has no window
        ((7, 5), torch.float16, 64, False, True, "torch efficient"),  # flash-attention needs Ampere
        ((7, 5), torch.float32, 64, False, False, "torch efficient"),
        ((7, 0), torch.bfloat16, 64, True, True, "spans"),
    ],
)
def test_the_kernel_follows_from_card_type_heads_and_window(
    fake_gpu, capability, dtype, size, window, flash_attn, kernel
):
    fake_gpu(capability, has_flash_attn=flash_attn)
    assert kernel_name(CUDA, dtype, size, has_window=window) == kernel


def test_spans_are_taken_where_torch_lacks_an_operator_or_wants_other_arguments(fake_gpu, monkeypatch):
    fake_gpu()
    monkeypatch.setattr(attention, "FLASH_ARGUMENTS", attention.FLASH_ARGUMENTS | {"an_argument_of_tomorrow"})
    monkeypatch.setattr(attention, "EFFICIENT_ARGUMENTS", attention.EFFICIENT_ARGUMENTS - {"custom_mask_type"})
    assert kernel_name(CUDA, torch.bfloat16, 64, has_window=False) == "spans"


def test_spans_are_computed_on_a_cpu():
    assert kernel_name(torch.device("cpu"), torch.bfloat16, 64, has_window=False) == "spans"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that puts a package flash_attn on the path, with these files."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files):
        for name, text in files.items():
            path = tmp_path / "flash_attn" / (name.replace("__", "/") + ".py" if name != "init" else "__init__.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        clear_choices()

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "flash_attn"]:
        del sys.modules[name]
    clear_choices()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"cute__interface": "x = 1"}, "cannot import name"),  # flash-attn-4 has the folder alone
        (
            {"init": "raise ImportError('undefined symbol: _ZN3c104cuda')"},
            "undefined symbol",
        ),  # built for another torch
        ({"init": "def flash_attn_varlen_func(q, k, v, dropout_p=0.0): ..."}, "older than 2.4.1"),
    ],
)
def test_a_flash_attn_that_cannot_be_used_is_left_out_with_one_warning(package, files, reason):
    package(**files)
    with pytest.warns(UserWarning, match=reason):
        assert attention.flash_attn_function() is None
    assert attention.flash_attn_function() is None


def test_a_flash_attn_that_is_deterministic_on_request_is_taken(package):
    package(init="def flash_attn_varlen_func(q, k, v, dropout_p=0.0, deterministic=False): ...")
    assert attention.flash_attn_function() is not None


def row_of(lengths, device):
    return pack([Pair((1,) * length, length) for length in lengths], has_types=False, device=device)


@pytest.mark.parametrize("kernel", ["torch flash", "torch efficient"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_torchs_kernels_take_their_arguments_and_give_a_gradient_in_this_torch(kernel, dropout):
    """On the meta device nothing is computed, but arguments, shapes and the backward formula are checked."""
    row = row_of((4, 4, 20), torch.device("cpu"))
    row = type(row)(**{name: getattr(row, name) for name in row.__struct_fields__} | {"edges": row.edges.to(META)})
    dtype = torch.bfloat16 if kernel == "torch flash" else torch.float32
    options = AttentionOptions(0.3, dropout, window=3 if kernel == "torch flash" else 0)
    query, key, value = (torch.empty(28, 2, 64, device=META, dtype=dtype, requires_grad=True) for _ in range(3))
    out = attention.KERNELS[kernel](query, key, value, row, options)
    assert out.shape == query.shape
    assert out.requires_grad
    if kernel == "torch flash":  # the other's backward pass is broken on the meta device alone (torch 2.13)
        out.sum().backward()
        assert [part.grad.shape for part in (query, key, value)] == [(28, 2, 64)] * 3
    firsts = torch.empty(3, 2, 64, device=META, dtype=dtype)
    assert attention.KERNELS[kernel](firsts, key, value, row, options).shape == firsts.shape
