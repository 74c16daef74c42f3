"""Load and write the head of a sentence-transformers cross-encoder that is a chain of modules: Dense, LayerNorm, Dense.

Invariant: no class is imported by a name from the folder; activations are looked up among those listed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cerank.errors import UsageError
from cerank.models import model_folders
from cerank.models.model_reading import Pooling, module_list
from cerank.text.safe_text import shown

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
}
_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
}


class DenseModule(nn.Module):
    """A linear layer with its activation, and the sum with its input where the folder asks for it."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        super().__init__()
        named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        if named not in _ACTIVATIONS:
            hint = f"known are {', '.join(name.rpartition('.')[2] for name in _ACTIVATIONS)}"
            what = f"names an activation that is not known: {shown(named, 80)}"
            raise UsageError(what, where=where, hint=hint, code="unknown-activation")
        inputs, outputs = int(config["in_features"]), int(config["out_features"])
        self.activation = named
        self.linear = nn.Linear(inputs, outputs, bias=bool(config.get("bias", True)))
        self.apply_activation = _ACTIVATIONS[named]()
        self.is_residual = bool(config.get("use_residual", False))
        if self.is_residual and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return (pairs, outputs) of pooled states (pairs, inputs)."""
        out: Tensor = self.apply_activation(self.linear(states))
        if not self.is_residual:
            return out
        return out + (self.residual(states) if hasattr(self, "residual") else states)


class LayerNormModule(nn.Module):
    """Layer normalization of pooled states."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, states: Tensor) -> Tensor:
        """Return normalized states (pairs, dimension)."""
        out: Tensor = self.norm(states)
        return out


def has_modules(folder: Path) -> bool:
    """Return whether the folder holds a head of several modules, and not a single linear layer."""
    if not (folder / "modules.json").is_file():
        return False
    kinds = [kind.rpartition(".")[2] for kind, _ in module_list(folder)]
    return kinds[:2] == ["Transformer", "Pooling"] and len(kinds) > 2 and kinds[-1] == "Dense" and not _is_plain(folder)


def _is_plain(folder: Path) -> bool:
    """Return whether the head is one Dense without activation or sum, as cerank writes it."""
    parts = module_list(folder)
    config = parts[-1][1] / "config.json"
    if len(parts) != 3 or not config.is_file():
        return len(parts) == 3
    values = model_folders.json_object(config)
    is_linear = values.get("activation_function") == "torch.nn.modules.linear.Identity"
    return is_linear and not values.get("use_residual") and bool(values.get("bias", True))


def load_head(folder: Path) -> nn.Sequential:
    """Return the modules after the pooling, with their weights.

    Raises:
        UsageError: a module is unknown, or its files do not fit together.
    """
    modules: list[nn.Module] = []
    for kind, part in module_list(folder)[2:]:
        name, where = kind.rpartition(".")[2], str(part)
        if name == "Dropout":
            modules.append(nn.Dropout(float(model_folders.json_object(part / "config.json").get("dropout", 0.2))))
            continue
        config = model_folders.json_object(part / "config.json")
        try:
            module = DenseModule(config, where) if name == "Dense" else LayerNormModule(int(config["dimension"]))
            module.load_state_dict(load_file(part / "model.safetensors"))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"the file is no {name}: {shown(error, 200)}", where=where, code="invalid-modules"
            ) from error
        modules.append(module)
    return nn.Sequential(*modules)


def head_of_layers(layers: Sequence[tuple[dict[str, Any], dict[str, Tensor]]], where: str) -> nn.Sequential:
    """Return a head of linear layers, each given by its settings and weights; `where` is for errors."""
    modules = []
    for config, weights in layers:
        module = DenseModule(config, where)
        module.load_state_dict(weights)
        modules.append(module)
    return nn.Sequential(*modules)


def write_head(head: nn.Sequential, pooling: Pooling, folder: Path) -> None:
    """Write pooling and head as modules from which sentence-transformers builds the same cross-encoder."""
    size = next(module.linear.in_features for module in head if isinstance(module, DenseModule))
    rows: list[tuple[str, str]] = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(folder / "1_Pooling", {"embedding_dimension": size, "pooling_mode": pooling, "include_prompt": True})
    modules = [module for module in head if not isinstance(module, nn.Dropout)]
    for number, module in enumerate(modules, start=2):
        kind = "Dense" if isinstance(module, DenseModule) else "LayerNorm"
        part = folder / f"{number}_{kind}"
        rows.append((part.name, kind))
        if isinstance(module, DenseModule):
            _write(part, _dense_config(module, is_last=module is modules[-1]))
        elif isinstance(module, LayerNormModule):
            _write(part, {"dimension": module.norm.normalized_shape[0]})
        weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
        save_file(weights, part / "model.safetensors")
    listed = [{"idx": at, "name": str(at), "path": path, "type": _TYPES[kind]} for at, (path, kind) in enumerate(rows)]
    (folder / "modules.json").write_text(json.dumps(listed, indent=2) + "\n", encoding="utf8")
    identity = "torch.nn.modules.linear.Identity"
    about = {"model_type": "CrossEncoder", "activation_fn": identity}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf8")
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(transformer, indent=2) + "\n", encoding="utf8")


def _dense_config(module: DenseModule, *, is_last: bool) -> dict[str, object]:
    config: dict[str, object] = {
        "in_features": module.linear.in_features,
        "out_features": module.linear.out_features,
        "bias": module.linear.bias is not None,
        "activation_function": module.activation,
        "module_input_name": "sentence_embedding",
        "module_output_name": "scores" if is_last else "sentence_embedding",
    }
    return config | ({"use_residual": True} if module.is_residual else {})


def _write(part: Path, config: dict[str, object]) -> None:
    part.mkdir(parents=True, exist_ok=True)
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
