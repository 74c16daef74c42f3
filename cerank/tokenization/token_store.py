"""Texts of a collection as token ids on disk, tokenized once for every run that reads them.

Invariant: the ids of a text are those that tokenizing it on the fly gives, or the text is not found here at all.

A `Shelf` holds the texts of one kind under `CACHE/tokens/KEY`, the key a hash over the tokenizer, the collection and
the format. Row i is `ids[offsets[i]:offsets[i + 1]]`, without special tokens, cut at `LIMIT` tokens. Files:

    ids.bin       uint16 (uint32 where the vocabulary is larger), little-endian, all rows end to end
    offsets.bin   uint64, one more than there are rows
    hashes.bin    uint64, ascending: BLAKE2b-64 of the rows' keys; absent where the keys are 0, 1, 2 ... in this order
    rows.bin      uint32, the row of each hash
    COMPLETE.json counts, and size and SHA-256 of the other files; written last
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from cerank.datasets.dataset import Dataset
from cerank.files import manifests
from cerank.files.id_index import IdIndex, map_array

Kind = Literal["document", "query"]
Ids = NDArray[Any]  # uint16 or uint32

KINDS: tuple[Kind, ...] = ("document", "query")
LIMIT = 512  # tokens kept of a text; a base that reads more finds texts of this length not here
FORMAT = 1  # another number makes every old store unknown


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """COMPLETE.json of a shelf."""

    kind: Kind
    rows: int
    tokens: int
    bytes_each: int  # of a token id: 2 or 4
    is_numbered: bool  # whether the keys are 0, 1, 2 ...: then no hashes are kept
    files: tuple[manifests.ManifestEntry, ...]


def tokenizer_sha256(tokenizer: Any) -> str:
    """SHA-256 over all that decides a fast tokenizer's ids; "" for one that is not fast, which has no store.

    What a call leaves behind in it (truncation, padding) does not count; the version of the package does.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ""
    parts = msgspec.json.decode(backend.to_str())
    parts["truncation"] = parts["padding"] = None
    text = msgspec.json.encode((version("tokenizers"), parts), order="deterministic")
    return hashlib.sha256(text).hexdigest()


def key_of(tokenizer: Any, kind: Kind, dataset: Dataset) -> str:
    """The name of a shelf in the cache: documents by their collection, queries by their whole dataset."""
    content = dataset.documents.fingerprint() if kind == "document" else dataset.identity
    return hashlib.sha256(repr((FORMAT, LIMIT, kind, content, tokenizer_sha256(tokenizer))).encode()).hexdigest()


class Shelf:
    """The token ids of a collection's texts of one kind, memory-mapped; `tokenize_collection.build` makes them."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self.folder, self.contents = folder, contents
        self._keys = IdIndex(folder, contents.rows, is_numbered=contents.is_numbered)

    def __len__(self) -> int:
        return self.contents.rows

    @cached_property
    def tokens(self) -> Ids:
        """Ids of all rows, end to end."""
        return map_array(self.folder / "ids.bin", f"<u{self.contents.bytes_each}")

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """(rows + 1,): where in `tokens` each row starts."""
        return map_array(self.folder / "offsets.bin", "<u8")

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """(keys,): the row of each key; -1 where there is none."""
        return self._keys.rows(keys)

    def ids(self, row: int) -> Ids:
        """The ids of a row, a view into the map: nothing is copied."""
        return self.tokens[int(self.offsets[row]) : int(self.offsets[row + 1])]


class TokenStore:
    """What is tokenized of one dataset: its documents, its queries, or both.

    Args:
        documents: the shelf of its documents; None where they were not tokenized ahead.
        queries: the shelf of its queries, likewise.
    """

    def __init__(self, documents: Shelf | None, queries: Shelf | None) -> None:
        self._shelves: dict[str, Shelf | None] = {"document": documents, "query": queries}

    def shelf(self, kind: str) -> Shelf | None:
        """The shelf of "document" or "query"."""
        return self._shelves[kind]

    def lengths(self, kind: str, keys: Sequence[str]) -> NDArray[np.int64]:
        """(keys,): tokens kept of each text, at most `LIMIT`; -1 for a text that is not here."""
        shelf = self._shelves[kind]
        if shelf is None:
            return np.full(len(keys), -1, dtype=np.int64)
        rows = shelf.rows(keys)
        found = (shelf.offsets[rows + 1] - shelf.offsets[np.maximum(rows, 0)]).astype(np.int64)
        return np.where(rows < 0, -1, found)

    def many(self, kind: str, keys: Sequence[str], limit: int) -> list[Ids | None]:
        """The first `limit` ids of each text, without special tokens: views into the map.

        None for a text that is not here, and for one that was cut at `LIMIT` when more are asked for: the caller
        tokenizes those itself, with truncation at `limit`, and has the same ids.
        """
        shelf = self._shelves[kind]
        if shelf is None:
            return [None] * len(keys)
        found: list[Ids | None] = []
        for row in shelf.rows(keys).tolist():
            ids = shelf.ids(row) if row >= 0 else None
            is_cut = ids is not None and limit > LIMIT and len(ids) >= LIMIT
            found.append(None if ids is None or is_cut else ids[:limit])
        return found

    def ids(self, kind: str, key: str, limit: int) -> Ids | None:
        """As `many`, for one text."""
        return self.many(kind, [key], limit)[0]


def folder_of(cache: Path, key: str) -> Path:
    """Where the shelf of that key stands."""
    return cache / "tokens" / key


def opened_shelf(folder: Path) -> Shelf | None:
    """The shelf in `folder`, or None where there is none, or a file is not as long as it was written.

    The files' hashes are not computed here: they are gigabytes. `tokenize_collection.verify` does.
    """
    try:
        contents = msgspec.json.decode((folder / manifests.MANIFEST).read_bytes(), type=Contents)
        if any((folder / entry.path).stat().st_size != entry.size for entry in contents.files):
            return None
    except (OSError, ValueError):
        return None
    return Shelf(folder, contents)


def opened(tokenizer: Any, dataset: Dataset, cache: Path) -> TokenStore | None:
    """What `cerank data tokenize` has kept of the dataset for this tokenizer; None where that is nothing.

    Args:
        tokenizer: of the base, or of a stage's model: what counts is what it does, not where it is.
        dataset: whole or in part.
        cache: may be emptied at any time; not while a store in it is in use.
    """
    if not (cache / "tokens").is_dir() or not tokenizer_sha256(tokenizer):
        return None
    documents = opened_shelf(folder_of(cache, key_of(tokenizer, "document", dataset)))
    queries = opened_shelf(folder_of(cache, key_of(tokenizer, "query", dataset)))
    return TokenStore(documents, queries) if documents or queries else None
