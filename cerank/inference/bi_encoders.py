"""Read a folder of sentence-transformers: how a bi-encoder's texts begin, and how its vectors are made.

Invariant: what the folder says is either followed or refused; nothing that changes a vector is ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import UsageError, os_error
from cerank.files.safe_open import read_file
from cerank.models import bases
from cerank.models.model_folders import json_object
from cerank.models.model_reading import CHECKPOINT_CONFIG, longest_input

_MODULES = "modules.json"
_LARGEST = 1 << 20  # bytes of modules.json
_LONGEST = 512  # tokens, where the folder says nothing


class BiEncoderFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A bi-encoder's files, and how its vectors are made."""

    folder: Path
    sha256: str  # over config.json and the weights
    pooling: str  # "mean" or "cls"
    is_normalized: bool
    similarity: str  # "cosine" or "dot"
    max_length: int  # tokens of a text
    query_prefix: str
    document_prefix: str


def is_bi_encoder(folder: Path) -> bool:
    """Return whether the folder holds a model of sentence-transformers that embeds texts, and no re-ranker."""
    if not (folder / _MODULES).is_file() or (folder / CHECKPOINT_CONFIG).is_file():
        return False
    config = json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    return "ForSequenceClassification" not in str(config.get("architectures"))


def read_bi_encoder(folder: Path) -> BiEncoderFiles:
    """Return how the bi-encoder in a folder of sentence-transformers makes its vectors.

    Raises:
        UsageError: it has modules other than a transformer, a pooling and a normalization, or pools in another way.
    """
    names = _module_names(folder)
    others = [kind for kind, _ in names if kind not in {"Transformer", "Pooling", "Normalize"}]
    kinds = [kind for kind, _ in names]
    if others or kinds[:2] != ["Transformer", "Pooling"]:
        what = f"a bi-encoder of {', '.join(kinds) or 'no module'} cannot be read"
        hint = "those of a transformer, a pooling and a normalization can"
        raise UsageError(what, where=str(folder / _MODULES), hint=hint, code="bi-encoder-modules")
    about = _optional(folder / "config_sentence_transformers.json")
    given = about.get("prompts")
    prompts: dict[str, Any] = given if isinstance(given, dict) else {}
    default = str(prompts.get(about.get("default_prompt_name") or "", ""))
    similarity = str(about.get("similarity_fn_name") or "cosine")
    if similarity not in {"cosine", "dot"}:
        what = f"a bi-encoder that compares by {similarity} cannot be read; cosine and dot can"
        raise UsageError(what, where=str(folder), code="bi-encoder-modules")
    pooling_file = folder / dict(names)["Pooling"] / "config.json"
    pooling = _pooling(pooling_file)
    query_prefix = str(prompts.get("query", default))
    document_prefix = str(prompts.get("document", prompts.get("passage", default)))
    if (query_prefix or document_prefix) and json_object(pooling_file).get("include_prompt") is False:
        what = "a bi-encoder that pools without its prompts (include_prompt) cannot be read"
        raise UsageError(what, where=str(pooling_file), code="bi-encoder-modules")
    sentences = folder / "sentence_bert_config.json"
    if _optional(sentences).get("do_lower_case") is True:
        what = "a bi-encoder that lowers its texts' letters itself (do_lower_case) cannot be read"
        hint = "if its tokenizer lowers them, too, set do_lower_case to false in a copy of the folder"
        raise UsageError(what, where=str(sentences), hint=hint, code="bi-encoder-modules")
    return BiEncoderFiles(
        folder=folder,
        sha256=bases.fingerprint(folder),
        pooling=pooling,
        is_normalized="Normalize" in kinds,
        similarity=similarity,
        max_length=longest_input(folder, json_object(folder / "config.json")) or _LONGEST,
        query_prefix=query_prefix,
        document_prefix=document_prefix,
    )


def _module_names(folder: Path) -> list[tuple[str, str]]:
    """Return kind and path of each module, in order; that of a text-embedding transformer first."""
    path = folder / _MODULES
    try:
        data = read_file(path, _LARGEST)
    except OSError as error:
        raise os_error(error, path) from error
    try:
        modules = json.loads(data)
        return [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in modules]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UsageError(
            "the file is no list of modules", where=str(path), hint="is it sentence-transformers'?", code="not-json"
        ) from None


def _optional(path: Path) -> dict[str, Any]:
    return json_object(path) if path.is_file() else {}


def _pooling(path: Path) -> str:
    """Return how a pooling module pools: "mean" or "cls".

    Raises:
        UsageError: in another way.
    """
    config = json_object(path)
    flags = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    set_flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    for name, flag in flags.items():
        if set_flags == [flag] or (not set_flags and config.get("pooling_mode") == name):
            return name
    what = f"pools by {', '.join(set_flags) or config.get('pooling_mode')}, which cannot be read; mean and cls can"
    raise UsageError(what, where=str(path), code="bi-encoder-modules")
