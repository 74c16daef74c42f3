"""Decide which matrices of a base are held in 8 or 4 bits beneath an adapter, and how many bytes they take then.

Invariant: torch, peft and bitsandbytes are not imported, so that a plan is refused before anything is loaded.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence

from cerank.errors import MissingError, UsageError
from cerank.models.lora.adapter_targets import LOOKED_UP, is_target
from cerank.recipes.sections.adapter_specs import ALL_LINEAR, AdapterSpec

# Bytes of a weight. With 8 bits each row has a scale. With 4 bits each 64 weights have a scale of 8 bits, and each 256
# of these one of 32 bits.
WEIGHT_BYTES: Mapping[str, float] = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
_WHOLE = {"t5": ("wo",), "mt5": ("wo",)}  # transformers casts what these read to the type of their weights


def is_rounded(name: str, model_type: str, trained: Sequence[str] = ()) -> bool:
    """Return whether a linear layer is held in few bits: it belongs to a numbered layer, and is not trained as a whole.

    Args:
        name: its name in the model, or in the files without ".weight".
        model_type: as config.json says it.
        trained: further modules that are trained as a whole, as the recipe names them.
    """
    if any(f".{module}." in f".{name}." for module in trained):
        return False
    return is_target(name, (ALL_LINEAR,)) and name.rpartition(".")[2] not in _WHOLE.get(model_type, ())


def rounded_weights(spec: AdapterSpec, shapes: Mapping[str, tuple[int, ...]], model_type: str) -> int:
    """Return how many weights of a model with weights of these names and shapes a stage holds in few bits."""
    if spec.quantize == "none":
        return 0
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name.endswith(".weight")
        and len(shape) == 2
        and not LOOKED_UP.search(name.removesuffix(".weight"))
        and is_rounded(name.removesuffix(".weight"), model_type, spec.modules_to_save)
    )


def check_quantization(spec: AdapterSpec, device: str, where: str) -> None:
    """Check that a stage on this device can hold its base in few bits.

    Args:
        spec: the stage's adapter.
        device: device of the plan.
        where: of the adapter in the recipe, for the error.

    Raises:
        UsageError: the device is no GPU of CUDA.
        MissingError: bitsandbytes is not installed.
    """
    if spec.quantize == "none":
        return
    if not device.startswith("cuda"):
        what = f'"{spec.quantize}" saves memory of a CUDA GPU, and the device is {device}, where it is only slower'
        hint = 'set quantize = "none", or give --device cuda'
        raise UsageError(what, where=f"{where}.quantize", hint=hint, code="quantize-without-gpu")
    check_quantization_library(f"{where}.quantize")


def check_quantization_library(where: str) -> None:
    """Return if bitsandbytes is installed.

    Raises:
        MissingError: it is not.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        hint = "pip install 'cerank[quantized]'"
        raise MissingError("a quantized base needs bitsandbytes", where=where, hint=hint, code="library-missing")
