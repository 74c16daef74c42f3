"""Tokenize a collection to disk: in parallel, and piece by piece, so that a kill loses one piece.

Invariant: rows are in the order of the dataset's texts; a shard gets its final name only when it is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cerank.core.prefetch import made_ahead
from cerank.datasets.dataset import Dataset
from cerank.errors import UsageError
from cerank.files import disk, file_cache, json_records, manifests
from cerank.files.hashing import sha256_file
from cerank.files.id_index import IdIndexBuilder, map_array
from cerank.tokenization.token_store import (
    MAX_STORED_TOKENS,
    Ids,
    Kind,
    ShardManifest,
    TokenShard,
    open_shard,
    shard_folder,
    shard_key,
    tokenizer_sha256,
)

_WORK_FILES = ("lengths.bin", "progress.json")  # files of an unfinished shard
PIECE_TEXTS = 50_000  # texts tokenized at once, in the tokenizer's own threads; a kill loses at most one such piece
OnProgress = Callable[[int, int], None]  # called with the number of texts and tokens so far


class _Progress(msgspec.Struct, frozen=True):
    """How much of an unfinished shard is safe on the disk."""

    rows: int = 0
    tokens: int = 0


def build(
    tokenizer: Any, kind: Kind, dataset: Dataset, cache: Path, on_progress: OnProgress = lambda _rows, _tokens: None
) -> TokenShard:
    """Return the shard of a dataset's texts of one kind, from `cache` or made there; an unfinished one is resumed.

    Several processes may ask at once: one makes it, the others wait.

    Args:
        tokenizer: the base's tokenizer; it must be a fast one.
        kind: "document" for the whole collection, "query" for the dataset's queries.
        dataset: the whole dataset; in a part of one, queries would be missing.
        cache: folder of caches; the shard takes about 160 bytes a passage of MS MARCO.
        on_progress: called after each piece with the number of texts and tokens so far.

    Raises:
        UsageError: the tokenizer has no fast form, or the dataset is a part of one.
        RunFailedError: the cache cannot be written.
    """
    if not tokenizer_sha256(tokenizer):
        raise UsageError(
            "the base's tokenizer has no fast form, so texts can only be tokenized during a run", where="base"
        )
    if dataset.part:
        raise UsageError(
            "a part has no store of its own",
            where=dataset.name,
            hint="name the whole dataset",
            code="token-store-missing",
        )
    folder = shard_folder(cache, shard_key(tokenizer, kind, dataset))
    shard = open_shard(folder)
    if shard is not None:
        return shard
    with file_cache.exclusive_lock(folder, folder.parent):
        shard = open_shard(folder)
        if shard is None:
            shard = _build_shard(tokenizer, kind, dataset, folder, on_progress)
    return shard


def verify(shard: TokenShard) -> bool:
    """Return whether every file fits its checksum; reads all of them."""
    return all(sha256_file(shard.folder / entry.path) == entry.sha256 for entry in shard.contents.files)


def _build_shard(tokenizer: Any, kind: Kind, dataset: Dataset, folder: Path, on_progress: OnProgress) -> TokenShard:
    texts = iter(dataset.documents) if kind == "document" else iter(dataset.queries.items())
    width = 2 if len(tokenizer) <= 1 << 16 else 4
    part = folder.with_suffix(".part")
    disk.make_folder(part)
    keys, progress = _append_missing(_Encoder(tokenizer, width), texts, part, on_progress)
    where = dataset.name
    repeated = keys.find_duplicate()
    if repeated is not None:
        raise UsageError(f"{kind} texts {repeated[0]} and {repeated[1]} have the same id", where=where)
    lengths = map_array(part / "lengths.bin", "<u2").astype(np.uint64)
    disk.write(part / "offsets.bin", np.concatenate([[0], np.cumsum(lengths)]).astype("<u8").tobytes())
    is_numbered = keys.write(part)
    names = ("ids.bin", "offsets.bin", *(() if is_numbered else ("hashes.bin", "rows.bin")))
    paths = [part / name for name in names]
    files = tuple(manifests.ManifestEntry(path.name, path.stat().st_size, sha256_file(path)) for path in paths)
    contents = ShardManifest(
        kind=kind,
        rows=progress.rows,
        tokens=progress.tokens,
        bytes_each=width,
        is_numbered=is_numbered,
        files=files,
    )
    disk.write(part / manifests.MANIFEST, msgspec.json.encode(contents))
    disk.remove_tree(folder)  # a damaged shard, if there is one
    disk.rename(part, folder)
    for name in _WORK_FILES:  # only now: without these files, a kill before would lose all of the work
        disk.remove(folder / name)
    shard = open_shard(folder)
    if shard is None:
        raise UsageError("checksum mismatch after writing the tokens", where=str(folder), hint="check the disk")
    return shard


class _Encoder:
    """A copy of a tokenizer that returns ids and nothing else; the original is not changed."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(MAX_STORED_TOKENS)
        self.width = width

    def ids(self, texts: list[str]) -> tuple[Ids, NDArray[np.uint16]]:
        """Return all ids end to end, and how many each text has."""
        rows = [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), dtype="<u2", count=len(rows))
        total = int(lengths.sum(dtype=np.int64))
        return np.fromiter(itertools.chain.from_iterable(rows), dtype=f"<u{self.width}", count=total), lengths


def _resume_point(part: Path, width: int) -> _Progress:
    """Return how far an earlier attempt got; (0, 0) where it left nothing that can be used."""
    try:
        progress = json_records.decode((part / "progress.json").read_bytes(), _Progress)
        sizes = [(part / name).stat().st_size for name in ("ids.bin", "lengths.bin")]
    except (OSError, ValueError):
        return _Progress()
    return progress if sizes[0] >= progress.tokens * width and sizes[1] >= progress.rows * 2 else _Progress()


def _append_missing(
    encoder: _Encoder, texts: Iterator[tuple[str, str]], part: Path, on_progress: OnProgress
) -> tuple[IdIndexBuilder, _Progress]:
    """Append all that is missing; return the keys of all rows, and the total progress."""
    keys, progress = IdIndexBuilder(), _resume_point(part, encoder.width)
    ids, lengths = disk.open_append(part / "ids.bin"), disk.open_append(part / "lengths.bin")
    try:
        disk.truncate(ids, progress.tokens * encoder.width)
        disk.truncate(lengths, progress.rows * 2)
        # a piece is tokenized, without Python's lock, while the next one is read
        for new_ids, counts in made_ahead(encoder.ids, _missing_texts(texts, keys, progress.rows)):
            disk.append(ids, new_ids.tobytes())
            disk.append(lengths, counts.tobytes())
            disk.sync(ids)
            disk.sync(lengths)
            progress = _Progress(progress.rows + len(counts), progress.tokens + len(new_ids))
            disk.write(part / "progress.json", msgspec.json.encode(progress))
            on_progress(progress.rows, progress.tokens)
    finally:
        disk.close(ids)
        disk.close(lengths)
    return keys, progress


def _missing_texts(texts: Iterator[tuple[str, str]], keys: IdIndexBuilder, done: int) -> Iterator[list[str]]:
    """Yield pieces of the texts after the first `done`; the keys of all go to `keys`."""
    while piece := list(
        itertools.islice(texts, min(PIECE_TEXTS, done - len(keys)) if len(keys) < done else PIECE_TEXTS)
    ):
        is_done = len(keys) < done
        keys.add([key for key, _ in piece])
        if not is_done:
            yield [text for _, text in piece]
