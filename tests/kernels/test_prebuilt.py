"""Flash-attention from the hub: only the commit that a user names, and nothing that cannot be used."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from cerank.errors import UsageError
from cerank.kernels import attention, determinism, prebuilt
from cerank.kernels.attention import AttentionOptions
from cerank.kernels.packing import pack
from cerank.machine.process_environment import inherited_environment
from cerank.tokenization.tokens import Pair
from tests.fake_gpu import CUDA, clear_choices
from tests.refusals import refused

NAME = f"kernels-community/flash-attn2@{'0a' * 20}"


@pytest.fixture
def hub(monkeypatch):
    """A function that installs a package `kernels` whose builds have these functions; it records what it was asked."""
    asked = []

    def install(name=NAME, **functions):
        clear_choices()

        def get_kernel(repository, *, revision):
            asked.append((repository, revision))
            if not functions:
                raise OSError("not in the cache, and there is no network")
            return SimpleNamespace(**functions)

        monkeypatch.setenv(prebuilt.VARIABLE, name)
        monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=get_kernel))
        return asked

    yield install
    monkeypatch.undo()
    clear_choices()


def version_2(q, k, v, a, b, c, d, dropout_p=0.0, softmax_scale=None, window_size=(-1, -1), deterministic=False):
    return q + dropout_p


def version_3(q, k, v, a, b, c, d, softmax_scale=None, window_size=(-1, -1), deterministic=False):
    return 2 * q, None


def test_the_named_commit_is_loaded_once_and_is_part_of_what_decides_bits(hub, fake_gpu, monkeypatch):
    flash_attn_function = attention.flash_attn_function
    fake_gpu()
    monkeypatch.setattr(attention, "flash_attn_function", flash_attn_function)
    asked = hub(flash_attn_varlen_func=version_2)
    assert attention.kernel_name(CUDA, torch.bfloat16, 64, has_window=False) == "flash-attn"
    assert attention.flash_attn_function() is version_2
    assert asked == [("kernels-community/flash-attn2", "0a" * 20)]
    assert determinism.gpu_environment("cuda:0")["flash-attn"] == NAME


def test_without_a_name_nothing_foreign_is_loaded(hub, monkeypatch):
    asked = hub(flash_attn_varlen_func=version_2)
    monkeypatch.delenv(prebuilt.VARIABLE)
    assert attention.flash_attn_function() is None
    assert attention.flash_attn_identity() == ""
    assert asked == []


def test_aninstalled_flash_attn_goes_before_a_build_from_the_hub(hub, monkeypatch):
    asked = hub(flash_attn_varlen_func=version_3)
    monkeypatch.setattr(attention, "installed_flash_attn", lambda: version_2)
    assert attention.flash_attn_function() is version_2
    assert asked == []
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "functions", "code"),
    [
        ("kernels-community/flash-attn2", {"flash_attn_varlen_func": version_2}, "kernel-name"),
        ("kernels-community/flash-attn2@main", {"flash_attn_varlen_func": version_2}, "kernel-name"),
        (NAME, {}, "kernel-not-loaded"),
        (NAME, {"another": version_2}, "kernel-functions"),
        (NAME, {"flash_attn_varlen_func": lambda q, k, v, softmax_scale: q}, "kernel-functions"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_a_hint(hub, name, functions, code):
    hub(name, **functions)
    with refused(UsageError, code) as error:
        attention.flash_attn_function()
    assert error.value.hint


def test_without_the_package_the_error_says_what_to_install(hub, monkeypatch):
    hub(flash_attn_varlen_func=version_2)
    monkeypatch.setitem(sys.modules, "kernels", None)  # as Python marks a module that must not be imported
    with refused(UsageError, "kernel-package-missing") as error:
        attention.flash_attn_function()
    assert "cerank[kernels]" in error.value.hint


def test_version_3_computes_without_dropout_and_leaves_dropout_to_torch(hub, monkeypatch):
    hub(flash_attn_varlen_func=version_3)
    row = pack([Pair((1, 2, 3), 1)], has_types=False, device=torch.device("cpu"))
    states = torch.ones(3, 2, 8)
    assert torch.equal(attention.flash_attn(states, states, states, row, AttentionOptions(1.0)), 2 * states)
    monkeypatch.setattr(attention, "torch_flash", lambda *_: "torch")
    assert attention.flash_attn(states, states, states, row, AttentionOptions(1.0, dropout=0.1)) == "torch"
    clear_choices()
    hub(flash_attn_varlen_func=version_2)
    found = attention.flash_attn(states, states, states, row, AttentionOptions(1.0, dropout=0.25))
    assert torch.equal(found, states + 0.25)


def test_a_worker_inherits_the_name():
    assert inherited_environment({prebuilt.VARIABLE: NAME})[prebuilt.VARIABLE] == NAME
