"""Cross-encoders that lightning-ir saved: an encoder's weights with a linear layer, under settings of its own type.

Its settings name the encoder's type as `backbone_model_type`. Both texts of a pair are cut to lengths of their own,
then the pair to what the tokenizer allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from cerank.errors import UsageError
from cerank.models import model_folders
from cerank.text.safe_text import shown

LINEAR = "linear.weight"  # its head's weights, beside the encoder's
BERT_POOL = "bert_pool.0.weight"  # a dense layer with tanh before it, where the settings ask for one
_OWN_TYPES = {"mono", "cross-encoder"}
_OTHER_TYPES = {"set-encoder"}  # reads several documents at once
_POOLING: dict[str, Literal["mean", "cls"]] = {"first": "cls", "cls": "cls", "mean": "mean"}
_ADDED = {  # keys that an encoder's own settings do not have
    "_bert_pool", "adapter_config", "architectures", "backbone_model_type", "doc_length", "linear_bias", "model_type",
    "pooling_strategy", "pretrained_adapter_name_or_path", "query_length", "scoring_strategy", "tokenizer_pattern",
    "use_adapter",
}  # fmt: skip


class LightningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint of lightning-ir scores."""

    backbone: str  # type of the encoder, such as "electra"
    pooling: Literal["mean", "cls"]
    query_length: int  # tokens; 0 for no limit
    document_length: int  # tokens; 0 for no limit


def is_lightning(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is one of lightning-ir's."""
    return "backbone_model_type" in config and config.get("model_type") in {*_OWN_TYPES, *_OTHER_TYPES}


def read_settings(folder: Path, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> LightningSettings:
    """Return how it scores.

    Args:
        folder: folder of the checkpoint.
        config: its config.json.
        weights: name -> shape of its weights.

    Raises:
        UsageError: it is no cross-encoder of one score for one pair, or pools in a way that is not supported.
    """
    where = str(folder / "config.json")
    backbone = str(config["backbone_model_type"])
    kind = str(config["model_type"])
    if kind in _OTHER_TYPES:
        what = f"a {kind} of lightning-ir reads several documents at once, and gives no score of one"
        raise UsageError(what, where=where, hint="take a model of type mono", code="not-pointwise")
    if backbone == "t5" or config.get("is_encoder_decoder"):
        what = "lightning-ir's models over encoder-decoders are not supported"
        raise UsageError(what, where=where, hint="take monoT5 as it was published", code="model-type-not-supported")
    if config.get("use_adapter"):
        what = "the checkpoint holds an adapter of lightning-ir"
        raise UsageError(what, where=where, hint="merge it there first", code="adapter-type")
    strategy = str(config.get("pooling_strategy", "first"))
    if strategy not in _POOLING:
        what = f"the model's pooling is {shown(strategy, 60)}; only first and mean are supported"
        raise UsageError(what, where=where, code="pooling-not-supported")
    if weights and LINEAR not in weights:
        raise UsageError("the model's weights hold no linear layer", where=where, code="head-missing")
    outputs = weights[LINEAR][0] if weights else 1
    if outputs != 1:
        what = f"its linear layer gives {outputs} scores; only scoring_strategy rank, of one, is supported"
        raise UsageError(what, where=where, hint="take a model that was trained with one score", code="output-count")
    lengths = [config.get(name) for name in ("query_length", "doc_length")]
    query, document = (length if isinstance(length, int) and length > 0 else 0 for length in lengths)
    return LightningSettings(
        backbone=backbone, pooling=_POOLING[strategy], query_length=query, document_length=document
    )


def encoder_config(folder: Path) -> Any:
    """Return transformers' settings of the encoder; None where config.json is one of transformers' own types.

    Raises:
        ValueError: transformers knows no such encoder.
    """
    config = model_folders.json_object(folder / "config.json")
    if not is_lightning(config):
        return None
    from transformers import AutoConfig

    own = {key: value for key, value in config.items() if key not in _ADDED}
    return AutoConfig.for_model(str(config["backbone_model_type"]), **own)


def tokenizer_options(folder: Path) -> dict[str, Any]:
    """Return what AutoTokenizer must be told beside the folder, whose settings name a class of lightning-ir."""
    config = model_folders.json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    return {"tokenizer_type": str(config["backbone_model_type"])} if is_lightning(config) else {}


def head_layers(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return (settings as a Dense module of sentence-transformers has them, weights) of each layer of the head."""
    from safetensors import safe_open

    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(("linear.", "bert_pool."))]  # noqa: SIM118 - no dict
            tensors |= {name: file.get_tensor(name) for name in names}
    layers = []
    for prefix, activation in (("bert_pool.0.", "activation.Tanh"), ("linear.", "linear.Identity")):
        weights = {
            f"linear.{name.removeprefix(prefix)}": value for name, value in tensors.items() if name.startswith(prefix)
        }
        if not weights:
            continue
        outputs, inputs = weights["linear.weight"].shape
        settings = {
            "in_features": inputs,
            "out_features": outputs,
            "bias": "linear.bias" in weights,
            "activation_function": f"torch.nn.modules.{activation}",
        }
        layers.append((settings, weights))
    return layers
