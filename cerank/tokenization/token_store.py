"""Read the token ids of a collection's texts from disk, where they were tokenized once for every run.

Invariant: the ids of a text are those that tokenizing it on the fly gives, or the text is missing here.

A `TokenShard` holds the texts of one kind under `CACHE/tokens/KEY`; the key is a hash over the tokenizer, the
collection and the format. Row i is `ids[offsets[i]:offsets[i + 1]]`, without special tokens, cut at
`MAX_STORED_TOKENS` tokens. Files:

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
from cerank.files import json_records, manifests
from cerank.files.id_index import IdIndex, map_array

Kind = Literal["document", "query"]
Ids = NDArray[Any]  # uint16 or uint32

KINDS: tuple[Kind, ...] = ("document", "query")
MAX_STORED_TOKENS = 512  # tokens stored of a text; a base that reads more tokenizes longer texts itself
FORMAT = 1  # version of the format; with another number, no older store is read


class ShardManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a shard's COMPLETE.json."""

    kind: Kind
    rows: int
    tokens: int
    bytes_each: int  # bytes of a token id: 2 or 4
    is_numbered: bool  # whether the keys are 0, 1, 2 ...: then no hashes are stored
    files: tuple[manifests.ManifestEntry, ...]


def tokenizer_sha256(tokenizer: Any) -> str:
    """Return the SHA-256 over all that decides a fast tokenizer's ids; "" for a slow one, which has no store.

    What a call leaves behind in it (truncation, padding) does not count; the version of the package does.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ""
    parts = msgspec.json.decode(backend.to_str())
    parts["truncation"] = parts["padding"] = None
    text = msgspec.json.encode((version("tokenizers"), parts), order="deterministic")
    return hashlib.sha256(text).hexdigest()


def shard_key(tokenizer: Any, kind: Kind, dataset: Dataset) -> str:
    """Return the name of a shard in the cache: documents by their collection, queries by their whole dataset."""
    content = dataset.documents.fingerprint() if kind == "document" else dataset.identity
    return hashlib.sha256(
        repr((FORMAT, MAX_STORED_TOKENS, kind, content, tokenizer_sha256(tokenizer))).encode()
    ).hexdigest()


class TokenShard:
    """The memory-mapped token ids of a collection's texts of one kind; `tokenize_collection.build` makes them."""

    def __init__(self, folder: Path, contents: ShardManifest) -> None:
        self.folder, self.contents = folder, contents
        self._keys = IdIndex(folder, contents.rows, is_numbered=contents.is_numbered)

    def __len__(self) -> int:
        return self.contents.rows

    @cached_property
    def tokens(self) -> Ids:
        """Return the ids of all rows, end to end."""
        return map_array(self.folder / "ids.bin", f"<u{self.contents.bytes_each}")

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """Return (rows + 1,): where in `tokens` each row starts."""
        return map_array(self.folder / "offsets.bin", "<u8")

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return (keys,): the row of each key; -1 where there is none."""
        return self._keys.rows(keys)

    def ids(self, row: int) -> Ids:
        """Return the ids of a row as a view into the map: nothing is copied."""
        return self.tokens[int(self.offsets[row]) : int(self.offsets[row + 1])]


class TokenStore:
    """The stored token ids of one dataset: its documents, its queries, or both.

    Args:
        documents: the shard of the dataset's documents; None if they were not tokenized ahead.
        queries: the shard of the dataset's queries; None if they were not tokenized ahead.
    """

    def __init__(self, documents: TokenShard | None, queries: TokenShard | None) -> None:
        self._shards: dict[str, TokenShard | None] = {"document": documents, "query": queries}

    def shard(self, kind: str) -> TokenShard | None:
        """Return the shard of "document" or "query"."""
        return self._shards[kind]

    def lengths(self, kind: str, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return (keys,): stored tokens of each text, at most `MAX_STORED_TOKENS`; -1 for a text that is not here."""
        shard = self._shards[kind]
        if shard is None:
            return np.full(len(keys), -1, dtype=np.int64)
        rows = shard.rows(keys)
        lengths = (shard.offsets[rows + 1] - shard.offsets[np.maximum(rows, 0)]).astype(np.int64)
        return np.where(rows < 0, -1, lengths)

    def ids_of_many(self, kind: str, keys: Sequence[str], limit: int) -> list[Ids | None]:
        """Return the first `limit` ids of each text, without special tokens, as views into the map.

        None for a text that is not here, and for one that was cut at `MAX_STORED_TOKENS` when more are asked for: the
        caller tokenizes those itself, with truncation at `limit`, and gets the same ids.
        """
        shard = self._shards[kind]
        if shard is None:
            return [None] * len(keys)
        all_ids: list[Ids | None] = []
        for row in shard.rows(keys).tolist():
            ids = shard.ids(row) if row >= 0 else None
            is_cut = ids is not None and limit > MAX_STORED_TOKENS and len(ids) >= MAX_STORED_TOKENS
            all_ids.append(None if ids is None or is_cut else ids[:limit])
        return all_ids

    def ids(self, kind: str, key: str, limit: int) -> Ids | None:
        """Return what `ids_of_many` returns, for one text."""
        return self.ids_of_many(kind, [key], limit)[0]


def shard_folder(cache: Path, key: str) -> Path:
    """Return the folder of the shard with that key."""
    return cache / "tokens" / key


def open_shard(folder: Path) -> TokenShard | None:
    """Return the shard in `folder`; None if there is none, or a file is not as long as it was written.

    The files' hashes are not computed here: they are gigabytes. `tokenize_collection.verify` does.
    """
    try:
        contents = json_records.decode((folder / manifests.MANIFEST).read_bytes(), ShardManifest)
        if any((folder / entry.path).stat().st_size != entry.size for entry in contents.files):
            return None
    except (OSError, ValueError):
        return None
    return TokenShard(folder, contents)


def open_token_store(tokenizer: Any, dataset: Dataset, cache: Path) -> TokenStore | None:
    """Return what `cerank data tokenize` stored of the dataset for this tokenizer; None if nothing.

    Args:
        tokenizer: tokenizer of the base or of a stage's model; only what it does counts, not where it is.
        dataset: the dataset, whole or a part.
        cache: folder of caches; it may be emptied at any time, but not while a store in it is in use.
    """
    if not (cache / "tokens").is_dir() or not tokenizer_sha256(tokenizer):
        return None
    documents = open_shard(shard_folder(cache, shard_key(tokenizer, "document", dataset)))
    queries = open_shard(shard_folder(cache, shard_key(tokenizer, "query", dataset)))
    return TokenStore(documents, queries) if documents or queries else None
