"""Read a LoRA adapter as the re-ranker that it makes of its base.

An adapter folder holds low-rank updates of some matrices, sometimes a head, and the name of the base that they belong
to. The base is found like any other, and the adapter is merged into it by peft while it is loaded: what is trained or
saved afterwards is a whole model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import MissingError, UsageError
from cerank.files.safe_open import open_file
from cerank.models import model_folders
from cerank.models.model_reading import CHECKPOINT_CONFIG, HEAD_KEYS, ModelReading, Pooling, weight_shapes
from cerank.text.safe_text import shown

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_START = re.compile(r"^base_model\.model\.")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # ways to start that alter the base's own weights


class Adapter(msgspec.Struct, frozen=True):
    """An adapter folder: its base, kind, pooling and hash."""

    folder: Path
    base: str  # hub id or folder
    rank: int
    kind: str  # "LoRA", "DoRA" or "rsLoRA"
    sha256: str
    head_labels: int  # labels of the head that it holds; 0 where it holds none
    pooling: Pooling | None = None  # of an adapter that cerank trained
    base_sha256: str = ""  # of the base that cerank trained it over

    @property
    def is_own(self) -> bool:
        """Return whether cerank trained it, so that its folder says how it is read."""
        return self.pooling is not None

    @property
    def asked_pooling(self) -> str:
        """Return the pooling to read the base with, as a recipe would say it."""
        return self.pooling if self.pooling in {"product", "mean", "classifier"} else "auto"


def is_adapter(folder: Path) -> bool:
    """Return whether the folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> Adapter:
    """Return what an adapter folder holds.

    Raises:
        MissingError: it has no safetensors weights.
        UsageError: it is no LoRA adapter, or changes its base's own weights.
    """
    where = str(folder / CONFIG)
    model_folders.check_folder(folder)
    values = model_folders.json_object(folder / CONFIG)
    if values.get("peft_type") != "LORA":
        raise UsageError(
            f"the folder holds an adapter of type {shown(values.get('peft_type'), 40)}; LoRA is supported",
            where=where,
            code="adapter-type",
        )
    start = str(values.get("init_lora_weights", True)).lower()
    if start.startswith(_CHANGES_BASE) or values.get("layer_replication"):
        hint = "merge it into its base with peft, and save that"
        raise UsageError(
            "changes the weights of its base beside adding to them", where=where, hint=hint, code="adapter-changes-base"
        )
    if values.get("revision") not in {None, "", "main"}:
        hint = "download that revision of the base, and name its folder in base_model_name_or_path"
        raise UsageError("the adapter names a revision of its base", where=where, hint=hint, code="adapter-revision")
    base = values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UsageError(
            "the adapter names no base (base_model_name_or_path)", where=where, code="adapter-without-base"
        )
    if not (folder / WEIGHTS).is_file():
        hint = "save it as safetensors with peft; pickled weights can run code"
        raise MissingError(f"no {WEIGHTS}", where=str(folder), hint=hint, code="weights-missing")
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with open_file(folder / name) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    kind = "DoRA" if values.get("use_dora") else "rsLoRA" if values.get("use_rslora") else "LoRA"
    rank = values.get("r")
    heads = [shape for name, shape in weights_of(folder).items() if HEAD_KEYS.match(name) and len(shape) == 2]
    beside = folder / base
    pooling, base_sha256 = _own_description(folder)
    return Adapter(
        folder=folder,
        base=str(beside.resolve()) if not Path(base).is_absolute() and beside.is_dir() else base,
        rank=rank if isinstance(rank, int) else 0,
        kind=kind,
        sha256=digest.hexdigest(),
        head_labels=heads[-1][0] if heads else 0,
        pooling=pooling,
        base_sha256=base_sha256,
    )


def _own_description(folder: Path) -> tuple[Pooling | None, str]:
    """Return pooling and base of an adapter that cerank trained; (None, "") for one from elsewhere."""
    path = folder / CHECKPOINT_CONFIG
    if not path.is_file():
        return None, ""
    values = model_folders.json_object(path)
    try:
        return msgspec.convert(values.get("pooling"), Pooling), str(values.get("base_sha256", ""))
    except msgspec.ValidationError as error:
        raise UsageError(f"the file names no pooling: {error}", where=str(path)) from error


