"""Cross-encoders that experimaestro-ir (xpmir) published: a model of transformers in a folder of its own.

`experimaestro.json` beside that folder says to what lengths its tokenizer cut texts. It is read as data: the classes
that it names are never imported.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import UsageError
from cerank.files.safe_open import open_file
from cerank.text.safe_text import shown

DEFINITION = "experimaestro.json"
_LOADERS = {"CrossEncoderModuleLoader": "encoder_path", "STModuleLoader": "path", "STCrossEncoderModuleLoader": "path"}
_LARGEST = 1 << 22  # bytes


class XpmLengths(msgspec.Struct, frozen=True, kw_only=True):
    """To what a tokenizer of xpmir cuts a pair; 0 where it says nothing."""

    pair: int = 0
    query: int = 0
    document: int = 0
    query_prompt: str = ""


def model_part(folder: Path) -> Path:
    """Return the folder inside a checkpoint of xpmir that holds the model; any other folder itself.

    Raises:
        UsageError: the definition is unreadable, is of no cross-encoder, or names a folder outside its own.
    """
    path = folder / DEFINITION
    if not path.is_file():
        return folder
    has_weights = any(folder.glob("*.safetensors"))  # then the file may be of another program of experimaestro
    try:
        entries = _entries(path)
    except UsageError:
        if has_weights:
            return folder
        raise
    loaders = [(entry, _LOADERS[name]) for entry in entries if (name := _class_of(entry)) in _LOADERS]
    if not loaders:
        if has_weights and not any(str(entry.get("typename", "")).startswith("xpmir.") for entry in entries):
            return folder
        names = ", ".join(sorted({shown(_class_of(entry), 60) for entry in entries})) or "nothing"
        what = f"the checkpoint of xpmir holds no cross-encoder: {names}"
        raise UsageError(what, where=str(path), code="not-pointwise")
    entry, field = loaders[-1]
    named = _fields(entry).get(field)
    part = str(named.get("value", "")) if isinstance(named, dict) else ""
    if part.endswith(".safetensors") and "/" not in part:  # weights beside the definition
        return folder
    if not re.fullmatch(r"\w+", part):
        what = f"names a folder outside the model: {shown(part, 80)}"
        raise UsageError(what, where=str(path), code="path-out-of-folder")
    return folder / part


def read_lengths(folder: Path) -> XpmLengths | None:
    """Return to what pairs are cut, of a folder that `model_part` returned; None where it is none of xpmir's.

    Raises:
        UsageError: the tokenizer writes something around a text that cerank has no form for.
    """
    home = next((home for home in (folder, folder.parent) if _is_checkpoint_of(home, folder)), None)
    if home is None:
        return None
    path = home / DEFINITION
    for entry in _entries(path):
        fields = _fields(entry)
        if _class_of(entry) != "HFQueryDocTokenizer":
            continue
        prompt = fields.get("query_prompt") or ""
        if fields.get("doc_prompt") or not isinstance(prompt, str) or "{" in prompt:
            what = "the checkpoint's tokenizer writes a prompt around documents, or one with a place for the query"
            raise UsageError(what, where=str(path), hint="only a text before each query is supported")
        pair, query, document = (
            value if isinstance(value := fields.get(name), int) and value > 0 else 0
            for name in ("max_length", "max_query_length", "max_doc_length")
        )
        return XpmLengths(pair=pair, query=query, document=document, query_prompt=prompt)
    return XpmLengths()


def _is_checkpoint_of(home: Path, folder: Path) -> bool:
    """Return whether `home` is a checkpoint of xpmir whose model is in `folder`, and no other program's folder."""
    path = home / DEFINITION
    with contextlib.suppress(UsageError):
        return (
            path.is_file()
            and any(_class_of(entry) in _LOADERS for entry in _entries(path))
            and (model_part(home) == folder)
        )
    return False


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        with open_file(path) as file:
            rows = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("the definition of xpmir is not readable JSON", where=str(path)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError("the file is no definition of xpmir: not a list of objects", where=str(path))
    return rows


def _class_of(entry: dict[str, Any]) -> str:
    return str(entry.get("typename", "")).rpartition(".")[2]


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    fields = entry.get("fields")
    return fields if isinstance(fields, dict) else {}
