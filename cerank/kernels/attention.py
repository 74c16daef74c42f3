"""Compute attention within each pair of a pack, without padding and without a mask.

On a GPU one kernel computes all pairs of a pack at once ("varlen"): flash-attention where that package is installed
and works, else the same kernel as torch builds it, which takes dropout, scale and window; in float32 torch's
memory-efficient kernel. On a CPU, and wherever none of them fits, spans of pairs of one length are computed one after
another. All give the same numbers but for rounding.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from cerank.kernels.packing import Pack
from cerank.kernels.prebuilt import load_prebuilt, prebuilt_name
from cerank.kernels.varlen_attention import AttentionOptions, attend_by_spans

NAME = "cerank_packed"  # name in transformers' registries
ARGUMENT = "cerank_pack"  # keyword argument of a model within `use_packed_attention`: the pack
SPANS = "spans"  # name of attention without a varlen kernel

Kernel = Callable[[Tensor, Tensor, Tensor, Pack, AttentionOptions], Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Return the attention output of each token over the tokens of its own pair; of the shape of `query`.

    Args:
        query: (tokens, heads, size), or (pairs, heads, size) of the first token of each pair alone.
        key: (tokens, heads, size) keys of all tokens.
        value: (tokens, heads, size) values of all tokens.
        pack: where each pair starts and ends in the row.
        options: scale of the products, dropout of the weights, and width of the local window.
    """
    name = kernel_name(query.device, query.dtype, query.shape[-1], has_window=bool(options.window))
    return KERNELS[name](query, key, value, pack, options)


@functools.cache
def kernel_name(device: torch.device, dtype: torch.dtype, size: int, *, has_window: bool) -> str:
    """Return the name of the kernel for heads of `size` on a device: a key of the table below.

    Flash-attention needs a GPU of compute capability 8.0 (Ampere) and heads of at most 256, a multiple of 8. The
    memory-efficient kernel runs in float32 and on older GPUs, and has no window.
    """
    if device.type != "cuda":
        return SPANS
    is_ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    if is_ampere and dtype in {torch.bfloat16, torch.float16} and size % 8 == 0 and size <= 256:
        if flash_attn_function() is not None:
            return "flash-attn"
        if _accepts("_flash_attention_forward", FLASH_ARGUMENTS):
            return "torch flash"
    if not has_window and size % 8 == 0 and _accepts("_efficient_attention_forward", EFFICIENT_ARGUMENTS):
        return "torch efficient"
    return SPANS


@functools.cache
def flash_attn_function() -> Callable[..., Any] | None:
    """Return flash-attention: of the package flash-attn, or the build on the hub that the environment names.

    None where there is neither, with one warning where flash-attn is installed and cannot be used.

    A build for another torch fails in many ways when it is imported; flash-attn-4 has the name but not the function;
    and before 2.4.1 the backward pass was not deterministic.
    """
    function = installed_flash_attn()
    name = prebuilt_name()
    return load_prebuilt(name) if function is None and name else function


def flash_attn_identity() -> str:
    """Return what `flash_attn_function` returns: a version, or a repository and commit; "" where there is none."""
    if installed_flash_attn() is not None:
        with contextlib.suppress(PackageNotFoundError):
            return version("flash-attn")
        return "of an unknown version"
    return prebuilt_name()


@functools.cache
def installed_flash_attn() -> Callable[..., Tensor] | None:
    """Return the function of the package flash-attn; None where there is none that can be used."""
    if importlib.util.find_spec("flash_attn") is None:
        return None
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]  # optional, and needs a GPU

        function: Callable[..., Tensor] = flash_attn_varlen_func
        if "deterministic" in inspect.signature(function).parameters:
            return function
        reason = "it is older than 2.4.1"
    except Exception as error:  # noqa: BLE001 - whatever a broken build raises, torch has the kernel, too
        reason = f"{type(error).__name__}: {error}"
    warnings.warn(f"the package flash-attn is not used: {reason}", stacklevel=2)
    return None


