"""The scores of queries with every document of a closed collection, on disk: a cross-encoder's index.

A folder holds the ids and one folder for each shard, some queries' rows of float32 scores, each with a manifest of
checksums. Shards are written whole, so a killed build goes on where it stopped, and are read memory-mapped.

Invariant: memory does not grow with the number of queries: a shard is all that is held while it is made or read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import RunFailedError
from cerank.files import disk, json_records, manifests
from cerank.files.hashing import sha256_json
from cerank.files.lease import Lease

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORMAT = 1  # version of the files; another one invalidates every older matrix
_FOLDER = "score-matrices"
SHARD_SCORES = 1 << 14  # scores in a shard, at least one query's: what a stop costs, some minutes of a slow processor

ScoreRow = Callable[[str], Sequence[float]]  # query id -> its scores with all documents, in order


class _Shape(msgspec.Struct, frozen=True):
    """What a shard is of: the ids of its rows, and the SHA-256 of those of the columns, in order."""

    queries: tuple[str, ...]
    documents: str


class ScoreMatrix:
    """Rows of scores, a query each, over the documents of a collection in their order.

    Args:
        folder: where its shards are.
        queries: ids of its rows.
        documents: ids of its columns.
        shard_scores: largest number of scores in a shard.
    """

    def __init__(
        self, folder: Path, queries: Sequence[str], documents: Sequence[str], shard_scores: int = SHARD_SCORES
    ) -> None:
        self.folder, self.queries, self.documents = folder, tuple(queries), tuple(documents)
        self._columns = sha256_json(list(self.documents))
        self.rows_each = max(1, shard_scores // max(1, len(self.documents)))

    @classmethod
    def in_cache(
        cls,
        cache: Path,
        key: Sequence[str],
        queries: Sequence[tuple[str, str]],
        documents: Sequence[str],
        shard_scores: int = SHARD_SCORES,
    ) -> ScoreMatrix:
        """Return the matrix of the cache that belongs to a model, a collection and these queries; built or not.

        Args:
            cache: folder of all caches.
            key: all that scores depend on beside the pairs, the documents' texts among it; see `score_cache_key`.
            queries: ids with texts, in the order of rows.
            documents: ids of all documents, in the collection's order.
            shard_scores: largest number of scores in a shard.
        """
        name = sha256_json([_FORMAT, list(key), [list(query) for query in queries], list(documents), shard_scores])
        return cls(cache / _FOLDER / name[:40], [query for query, _ in queries], documents, shard_scores)

    @property
    def shards(self) -> range:
        """Return the first rows of the shards."""
        return range(0, len(self.queries), self.rows_each)

    def _path(self, start: int) -> Path:
        return self.folder / f"rows-{start:08d}"

    def missing(self) -> list[int]:
        """Return the first rows of shards that are not there whole; damaged ones are quarantined."""
        out = []
        for start in self.shards:
            path = self._path(start)
            if path.is_dir():
                try:
                    manifests.verify_folder(path)
                    self._check_ids(path, start)
                    continue
                except disk.DamagedError:
                    disk.quarantine(path)
            out.append(start)
        return out

    def _check_ids(self, path: Path, start: int) -> None:
        """Raise an error if a shard is of other queries or documents, which only a changed key format could cause."""
        shape = json_records.decode((path / "ids.json").read_bytes(), _Shape)
        if shape != self._shape(start):
            raise disk.DamagedError("the shard belongs to other queries or documents", where=str(path))

    def _shape(self, start: int) -> _Shape:
        return _Shape(self.queries[start : start + self.rows_each], self._columns)

    def build(self, score_row: ScoreRow, on_row: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Compute and write the shards that are missing.

        Args:
            score_row: scores one query with all documents.
            on_row: called with the number of finished rows and of all rows, after each row.

        Raises:
            HeldError: another process builds this matrix.
            RunFailedError: a row has not as many scores as there are documents, or one that is not finite.
        """
        import numpy as np

        disk.make_folder(self.folder)
        with Lease.take(self.folder / "lease", datetime.now(UTC)):
            missing = self.missing()
            done = len(self.queries) - sum(len(self._shape(start).queries) for start in missing)
            for start in missing:
                shape = self._shape(start)
                rows = np.empty((len(shape.queries), len(self.documents)), dtype="<f4")
                for place, query in enumerate(shape.queries):
                    values = np.asarray(score_row(query), dtype=np.float64)
                    if values.shape != (len(self.documents),) or not np.isfinite(values).all():
                        what = f"query {query}: not a finite score for each of {len(self.documents)} documents"
                        raise RunFailedError(what, where=str(self.folder), code="score-not-finite")
                    rows[place] = values
                    done += 1
                    on_row(done, len(self.queries))
                with manifests.checksummed_folder(self._path(start)) as inside:
                    np.save(inside / "scores.npy", rows, allow_pickle=False)
                    (inside / "ids.json").write_bytes(msgspec.json.encode(shape))

    def read(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the first row of each shard with its scores (rows, documents), memory-mapped."""
        import numpy as np

        for start in self.shards:
            yield start, np.load(self._path(start) / "scores.npy", mmap_mode="r", allow_pickle=False)

    def columns(self, places: Sequence[int]) -> NDArray[np.float64]:
        """Return the scores of all queries with some documents (queries, places), in float64."""
        import numpy as np

        chosen = np.asarray(places, dtype=np.intp)
        return np.concatenate([np.asarray(shard[:, chosen], dtype=np.float64) for _, shard in self.read()])

    def combined(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `weights` (n, queries) times the matrix: n rows of scores over all documents, in float64."""
        import numpy as np

        out = np.zeros((len(weights), len(self.documents)))
        for start, shard in self.read():
            out += weights[:, start : start + len(shard)] @ np.asarray(shard, dtype=np.float64)
        return out

    def row(self, query: str) -> NDArray[np.float32]:
        """Return the scores of one query with all documents."""
        import numpy as np

        place = self.queries.index(query)
        start = place - place % self.rows_each
        shard = np.load(self._path(start) / "scores.npy", mmap_mode="r", allow_pickle=False)
        out: NDArray[np.float32] = np.array(shard[place - start])
        return out
