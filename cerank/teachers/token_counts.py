"""Counts tokens by a model's own tokenizer, where it is on this machine; nothing is fetched for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def counter_of(model: str) -> Callable[[str], int] | None:
    """Return a function that counts the tokens of a text, or None where the model's tokenizer is not here.

    Args:
        model: a folder, or a Hugging Face id whose files are in the hub's cache.
    """
    path = _tokenizer_file(model)
    if path is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _tokenizer_file(model: str) -> Path | None:
    folder = Path(model).expanduser()
    if (folder / "tokenizer.json").is_file():
        return folder / "tokenizer.json"
    if model.count("/") != 1 or model.startswith((".", "~", "/")):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "tokenizer.json")
    return Path(cached) if isinstance(cached, str) else None