def check_base(adapter: Adapter, folder: Path, sha256: str) -> None:
    """Check, by names and shapes in the files, that an adapter is one of this base.

    Args:
        adapter: the adapter.
        folder: folder of the base.
        sha256: fingerprint of the base.

    Raises:
        UsageError: it was trained over another one, or changes a matrix that this one has not.
    """
    where = str(adapter.folder)
    hint = "name the base that it was trained over in base_model_name_or_path"
    if adapter.base_sha256 not in {"", sha256}:
        what = f"it is an adapter for another base: {shown(adapter.base, 80)} is not what it was trained over"
        raise UsageError(what, where=where, hint=hint, code="adapter-for-another-base")
    shapes = {f".{name.removesuffix('.weight')}": shape for name, shape in weight_shapes(folder).items()}
    if not shapes:
        return
    for name, shape in weights_of(adapter.folder).items():
        side = {"lora_A": 1, "lora_B": 0}.get(name.split(".")[-2])
        module = _module_of(name)
        if side is None or len(shape) != 2:
            continue
        same = [own for key, own in shapes.items() if _is_same_module(key, f".{module}") and len(own) == 2]
        if not same or all(own[side] != shape[side] for own in same):
            has = f"has another shape, {'x'.join(map(str, same[0]))}" if same else "is not there"
            what = f"it is an adapter for another base: it changes {shown(module, 80)}, which {has}"
            raise UsageError(what, where=where, hint=hint, code="adapter-for-another-base")


def _is_same_module(name: str, other: str) -> bool:
    """Return whether two names with a dot before them end alike: files often leave out or add the base's prefix."""
    return name.endswith(other) or other.endswith(name)


def weights_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the weights in an adapter's folder, named as in the base."""
    return {_START.sub("", name): shape for name, shape in weight_shapes(folder).items()}


def read_with_base(adapter: Adapter, base: ModelReading) -> ModelReading:
    """Return the reading of the re-ranker that an adapter makes of its base.

    Raises:
        UsageError: neither has a trained head, or the adapter's head has too many labels.
    """
    where = str(adapter.folder)
    if adapter.pooling is not None:
        family = f"{adapter.kind} adapter of rank {adapter.rank} over {shown(adapter.base, 80)}, trained by cerank"
        return msgspec.structs.replace(base, family=family, pooling=adapter.pooling, head="trained")
    named = f"{adapter.kind} adapter of rank {adapter.rank} over {shown(adapter.base, 80)}: "
    if adapter.head_labels > 2:
        raise UsageError(
            f"the adapter's head has {adapter.head_labels} labels, and does not say which is relevant", where=where
        )
    if adapter.head_labels:
        label = 1 if adapter.head_labels == 2 else None
        family = named + f"classifier of {'two labels' if label else 'one label'}"
        return msgspec.structs.replace(base, family=family, pooling="classifier", head="trained", label=label)
    if base.head == "fresh":
        what = "neither the adapter nor its base holds a trained head"
        hint = "train it with modules_to_save, so that the head is saved with it"
        raise UsageError(what, where=where, hint=hint, code="head-untrained")
    return msgspec.structs.replace(base, family=named + base.family)


def merge(model: Any, adapter: Adapter) -> Any:
    """Return a transformers model with the adapter merged into its weights.

    Raises:
        MissingError: peft is not installed.
        UsageError: the adapter is for another base.
    """
    if importlib.util.find_spec("peft") is None:
        hint = "pip install 'cerank[lora]'"
        raise MissingError(
            "reading an adapter needs the library peft", where=str(adapter.folder), hint=hint, code="library-missing"
        )
    from peft import PeftModel

    known = {name for name, _ in model.named_modules()}
    is_trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    missing = sorted(name for name in map(_module_of, weights_of(adapter.folder)) if name not in known)
    if missing:
        what = (
            f"the folder holds an adapter for another base: it changes {shown(missing[0], 80)}, which this one has not"
        )
        raise UsageError(what, where=str(adapter.folder), code="adapter-for-another-base")
    try:
        whole = PeftModel.from_pretrained(model, str(adapter.folder), use_safetensors=True, is_trainable=False)
        merged = whole.merge_and_unload(safe_merge=True)
    except Exception as error:  # the library may raise anything on files from elsewhere
        reason = shown(next((line for line in reversed(str(error).splitlines()) if line.strip()), ""), 200)
        what = f"the folder holds an adapter for another base, or broken: {reason}"
        raise UsageError(what, where=str(adapter.folder), code="adapter-for-another-base") from error
    for key, parameter in merged.named_parameters():  # peft froze them all
        parameter.requires_grad_(is_trained.get(key, True))
    return merged


def _module_of(name: str) -> str:
    """Return the module of the base that a weight of an adapter belongs to."""
    return re.sub(r"\.(?:lora_\w+?(?:\.weight|\.default)?|weight|bias|lora_magnitude_vector)(?:\.weight)?$", "", name)


def adapter_fingerprint(base_sha256: str, adapter: Adapter) -> str:
    """Return the SHA-256 of a base with an adapter."""
    return hashlib.sha256(json.dumps([base_sha256, adapter.sha256]).encode()).hexdigest()
