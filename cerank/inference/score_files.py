"""Scores kept between runs, in the cache: what a checkpoint gave for a chunk of queries and their candidates.

Invariant: a chunk is found only where all that its bits depend on is the same, down to the order of its pairs; what is
found is what was kept, by its hash. A file comes whole by a rename, so any number of processes may read and write, and
be killed; the folder may be emptied at any time.

Why whole chunks, and not single pairs: a score moves in its last bits (up to 4e-8) with the pairs it shares a batch
with, and the same plan gives the same bits whether or not somebody re-ranked before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from cerank.errors import RunFailedError
from cerank.files import disk

LIMIT = 512 << 20  # bytes of all that is kept: some 130 million scores
_ROOM = 0.8  # of the limit, left after old scores were removed
_DIGEST = 32  # bytes of SHA-256 before the scores
_NAME = "scores"

Wanted = Mapping[str, Sequence[str]]  # query id -> document ids


class KeptScores:
    """The kept scores of one checkpoint on one dataset.

    Args:
        cache: the folder of caches.
        identity: all that scores depend on beside the pairs: weights, texts, precision, device, versions.
        limit: bytes; the longest unused go first.
    """

    def __init__(self, cache: Path, identity: Sequence[str], limit: int = LIMIT) -> None:
        self._root, self._limit = cache / _NAME, limit
        self._identity = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogatepass")).hexdigest()
        self._folder = self._root / self._identity[:16]
        self._can_write = True

    def find(self, wanted: Wanted, texts: Sequence[str]) -> dict[str, dict[str, float]] | None:
        """The scores of exactly this chunk; None where it is not kept. A damaged file is moved aside.

        Args:
            wanted: the chunk, in its order.
            texts: of its queries, in order; an id may be another text tomorrow.
        """
        path = self._path(wanted, texts)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[_DIGEST:]
        count = sum(map(len, wanted.values()))
        if hashlib.sha256(payload).digest() != data[:_DIGEST] or len(payload) != 4 * count:
            with contextlib.suppress(RunFailedError):  # somebody else did so, or may not write here
                disk.quarantine(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now, so not the next to go
        values = iter(_floats(payload))
        return {query: {doc: next(values) for doc in docs} for query, docs in wanted.items()}

    def keep(self, wanted: Wanted, texts: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> None:
        """Keeps a chunk's scores, all of them float32; a cache that cannot be written to is left alone."""
        if not self._can_write:
            return
        payload = _packed([scores[query][doc] for query, docs in wanted.items() for doc in docs])
        path = self._path(wanted, texts)
        own = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            disk.make_folder(path.parent)
            disk.write(own, hashlib.sha256(payload).digest() + payload)
            disk.rename(own, path)
        except RunFailedError:
            self._can_write = False  # a full disk, or no permission: scores are computed again next time
            with contextlib.suppress(RunFailedError):
                disk.remove(own)

    def trim(self) -> None:
        """Removes the longest unused files, and what kills left over, until there is room; at the end of a work."""
        files = []
        for path in self._root.glob("*/*"):
            with contextlib.suppress(OSError):  # removed by another process meanwhile
                state = path.stat()
                files.append((state.st_mtime_ns, state.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self._limit:
            return
        for _, size, path in sorted(files):
            with contextlib.suppress(RunFailedError):
                disk.remove(path)
            total -= size
            if total <= _ROOM * self._limit:
                return

    def _path(self, wanted: Wanted, texts: Sequence[str]) -> Path:
        digest = hashlib.sha256(self._identity.encode())
        for (query, docs), text in zip(wanted.items(), texts, strict=True):
            row = "\0".join((query, text, *docs)).encode("utf-8", "surrogatepass")
            digest.update(len(row).to_bytes(8, "little") + len(docs).to_bytes(8, "little") + row)
        return self._folder / digest.hexdigest()[:40]


def _packed(scores: Sequence[float]) -> bytes:
    return array("f", scores).tobytes()


def _floats(payload: bytes) -> array[float]:
    values = array("f")
    values.frombytes(payload)
    return values
