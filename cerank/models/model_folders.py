"""Check a model folder from elsewhere before anything in it reaches transformers.

Invariant: a folder that passes names no code, no other folder and no other model: all that is read of it lies in it (or
where the hub's own cache keeps its files), and nothing of it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cerank.errors import UsageError, os_error
from cerank.files.safe_open import read_file
from cerank.text.safe_text import shown, token_at

_LARGEST = 1 << 24  # bytes of a file of settings; tokenizer.json, which is data, is not read here
_SETTINGS = (
    "config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
)
_INDEX = "*.safetensors.index.json"
_ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "paged_attention")
_CODE_HINT = "cerank runs no code that comes with a model; take a model of one of transformers' own types"
_DEEPEST = 3  # folders of sentence-transformers lie one deep


def check(folder: Path) -> None:
    """Return if the folder may be given to transformers.

    Raises:
        UsageError: settings that are no JSON object, name code (auto_map) or ask to run it, name a kernel, a
            quantization or an adapter, or hold an access token; weights listed outside the folder; a link that leads
            out of it; a pipe or device.
    """
    check_folder(folder)
    for name in _SETTINGS:
        if (folder / name).is_file():
            _check_settings(folder / name)
    if (folder / "adapter_config.json").exists():
        what = "an adapter takes its weights from another model, which its file names"
        raise UsageError(
            what, where=str(folder / "adapter_config.json"), hint="take config.json out of its folder, or merge it"
        )
    for path in folder.glob(_INDEX):
        _check_index(path)


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a small file of a model folder.

    Raises:
        UsageError: the file holds no JSON object, or is too large for settings.
    """
    try:
        data = read_file(path, _LARGEST + 1)
        if len(data) > _LARGEST:
            raise UsageError(
                f"the file has more than {_LARGEST >> 20} MiB, as no file of settings has", where=str(path)
            )
        values = json.loads(data)
    except OSError as error:
        raise os_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the file is not JSON: {shown(error, 120)}", where=str(path)) from error
    if not isinstance(values, dict):
        raise UsageError("the file is not a JSON object", where=str(path))
    return values


def _check_settings(path: Path) -> None:
    values = json_object(path)
    for key, text in _strings(values):
        if token_at(text) >= 0:
            raise UsageError("the file holds an access token", where=str(path), hint="take it out, and revoke it")
        if key.endswith("attn_implementation") and text not in _ATTENTION:
            raise UsageError(
                f"the model names a kernel of its own: {shown(text, 80)}", where=str(path), hint=_CODE_HINT
            )
    if "auto_map" in values:
        raise UsageError("the model brings code of its own (auto_map)", where=str(path), hint=_CODE_HINT)
    if values.get("trust_remote_code"):
        raise UsageError("the model asks to run code of its own (trust_remote_code)", where=str(path), hint=_CODE_HINT)
    if values.get("quantization_config") is not None:
        raise UsageError(
            "the model's weights are quantized, which cannot be trained", where=str(path), hint="take the original"
        )


def _strings(value: object) -> Iterator[tuple[str, str]]:
    """Yield (nearest key, text) of each text in a JSON value, level by level, so that depth needs no recursion."""
    layer: list[tuple[str, object]] = [("", value)]
    while layer:
        deeper: list[tuple[str, object]] = []
        for key, item in layer:
            if isinstance(item, str):
                yield key, item
            elif isinstance(item, dict):
                deeper += [(str(name), inner) for name, inner in item.items()]
                yield from ((str(name), str(name)) for name in item if token_at(str(name)) >= 0)
            elif isinstance(item, list):
                deeper += [(key, inner) for inner in item]
        layer = deeper


def _check_index(path: Path) -> None:
    """Check the index of weights in several files: each must be named as a file beside the index."""
    named = json_object(path).get("weight_map")
    if not isinstance(named, dict):
        raise UsageError("the file has no weight_map", where=str(path))
    for name in named.values():
        if not isinstance(name, str) or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            what = f"names weights that are no safetensors file beside it: {shown(name, 80)}"
            raise UsageError(what, where=str(path))


def check_folder(folder: Path) -> None:
    """Reject what is neither a file nor a folder, and links that lead out of the folder."""
    home = folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    layer = [home]
    for _ in range(_DEEPEST):
        deeper = []
        for path in (entry for each in layer for entry in sorted(_entries(each))):
            if path.is_symlink() and not _leads_into(path, home, blobs):
                hint = "copy the file there, if you trust it"
                raise UsageError(
                    "the file is a link that leads out of the model's folder",
                    where=str(path),
                    hint=hint,
                    code="link-out-of-folder",
                )
            if path.is_dir():
                deeper.append(path)
            elif path.exists() and not path.is_file():
                raise UsageError("the file is a pipe, a device or a socket, not a file", where=str(path))
        layer = deeper


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise os_error(error, folder) from error


def _leads_into(path: Path, home: Path, blobs: Path) -> bool:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle
        return False
    return target.is_relative_to(home) or target.parent == blobs