# what the functions below pass, by name; torch documents neither, so they are checked before they are used
FLASH_ARGUMENTS = frozenset(
    {"query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal"}
    | {"return_debug_mask", "scale", "window_size_left", "window_size_right"}
)
EFFICIENT_ARGUMENTS = frozenset(
    {"query", "key", "value", "bias", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "dropout_p"}
    | {"custom_mask_type", "compute_log_sumexp", "scale"}
)


def _accepts(operator: str, arguments: frozenset[str]) -> bool:
    """Return whether this torch has the operator with these arguments, and needs no others."""
    try:
        schema = getattr(torch.ops.aten, operator).default._schema
    except AttributeError:
        return False
    names = {argument.name for argument in schema.arguments}
    needed = {argument.name for argument in schema.arguments if not argument.has_default_value()}
    return arguments <= names and needed <= arguments


def _query_edges(query: Tensor, key: Tensor, pack: Pack) -> tuple[Tensor, int]:
    """Return where each pair's queries begin and end, and the most of a pair."""
    if len(query) == len(pack.starts) != len(key):
        return torch.arange(len(query) + 1, dtype=torch.int32, device=query.device), 1
    return pack.edges, pack.longest


def flash_attn(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Return attention by flash-attn, or by torch where there is dropout and flash-attn's version has none."""
    function = flash_attn_function()
    assert function is not None  # `kernel_name` chose it  # noqa: S101
    has_dropout = _has_argument(function, "dropout_p")  # flash-attention-3 has none
    if options.dropout and not has_dropout:
        return torch_flash(query, key, value, pack, options)
    edges, longest = _query_edges(query, key, pack)
    out: Any = function(
        query,
        key,
        value,
        edges,
        pack.edges,
        longest,
        pack.longest,
        **({"dropout_p": options.dropout} if has_dropout else {}),
        softmax_scale=options.scale,
        window_size=(options.window, options.window) if options.window else (-1, -1),
        deterministic=True,  # else its backward pass sums in any order, and a resumed run differs in bits
    )
    mixed: Tensor = out[0] if isinstance(out, tuple) else out  # some versions return the sums of the softmax as well
    return mixed


@functools.cache
def _has_argument(function: Callable[..., Tensor], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def torch_flash(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Attend by torch's own flash-attention: its public function, varlen_attn, has no dropout (2.13).

    Its backward pass is deterministic where `make_deterministic` asks for it.
    """
    edges, longest = _query_edges(query, key, pack)
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        edges,
        pack.edges,
        longest,
        pack.longest,
        options.dropout,
        False,  # is_causal
        False,  # return_debug_mask
        scale=options.scale,
        window_size_left=options.window or None,
        window_size_right=options.window or None,
    )[0]
    return out


def _torch_efficient(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Attend by torch's memory-efficient kernel, which takes (1, tokens, heads, size)."""
    edges, longest = _query_edges(query, key, pack)
    needs_gradients = torch.is_grad_enabled() and query.requires_grad
    out: Tensor = torch.ops.aten._efficient_attention_forward(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        None,  # bias
        edges,
        pack.edges,
        longest,
        pack.longest,
        options.dropout,
        0,  # custom_mask_type: none
        needs_gradients,  # compute_log_sumexp, which the backward pass reads
        scale=options.scale,
    )[0]
    return out[0]


KERNELS: dict[str, Kernel] = {
    "flash-attn": flash_attn,
    "torch flash": torch_flash,
    "torch efficient": _torch_efficient,
    SPANS: attend_by_spans,
}


def _transformers_interface(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, __: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Adapt `attend` to transformers' interface: in (1, heads, tokens, size), out (1, tokens, heads, size)."""
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = how.get("scaling") or query.shape[-1] ** -0.5
    window = (how.get("sliding_window") or 1) - 1  # transformers counts the token itself
    mixed = attend(query, key, value, how[ARGUMENT], AttentionOptions(scale, how.get("dropout", 0.0), window))
    return mixed.unsqueeze(0), None


@functools.cache
def _register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _transformers_interface)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)


@contextlib.contextmanager
def use_packed_attention(model: Any) -> Iterator[None]:
    """Use packed attention in `model` within this context; the pack is passed as the keyword argument `ARGUMENT`.

    The implementation's name is removed from the model's config on exit, so that saved checkpoints stay loadable by
    other programs.
    """
    _register_attention()
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
