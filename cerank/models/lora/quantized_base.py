"""Hold the frozen matrices of a base in 8 or 4 bits while an adapter is trained over them, by bitsandbytes.

Rounded are the linear layers of the numbered layers, as QLoRA does; embeddings, norms and the head stay as they are.
What transformers and peft do besides for such training is done already: weights that are trained are in float32, all
others are frozen, and gradients reach the adapter of every layer.

Invariant: nothing that is saved holds a rounded matrix. peft can merge into rounded layers, but then rounds the sum
again; here an adapter is merged into the matrices that its base's files hold, which are kept on the CPU meanwhile.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from cerank.models.cross_encoder import CrossEncoder
from cerank.models.lora.rounded_matrices import check_quantization_library, is_rounded
from cerank.recipes.sections.adapter_specs import AdapterSpec, Quantize

_OUTLIERS = 6.0  # inputs beyond it are multiplied in 16 bits: the default of transformers and of the method's paper
_FLAGS = {"8bit": "is_loaded_in_8bit", "4bit": "is_loaded_in_4bit"}  # by which peft knows such a model


def quantize_base(model: CrossEncoder, spec: AdapterSpec, precision: str, where: str) -> None:
    """Replace the frozen matrices of a model on the CPU; they are rounded when the model is moved to its device.

    Args:
        model: cross-encoder into which the adapter is not put yet.
        spec: the stage's adapter; with `quantize = "none"` the model stays as it is.
        precision: precision of the stage; with bf16 the products over 4 bits are computed in it.
        where: of the adapter in the recipe, for the error.

    Raises:
        MissingError: bitsandbytes is not installed.
    """
    if spec.quantize == "none":
        return
    check_quantization_library(where)
    encoder: Any = model.encoder
    kind = str(encoder.config.model_type)
    for name, layer in list(encoder.named_modules()):
        if type(layer) is nn.Linear and is_rounded(name, kind, spec.modules_to_save):
            _put(encoder, name, _rounded(layer, spec.quantize, precision))
            model.full_precision[name] = layer
    setattr(encoder, _FLAGS[spec.quantize], True)


def _rounded(layer: nn.Linear, quantize: Quantize, precision: str) -> nn.Module:
    """Return a frozen layer of bitsandbytes with the weights of a linear one."""
    layers: Any = importlib.import_module("bitsandbytes.nn")
    size, has_bias = (layer.in_features, layer.out_features), layer.bias is not None
    rounded: Any
    if quantize == "8bit":
        rounded = layers.Linear8bitLt(*size, bias=has_bias, has_fp16_weights=False, threshold=_OUTLIERS)
        rounded.weight = layers.Int8Params(layer.weight.detach().clone(), requires_grad=False, has_fp16_weights=False)
    else:
        computed = torch.bfloat16 if precision == "bf16" else torch.float32
        rounded = layers.Linear4bit(
            *size, bias=has_bias, compute_dtype=computed, compress_statistics=True, quant_type="nf4"
        )
        rounded.weight = layers.Params4bit(
            layer.weight.detach().clone(), requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
    if has_bias:
        rounded.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    frozen: nn.Module = rounded
    return frozen


def restore_base(model: CrossEncoder) -> None:
    """Put the matrices of the base's files in place of the rounded ones, and of what peft put around those."""
    encoder: Any = model.encoder
    for name, layer in model.full_precision.items():
        device = next(encoder.get_submodule(name).parameters()).device
        _put(encoder, name, layer.to(device))
    model.full_precision = {}
    for flag in _FLAGS.values():
        if flag in vars(encoder):
            delattr(encoder, flag)


def _put(encoder: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(encoder.get_submodule(parent), child, layer)
