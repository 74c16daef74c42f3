"""Put a low-rank adapter into a cross-encoder that is to be trained, and take it out again, merged and to be saved.

While an adapter is in a model, its layers are those of peft, all other weights of the encoder but those of the head are
frozen, and the head is trained in place. Taken out, the model is an ordinary one with changed weights.

Invariant: a head is never left at random: what an adapter trains includes it, and what is saved of an adapter holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cerank.core.seeds import derive
from cerank.errors import RunFailedError, UsageError
from cerank.kernels import dropout
from cerank.models import adapters
from cerank.models.adapters import Adapter
from cerank.models.cross_encoder import CrossEncoder, write_checkpoint_config, write_head
from cerank.models.lora.adapter_targets import LAYER_NUMBER, check_library, is_target, targets_of
from cerank.models.lora.quantized_base import restore_base
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.text.safe_text import shown
from cerank.tokenization.tokens import TokenLimits

_NAME = "default"  # peft's name for the only adapter of a model
_PREFIX = "base_model.model."  # what peft writes before names of the base
_POOLER = re.compile(r"(?:^|\.)pooler\.")


class TakenAdapter(msgspec.Struct, frozen=True):
    """An adapter that was taken out of a model: what its folder will hold."""

    config: dict[str, Any]  # of adapter_config.json, without the base
    weights: dict[str, Tensor]  # by peft's names, on the CPU


def add_adapter(model: CrossEncoder, spec: AdapterSpec, seed: int, stage: str, frozen_layers: int = 0) -> None:
    """Put a new adapter into the model, unless the recipe wants none or the model goes on with one that it has.

    Args:
        model: the cross-encoder.
        spec: the stage's adapter.
        seed: the run's seed; with the stage's name it decides the start of the updates.
        stage: name of the stage.
        frozen_layers: layers from the bottom that get no update.
    """
    if not spec.is_lora or model.adapter is not None:
        return
    where = f"stages.{stage}.adapter"
    check_library(where)
    from peft import LoraConfig

    encoder: Any = model.encoder
    targets = targets_of(spec, encoder.config.model_type, where)
    trained, called = [], []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            called += [name] if any(f".{name}".endswith(f".{target}") for target in targets) else []
            place = LAYER_NUMBER.search(f".{name}")
            trained += [name] if is_target(name, targets) and place and int(place[1]) >= frozen_layers else []
    if not trained:
        raise UsageError(f"no linear layer is called {', '.join(targets)}", where=where, code="adapter-targets")
    alpha: Any = int(spec.scale) if spec.scale == int(spec.scale) else spec.scale  # usual files hold whole numbers
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=alpha,
        lora_dropout=spec.dropout,
        use_dora=spec.dora,
        use_rslora=spec.rslora,
        target_modules=list(targets)
        if called == trained
        else trained,  # by full names where a head has layers so called
        modules_to_save=list(spec.modules_to_save) or None,
    )
    torch.manual_seed(derive(seed, "adapter", stage))
    _inject(model, config)


def continue_adapter(model: CrossEncoder, adapter: Adapter) -> None:
    """Put an adapter from its folder into the model that it was trained over, to be trained on.

    Raises:
        UsageError: it is for another base.
    """
    check_library(str(adapter.folder))
    from peft import LoraConfig, set_peft_model_state_dict

    try:
        config = LoraConfig.from_pretrained(str(adapter.folder))
        weights = load_file(adapter.folder / adapters.WEIGHTS)
        own = {name.removeprefix(_PREFIX): value for name, value in weights.items() if "lora_" not in name}
        _inject(model, config)
        set_peft_model_state_dict(model.encoder, {k: v for k, v in weights.items() if "lora_" in k}, _NAME)
        unknown = model.encoder.load_state_dict(own, strict=False).unexpected_keys
    except UsageError:
        raise
    except Exception as error:  # the library may raise anything on files from elsewhere
        what = f"it is an adapter for another base, or broken: {shown(str(error).splitlines()[0], 200)}"
        raise UsageError(what, where=str(adapter.folder), code="adapter-for-another-base") from error
    if unknown:
        what = f"it is an adapter for another base: it holds {shown(unknown[0], 80)}, which this one has not"
        raise UsageError(what, where=str(adapter.folder), code="adapter-for-another-base")


def take_adapter(model: CrossEncoder) -> TakenAdapter | None:
    """Return the model's adapter, after merging it into the weights of its base's files; None where there is none.

    Raises:
        RunFailedError: the merged weights are not finite.
    """
    config = model.adapter
    if config is None:
        return None
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    encoder: Any = model.encoder
    encoder.peft_config = {_NAME: config}  # where peft looks for it
    weights = get_peft_model_state_dict(encoder, adapter_name=_NAME, save_embedding_layers=False)
    del encoder.peft_config
    heads = dict(_trained_modules(model, config.modules_to_save or ()))
    weights = {_PREFIX + name.removeprefix(_PREFIX): value for name, value in weights.items()}
    for name, module in heads.items():
        weights |= {f"{_PREFIX}{name}.{key}": value for key, value in module.state_dict().items()}
    saved = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    values = config.to_dict()
    values["target_modules"] = sorted(values["target_modules"])
    values["modules_to_save"] = sorted(heads) or None
    values["inference_mode"] = True
    if model.full_precision:
        restore_base(model)
        _inject(model, config)
        set_peft_model_state_dict(encoder, {k: v for k, v in saved.items() if "lora_" in k}, _NAME)
    for name, layer in [(name, part) for name, part in encoder.named_modules() if isinstance(part, LoraLayer)]:
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise RunFailedError("the merged weights are not finite", code="loss-not-finite") from error
        parent, _, child = name.rpartition(".")
        setattr(encoder.get_submodule(parent), child, layer.get_base_layer())
    model.adapter = None
    return TakenAdapter(json.loads(json.dumps(values, default=str)), saved)


def write_adapter(
    model: CrossEncoder, taken: TakenAdapter, folder: Path, limits: TokenLimits, *, base: str, base_sha256: str
) -> None:
    """Write an adapter folder that peft loads over its base, and cerank with the head and the lengths, too.

    Args:
        model: the cross-encoder that it was taken from.
        taken: the adapter.
        folder: where to write; it is made if it does not exist.
        limits: lengths in tokens that it was trained with.
        base: name of the base: short name, hub id, or a folder, from this one if it is relative.
        base_sha256: fingerprint of the base, so that the adapter is not read over another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {**taken.config, "base_model_name_or_path": base}
    (folder / adapters.CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf8")
    save_file(taken.weights, folder / adapters.WEIGHTS)
    write_checkpoint_config(model, folder, limits, base_sha256=base_sha256)
    write_head(model, folder)
    (folder / "README.md").write_text(_CARD.format(base=base), encoding="utf8")


_CARD = """\
# A LoRA adapter of a cross-encoder fine-tuned with cerank

Its base is `{base}`. cerank loads both and merges them:

    from cerank.inference.rerank import Scorer
    scorer = Scorer.load("this folder")
    scorer.score([("a query", "a passage")])

peft puts it over the base as transformers loads it, with `PeftModel.from_pretrained(base, "this folder")`. A head that
is not part of the base's class in transformers lies beside it, where sentence-transformers looks for it.
"""


def _inject(model: CrossEncoder, config: Any) -> None:
    """Put peft's layers into the encoder; only they, the head and what was asked for stay to be trained."""
    from peft import inject_adapter_in_model

    encoder: Any = model.encoder
    unknown = [
        name
        for name in config.modules_to_save or ()
        if not any(f".{key}".endswith(f".{name}") for key in _names(encoder))
    ]
    if unknown:
        raise UsageError(
            f"no module is called {shown(unknown[0], 60)}", where="modules_to_save", code="adapter-targets"
        )
    saved, config.modules_to_save = config.modules_to_save, None  # trained in place, without peft's copies
    inject_adapter_in_model(config, encoder, _NAME)
    config.modules_to_save = saved
    dropout.replace_dropout(encoder)
    model.adapter = config
    heads = list(_trained_modules(model, saved or ()))
    for _, module in heads:
        module.requires_grad_(True)
    if model.pooling == "classifier" and not heads:
        raise UsageError("its class has no head that could be trained", where=type(encoder).__name__)


def _names(encoder: nn.Module) -> list[str]:
    return [name for name, _ in encoder.named_modules()]


def _trained_modules(model: CrossEncoder, further: tuple[str, ...] | list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) of what is trained as a whole in the encoder: its own head, and what a recipe names.

    The head of a class of transformers is what lies beside its base model, and a pooler in that, which a fresh head may
    have made at random. A language model's output table is no head: its rows are the words of the answer.
    """
    encoder: Any = model.encoder
    has_own_head = model.pooling == "classifier" or (model.pooling == "answer" and not getattr(model, "answers", ()))
    seen: list[str] = []
    for name, module in encoder.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in seen):
            continue
        beside = "." not in name and name != encoder.base_model_prefix
        is_head = has_own_head and (beside or (model.pooling == "classifier" and _POOLER.search(f"{name}.")))
        is_named = any(f".{name}".endswith(f".{part}") for part in further)
        if (is_head or is_named) and any(True for _ in module.parameters()):
            seen.append(name)
            yield name, module
