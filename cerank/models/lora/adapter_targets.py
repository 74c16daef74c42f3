"""Decide which matrices of a model a stage's adapter updates, from the names and shapes in its files.

Invariant: torch and peft are not imported, so that a plan is refused before anything is loaded.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping

import msgspec

from cerank.errors import MissingError, UsageError
from cerank.recipes.sections.adapter_specs import ALL_LINEAR, AdapterSpec
from cerank.registry import nearest
from cerank.text.safe_text import shown

_ENCODER = ("query", "key", "value")
_DECODER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_DEBERTA = ("query_proj", "key_proj", "value_proj")
FAMILY_TARGETS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "electra", "roberta", "xlm-roberta", "camembert"), _ENCODER),
    **dict.fromkeys(("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"), _DECODER),
    "deberta-v2": _DEBERTA,
    "distilbert": ("q_lin", "k_lin", "v_lin"),
    "modernbert": ("Wqkv", "Wo", "Wi"),
    "t5": ("q", "k", "v", "o"),
}
LAYER_NUMBER = re.compile(r"\.(?:layer|layers|block)\.([0-9]+)\.")  # in a name with a dot before it
LOOKED_UP = re.compile(r"(?:embeddings?|attention_bias)$")  # matrices that are looked up in, not multiplied with


class AdapterShape(msgspec.Struct, frozen=True):
    """The matrices that an adapter updates, and its size."""

    names: tuple[str, ...]  # as in the model's files, without ".weight"
    parameters: int


def targets_of(spec: AdapterSpec, model_type: str, where: str) -> tuple[str, ...]:
    """Return the names of the linear layers that get an update: the recipe's, or those usual for the family.

    Raises:
        UsageError: the recipe names none, and none are usual.
    """
    if spec.targets:
        return spec.targets
    if model_type not in FAMILY_TARGETS:
        what = f"no targets are usual for models of type {shown(model_type or 'unknown', 40)}"
        hint = f'name linear layers of it, or set targets = ["{ALL_LINEAR}"]'
        raise UsageError(what, where=f"{where}.targets", hint=hint, code="adapter-targets")
    return FAMILY_TARGETS[model_type]


def is_target(name: str, targets: Iterable[str]) -> bool:
    """Return whether a linear layer of that name gets an update: it is called so, and belongs to a numbered layer."""
    if LAYER_NUMBER.search(f".{name}") is None:
        return False
    return any(target == ALL_LINEAR or f".{name}".endswith(f".{target}") for target in targets)


def check_library(where: str) -> None:
    """Return if peft is installed.

    Raises:
        MissingError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        hint = "pip install 'cerank[lora]'"
        raise MissingError("an adapter needs the library peft", where=where, hint=hint, code="library-missing")


def adapter_shape(
    spec: AdapterSpec, shapes: Mapping[str, tuple[int, ...]], model_type: str, frozen_layers: int, where: str
) -> AdapterShape:
    """Return what the adapter of a stage updates in a model with weights of these names and shapes.

    Args:
        spec: the stage's adapter.
        shapes: name -> shape of the weights in the model's files.
        model_type: as config.json says it.
        frozen_layers: layers from the bottom that get no update.
        where: of the adapter in the recipe, for the error.

    Raises:
        UsageError: a target or a module to save that no layer is called, or a rank that is no lower than a matrix's.
    """
    targets = targets_of(spec, model_type, where)
    matrices = {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and not LOOKED_UP.search(name.removesuffix(".weight"))
    }
    if not shapes:
        raise UsageError("the names of its weights cannot be read", where=where, code="weights-damaged")
    known = sorted({name.rpartition(".")[2] for name in matrices if is_target(name, (ALL_LINEAR,))})
    for target in targets:
        if not any(is_target(name, (target,)) for name in matrices):
            what = f"no linear layer of this model ({model_type}) is called {shown(target, 60)}"
            hint = f"{nearest(target, known)}; its layers have {', '.join(known)}; or {ALL_LINEAR}"
            raise UsageError(what, where=f"{where}.targets", hint=hint, code="adapter-targets")
    for module in spec.modules_to_save:
        if not any(f".{module}." in f".{name}" for name in shapes):
            what = f"no module of this model ({model_type}) is called {shown(module, 60)}"
            hint = "the head is trained without being named"
            raise UsageError(what, where=f"{where}.modules_to_save", hint=hint, code="adapter-targets")
    names = [name for name in matrices if is_target(name, targets) and _layer(name) >= frozen_layers]
    if not names:
        what = f"the layers that are not frozen hold none of {', '.join(targets)}"
        raise UsageError(what, where=f"{where}.targets", hint="freeze fewer layers", code="adapter-targets")
    smallest = min((min(matrices[name]), name) for name in names)
    if spec.rank >= smallest[0]:
        what = f"{spec.rank} is not below the rank of {shown(smallest[1], 80)}, which is {smallest[0]} at most"
        raise UsageError(what, where=f"{where}.rank", hint="give less, or train all weights", code="adapter-rank")
    size = sum(spec.rank * sum(matrices[name]) + (matrices[name][0] if spec.dora else 0) for name in names)
    return AdapterShape(tuple(names), size)


def _layer(name: str) -> int:
    place = LAYER_NUMBER.search(f".{name}")
    return int(place[1]) if place else 0
