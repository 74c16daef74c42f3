"""Parses blocks of tab-separated ids and scores into columns, millions of lines a second.

Invariant: a block is parsed fast only where that cannot differ from parsing it line by line; with any doubt it is None,
and the caller parses line by line, which finds errors and names their lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cerank.importing.dataset_writer import LARGEST

if TYPE_CHECKING:
    import polars

_NO_ID = r"[\s\x00-\x1f\x{80}-\x{a0}]|^$|[^\x00-\x{fff}]"  # more than an id may not hold: doubt is enough


def are_ids(column: polars.Series) -> bool:
    """Return whether all values are present, not empty and without white space."""
    return column.null_count() == 0 and not column.str.contains(_NO_ID).any()


def columns_of(lines: Sequence[bytes], scores: Sequence[str], ids: Sequence[str]) -> polars.DataFrame | None:
    """Return the columns `scores` (float64) and then `ids` of the lines; None if a line needs the strict parser.

    None where a line needs a closer look.
    """
    import polars

    block = b"\n".join(lines)
    if not block or b"_" in block or b"\r" in block:
        return None
    kinds = {name: polars.Float64() for name in scores} | {name: polars.String() for name in ids}
    try:
        frame = polars.read_csv(block, has_header=False, separator="\t", quote_char=None, schema=polars.Schema(kinds))
    except polars.exceptions.PolarsError:
        return None
    if frame.height != len(lines) or not all(are_ids(frame[name]) for name in ids):
        return None
    # NaN compares false, and a null makes the count differ
    if any(int((frame[name].abs() <= LARGEST).sum()) != frame.height for name in scores):
        return None
    return frame
