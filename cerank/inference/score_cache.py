"""Keep the scores of pairs between runs.

Invariant: a score is the same, bit for bit, whether it was cached or computed. `rerank` cuts candidates into blocks by
rank, each block is scored in batches of its own, and only a whole block is ever taken from the cache. So a deeper
re-ranking, or one with one more first stage behind the others, computes only the new blocks.

Why whole blocks, and not single pairs: a score changes in its last bits (by up to 4e-8) with the pairs that share its
batch, and the same plan must give the same bits whether or not the pairs were scored before.

A block is found only where all that its bits depend on is the same, down to the order of its pairs, and only if its
hash still fits. A file comes whole, by a rename, so that any number of processes may read and write and be killed; the
folder may be emptied at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from array import array
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from cerank.core.passage_scores import passage_id, passages_by_document
from cerank.errors import RunFailedError
from cerank.files import disk
from cerank.files.source_hash import COMPUTING_PACKAGES, code_sha256
from cerank.kernels.determinism import gpu_environment, hardware_name

BLOCK_DEPTH = 100  # candidates of a query scored together: the depth that most first stages are re-ranked to
SIZE_LIMIT = 512 << 20  # bytes of all cached scores: some 130 million of them
_TRIMMED_SHARE = 0.8  # fraction of the limit that is left after old scores were removed
_DIGEST = 32  # bytes of SHA-256 before the scores
_FOLDER = "scores"

Candidates = Mapping[str, Sequence[str]]  # query id -> document ids
Scores = dict[str, dict[str, float]]  # query id -> document (or passage) id -> score


def score_cache_key(model: str, documents: str, *, device: str, threads: int, precision: str) -> tuple[str, ...]:
    """Return all that the bits of a score depend on beside the pairs of its block.

    Args:
        model: fingerprint of the checkpoint, tokenizer and lengths included.
        documents: fingerprint of the collection that the document ids belong to.
        device: where scores are computed; the name of the hardware counts, as another processor sums in another order.
        threads: number of CPU threads that compute scores, which decides the order of sums.
        precision: "fp32" or "bf16", the precision of matrix products.
    """
    packages = [f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers")]
    return (
        model,
        documents,
        hardware_name(device),
        str(threads),
        precision,
        *packages,
        *(f"{key} {value}" for key, value in gpu_environment(device).items()),
        code_sha256(*COMPUTING_PACKAGES),
    )


class ScoreCache:
    """The cached scores of one checkpoint on one dataset.

    Args:
        cache: folder of all caches; scores get a folder in it.
        key: all that scores depend on beside the pairs; see `score_cache_key`.
        limit: largest size in bytes of all cached scores; the least recently used are removed first.
        has_passages: whether the scores are those of the documents' passages; the key says how these are cut. How the
            scores are aggregated is no part of it.
    """

    def __init__(self, cache: Path, key: Sequence[str], limit: int = SIZE_LIMIT, *, has_passages: bool = False) -> None:
        self._root, self._limit, self._has_passages = cache / _FOLDER, limit, has_passages
        self._key = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()
        self._folder = self._root / self._key[:16]
        self._can_write = True

    def get(self, block: Candidates, texts: Sequence[str]) -> Scores | None:
        """Return the scores of exactly this block; None where it is not cached. A damaged file is renamed to *.bad.

        Args:
            block: query id -> document ids, in order.
            texts: texts of the block's queries, in order; tomorrow an id may stand for another text.
        """
        path = self._path(block, texts)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[_DIGEST:]
        is_whole = hashlib.sha256(payload).digest() == data[:_DIGEST]
        scores = self._decoded(block, payload) if is_whole else None
        if scores is None:
            with contextlib.suppress(RunFailedError):  # another process did so, or this one may not write here
                disk.quarantine(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now, so not the next to be removed
        return scores

    def put(self, block: Candidates, texts: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> None:
        """Cache the scores of a block as float32; where the cache cannot be written to, do nothing."""
        if not self._can_write:
            return
        payload = self._encoded(block, scores)
        path = self._path(block, texts)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            disk.make_folder(path.parent)
            disk.write(temporary, hashlib.sha256(payload).digest() + payload)
            disk.rename(temporary, path)
        except RunFailedError:
            self._can_write = False  # a full disk, or no permission: scores are computed again next time
            with contextlib.suppress(RunFailedError):
                disk.remove(temporary)

    def _encoded(self, block: Candidates, scores: Mapping[str, Mapping[str, float]]) -> bytes:
        """Return the scores in the order of the block; of passages first how many each document has."""
        if not self._has_passages:
            return array("f", [scores[query][doc] for query, docs in block.items() for doc in docs]).tobytes()
        of_documents = {query: passages_by_document(scores[query]) for query in block}
        rows = [of_documents[query][doc] for query, docs in block.items() for doc in docs]
        counts, floats = array("I", map(len, rows)), array("f", [score for row in rows for score in row])
        return counts.tobytes() + floats.tobytes()

    def _decoded(self, block: Candidates, payload: bytes) -> Scores | None:
        """Return what `_encoded` wrote; None where its length is not that of this block."""
        count = sum(map(len, block.values()))
        counts, floats = array("I"), array("f")
        if self._has_passages:
            size = counts.itemsize * count
            if len(payload) < size:
                return None
            counts.frombytes(payload[:size])
            payload = payload[size:]
        if len(payload) != floats.itemsize * (sum(counts) if self._has_passages else count):
            return None
        floats.frombytes(payload)
        values = iter(floats)
        if not self._has_passages:
            return {query: {doc: next(values) for doc in docs} for query, docs in block.items()}
        passages = iter(counts)
        return {
            query: {passage_id(doc, number): next(values) for doc in docs for number in range(next(passages))}
            for query, docs in block.items()
        }

    def trim(self) -> None:
        """Remove the least recently used files, and temporary files of killed processes, until the size is right."""
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
            if total <= _TRIMMED_SHARE * self._limit:
                return

    def _path(self, block: Candidates, texts: Sequence[str]) -> Path:
        digest = hashlib.sha256(self._key.encode())
        for (query, docs), text in zip(block.items(), texts, strict=True):
            row = "\0".join((query, text, *docs)).encode("utf-8", "surrogatepass")
            digest.update(len(row).to_bytes(8, "little") + len(docs).to_bytes(8, "little") + row)
        return self._folder / digest.hexdigest()[:40]
