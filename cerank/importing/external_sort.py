"""Collects rows of (table, query, document, value, rank) in any order and returns them query by query.

Invariant: at most `ROWS_IN_MEMORY` rows wait in memory; beyond that they lie in `BUCKETS` files by a hash of the query,
of which one at a time is read back. The output is a function of the rows and their order alone.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cerank.files import disk

if TYPE_CHECKING:
    import polars

ROWS_IN_MEMORY = 1_000_000  # rows; some 150 bytes each
BUCKETS = 128  # files open at once, under the 256 that some systems allow; 100M rows are 0.8M in each
COLUMNS = ("table", "query", "document", "value", "rank")
_Lists = tuple[list[int], list[str], list[str], list[float], list[int]]


class SpillBuffer:
    """Gathers rows; add all of them, then take `buckets` once.

    Args:
        folder: an existing folder for the buckets, made and removed in it.
        rows_in_memory: the largest number of rows that wait in memory.
    """

    def __init__(self, folder: Path, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        self._folder, self._rows_in_memory = folder, rows_in_memory
        self._waiting: _Lists = ([], [], [], [], [])
        self._frames: list[polars.DataFrame] = []
        self._rows = 0
        self._files: dict[int, disk.Handle] = {}

    def add(self, table: int, query_id: str, doc_id: str, value: float, rank: int = 0) -> None:
        """Add a row; ids hold no white space; rank 0 stands for no rank."""
        tables, queries, documents, values, ranks = self._waiting
        tables.append(table)
        queries.append(query_id)
        documents.append(doc_id)
        values.append(value)
        ranks.append(rank)
        self._rows += 1
        if self._rows >= self._rows_in_memory:
            self._flush()

    def extend(self, frame: polars.DataFrame) -> None:
        """Add rows in the columns `COLUMNS`, after all that came before."""
        import polars

        self._rows_to_frame()
        self._frames.append(frame.select(COLUMNS).cast(polars.Schema(self._schema())))
        self._rows += frame.height
        if self._rows >= self._rows_in_memory:
            self._flush()

    def buckets(self) -> Iterator[polars.DataFrame]:
        """Yield frames of `COLUMNS` with rows in the order they came; each query is in one frame only.

        Where all rows fitted in memory there is one frame. The files are gone after it.
        """
        import polars

        if not self._files:
            self._rows_to_frame()
            if self._frames:
                yield polars.concat(self._frames)
            self._frames.clear()
            return
        self._flush()
        for number in sorted(self._files):
            handle = self._files.pop(number)
            disk.close(handle)
            yield polars.read_csv(
                handle.path, has_header=False, separator="\t", quote_char=None, schema=polars.Schema(self._schema())
            )
            disk.remove(handle.path)

    def close(self) -> None:
        """Close the bucket files if `buckets` was not exhausted."""
        while self._files:
            disk.close(self._files.popitem()[1])

    @staticmethod
    def _schema() -> dict[str, polars.DataType]:
        import polars

        kinds = (polars.Int32(), polars.String(), polars.String(), polars.Float64(), polars.Int64())
        return dict(zip(COLUMNS, kinds, strict=True))

    def _rows_to_frame(self) -> None:
        """Turn the rows that came one by one into a frame."""
        import polars

        if self._waiting[0]:
            columns = dict(zip(COLUMNS, self._waiting, strict=True))
            self._frames.append(polars.DataFrame(columns, schema=self._schema()))
            self._waiting = ([], [], [], [], [])

    def _flush(self) -> None:
        import polars

        self._rows_to_frame()
        if not self._frames:
            return
        rows = polars.concat(self._frames)
        self._frames.clear()
        self._rows = 0
        names = rows["query"].unique()
        numbers = [
            zlib.crc32(name.encode()) % BUCKETS for name in names
        ]  # polars' own hash may change with its version
        bucket_numbers = rows["query"].replace_strict(names, polars.Series(numbers, dtype=polars.Int32))
        parts = rows.with_columns(bucket_numbers.alias("bucket")).partition_by(
            "bucket", include_key=False, as_dict=True
        )
        for (number,), part in parts.items():
            if number not in self._files:
                self._files[number] = disk.open_append(self._folder / f"bucket-{number:03}.tsv")
            text = io.BytesIO()
            part.write_csv(text, include_header=False, separator="\t", quote_style="never")
            disk.append(self._files[number], text.getvalue())
