"""Reads records of one kind from JSON lines, a JSON array, parquet, or a folder that `datasets` saved.

Invariant: whatever the container, the same records give the same structs in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cerank.errors import FormatError
from cerank.files import json_records, tables
from cerank.files.line_reader import at, json_lines, keys_hint
from cerank.text.safe_text import shown

S = TypeVar("S", bound=msgspec.Struct)


def read_records(path: Path, kind: type[S]) -> Iterator[tuple[str, S]]:
    """Yield (file:line, record) of each record in a file, or in the Arrow files of a `datasets` folder.

    Unknown keys and columns are ignored.

    Raises:
        FormatError: a record that is not a `kind`; the hint names the keys or columns that are there.
        MissingError, UsageError: the file is not there, or cannot be read.
    """
    if path.is_dir():
        shards = arrow_files(path)
        if not shards:
            hint = "a folder that `datasets` saved holds *.arrow files"
            raise FormatError("the folder holds no Arrow files", where=str(path), hint=hint)
        for shard in shards:
            yield from _converted(shard, kind, tables.arrow_rows(shard))
    elif tables.is_parquet(path):
        names = tables.column_names(path)
        columns = [field.encode_name for field in msgspec.structs.fields(kind) if field.encode_name in names]
        missing = [f.encode_name for f in msgspec.structs.fields(kind) if f.required and f.encode_name not in names]
        if missing or not columns:
            hint = "its columns: " + shown(", ".join(names), 300)
            raise FormatError(
                f"the file has no column {' or '.join(missing)}".rstrip(" or"), where=str(path), hint=hint
            )
        rows = tables.rows(path, columns, has_texts=True)
        yield from _converted(path, kind, ((number, dict(zip(columns, row, strict=True))) for number, row in rows))
    else:
        for number, record in json_lines(path, kind):
            yield at(path, number), record


def arrow_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a folder that `datasets` saved, in their order."""
    return sorted(path for path in folder.rglob("*.arrow") if not path.name.startswith("cache-"))


def _converted(path: Path, kind: type[S], rows: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[str, S]]:
    for number, row in rows:
        values = {key: value for key, value in row.items() if value is not None}
        try:
            yield at(path, number), json_records.convert(values, kind)
        except msgspec.ValidationError as error:
            what = f"not a valid record: {shown(error, 200)}"
            raise FormatError(what, where=at(path, number), hint=keys_hint(dict(row))) from error
