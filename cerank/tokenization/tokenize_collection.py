"""Making the store of a collection's token ids: in parallel, piece by piece, so that a kill loses one piece.

Invariant: rows are in the order in which the dataset gives its texts; a shelf stands under its final name only whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cerank.datasets.dataset import Dataset
from cerank.errors import UsageError
from cerank.files import disk, file_cache, manifests
from cerank.files.hashing import sha256_file
from cerank.files.id_index import IdIndexBuilder, map_array
from cerank.tokenization.token_store import (
    LIMIT,
    Contents,
    Ids,
    Kind,
    Shelf,
    folder_of,
    key_of,
    opened_shelf,
    tokenizer_sha256,
)

_BEGUN = ("lengths.bin", "progress.json")  # of a shelf that is being made
PIECE = 50_000  # texts tokenized at once, by as many threads as the tokenizer takes; the unit of resuming
Told = Callable[[int, int], None]  # texts done, and tokens


class _Progress(msgspec.Struct, frozen=True):
    """What of a half-made shelf is safe on the disk."""

    rows: int = 0
    tokens: int = 0


def _nothing(_rows: int, _tokens: int) -> None:
    return


def build(tokenizer: Any, kind: Kind, dataset: Dataset, cache: Path, told: Told = _nothing) -> Shelf:
    """The shelf of a dataset's texts of one kind, from `cache` or made there; one that was begun is gone on with.

    Several processes may ask at once: one makes it, the others wait.

    Args:
        tokenizer: a fast one, of the base.
        kind: "document" for the whole collection, "query" for the dataset's queries.
        dataset: whole: of a part, the queries would be missing.
        cache: some 160 bytes for each passage of MS MARCO.
        told: is called after each piece.

    Raises:
        UsageError: the tokenizer has no fast form, or the dataset is a part of one.
        RunFailedError: the cache cannot be written.
    """
    if not tokenizer_sha256(tokenizer):
        raise UsageError("its tokenizer has no fast form, and is used on the fly only", where="base")
    if dataset.part:
        raise UsageError("a part has no store of its own", where=dataset.name, hint="name the whole dataset")
    folder = folder_of(cache, key_of(tokenizer, kind, dataset))
    found = opened_shelf(folder)
    if found is not None:
        return found
    with file_cache.exclusive_lock(folder, folder.parent):
        found = opened_shelf(folder)
        if found is None:
            found = _made(tokenizer, kind, dataset, folder, told)
    return found


def verify(shelf: Shelf) -> bool:
    """Whether every file is, by its hash, the one that was written; reads all of them."""
    return all(sha256_file(shelf.folder / entry.path) == entry.sha256 for entry in shelf.contents.files)


def _made(tokenizer: Any, kind: Kind, dataset: Dataset, folder: Path, told: Told) -> Shelf:
    texts = iter(dataset.documents) if kind == "document" else iter(dataset.queries.items())
    width = 2 if len(tokenizer) <= 1 << 16 else 4
    part = folder.with_suffix(".part")
    disk.make_folder(part)
    keys, progress = _filled(_Encoder(tokenizer, width), texts, part, told)
    where = dataset.name
    twice = keys.find_duplicate()
    if twice is not None:
        raise UsageError(f"rows {twice[0]} and {twice[1]} of its {kind} texts have one id", where=where)
    lengths = map_array(part / "lengths.bin", "<u2").astype(np.uint64)
    disk.write(part / "offsets.bin", np.concatenate([[0], np.cumsum(lengths)]).astype("<u8").tobytes())
    is_numbered = keys.write(part)
    names = ("ids.bin", "offsets.bin", *(() if is_numbered else ("hashes.bin", "rows.bin")))
    paths = [part / name for name in names]
    files = tuple(manifests.ManifestEntry(path.name, path.stat().st_size, sha256_file(path)) for path in paths)
    contents = Contents(
        kind=kind,
        rows=progress.rows,
        tokens=progress.tokens,
        bytes_each=width,
        is_numbered=is_numbered,
        files=files,
    )
    disk.write(part / manifests.MANIFEST, msgspec.json.encode(contents))
    disk.remove_tree(folder)  # a damaged one
    disk.rename(part, folder)
    for name in _BEGUN:  # not before: without them, a kill here would cost all of the work
        disk.remove(folder / name)
    found = opened_shelf(folder)
    if found is None:
        raise UsageError("the tokens read back otherwise than written", where=str(folder), hint="check the disk")
    return found


class _Encoder:
    """A copy of a tokenizer that gives ids and nothing else; the one it was made of is left as it is."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(LIMIT)
        self.width = width

    def ids(self, texts: list[str]) -> tuple[Ids, NDArray[np.uint16]]:
        """All ids end to end, and how many each text has."""
        rows = [one.ids for one in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), dtype="<u2", count=len(rows))
        total = int(lengths.sum(dtype=np.int64))
        return np.fromiter(itertools.chain.from_iterable(rows), dtype=f"<u{self.width}", count=total), lengths


def _begun(part: Path, width: int) -> _Progress:
    """What an earlier attempt left, its files cut back to it."""
    try:
        progress = msgspec.json.decode((part / "progress.json").read_bytes(), type=_Progress)
        sizes = [(part / name).stat().st_size for name in ("ids.bin", "lengths.bin")]
    except (OSError, ValueError):
        return _Progress()
    return progress if sizes[0] >= progress.tokens * width and sizes[1] >= progress.rows * 2 else _Progress()


def _filled(
    encoder: _Encoder, texts: Iterator[tuple[str, str]], part: Path, told: Told
) -> tuple[IdIndexBuilder, _Progress]:
    """Appends all that is not there yet; the keys of all rows, and what it came to."""
    keys, progress = IdIndexBuilder(), _begun(part, encoder.width)
    ids, lengths = disk.open_append(part / "ids.bin"), disk.open_append(part / "lengths.bin")
    try:
        disk.truncate(ids, progress.tokens * encoder.width)
        disk.truncate(lengths, progress.rows * 2)
        for found, counts in _ahead(encoder, _new(texts, keys, progress.rows)):
            disk.append(ids, found.tobytes())
            disk.append(lengths, counts.tobytes())
            disk.sync(ids)
            disk.sync(lengths)
            progress = _Progress(progress.rows + len(counts), progress.tokens + len(found))
            disk.write(part / "progress.json", msgspec.json.encode(progress))
            told(progress.rows, progress.tokens)
    finally:
        disk.close(ids)
        disk.close(lengths)
    return keys, progress


def _new(texts: Iterator[tuple[str, str]], keys: IdIndexBuilder, done: int) -> Iterator[list[str]]:
    """Pieces of the texts behind the first `done`; the keys of all go to `keys`."""
    while piece := list(itertools.islice(texts, min(PIECE, done - len(keys)) if len(keys) < done else PIECE)):
        is_done = len(keys) < done
        keys.add([key for key, _ in piece])
        if not is_done:
            yield [text for _, text in piece]


def _ahead(encoder: _Encoder, pieces: Iterable[list[str]]) -> Iterator[tuple[Ids, NDArray[np.uint16]]]:
    """Each piece's ids; a piece is tokenized, without Python's lock, while the next one is read."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        before = None
        for piece in pieces:
            work = pool.submit(encoder.ids, piece)
            if before is not None:
                yield before.result()
            before = work
        if before is not None:
            yield before.result()
