"""Go on after the first malformed row of a dataset folder: the first few are named, and all of them are counted.

Invariant: rows are read by the readers that open the dataset, a piece of a file at a time, so that a row is broken here
if and only if it is there. Looked at are documents and queries in TSV and JSON lines, and qrels of four columns; the
rows of other layouts are not told apart.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cerank.datasets.local_folders import files_with_rows
from cerank.datasets.text_files import document_rows, ending_of, query_rows
from cerank.errors import FormatError
from cerank.files.line_reader import Opener, at, blocks, checked_id, duplicate_error, translate_read_errors
from cerank.files.packed_files import open_stream
from cerank.text.safe_text import counted, shown
from cerank.trec.layouts import layout_of
from cerank.trec.text_io import qrels_rows

_PIECE = 1 << 16  # bytes that are read together
_MOST_NAMED = 10
_Row = tuple[int, str, bool]  # line, id that may come once ("" for any number of times), whether a text is missing
_Reader = Callable[[Path, Opener, bool], Iterator[_Row]]  # whether rows of the file came before


class BrokenRows(NamedTuple):
    """The malformed rows of a dataset's files."""

    named: list[str]  # of the first ones: file, line and what is wrong
    total: int
    files: int  # that have some

    def error(self) -> FormatError:
        """Return the error that names them."""
        more = self.total - len(self.named)
        rest = [f"and {more:,} more"] if more else []
        what = f"{counted(self.total, 'row')} in {counted(self.files, 'file')} cannot be read:"
        return FormatError("\n".join([what, *self.named, *rest]), code="rows-broken")


def broken_rows(folder: Path, split: str = "") -> BrokenRows:
    """Return the malformed rows of a dataset folder's own files; those of runs are not looked at.

    Args:
        folder: the dataset's folder.
        split: of its qrels; "" takes those that the dataset takes.
    """
    named: list[str] = []
    count = files = 0
    for kind, path in files_with_rows(folder, split):
        scan = _Scan(path, kind)
        in_file = 0
        with contextlib.suppress(FormatError):  # of the file as a whole, such as a damaged archive: told by opening it
            for error in scan.errors():
                in_file += 1
                if len(named) < _MOST_NAMED:
                    named.append(f"{error.where}: {error.what}")
        count, files = count + in_file, files + bool(in_file)
    return BrokenRows(named, count, files)


def _documents(path: Path, opener: Opener, _is_rest: bool) -> Iterator[_Row]:
    return ((number, doc_id, False) for number, doc_id, _ in document_rows(path, opener))


def _queries(path: Path, opener: Opener, _is_rest: bool) -> Iterator[_Row]:
    return ((number, query_id, not text.strip()) for number, query_id, text in query_rows(path, opener=opener))


def _judgments(path: Path, opener: Opener, is_rest: bool) -> Iterator[_Row]:
    return ((number, "", False) for number, *_ in qrels_rows(path, opener, is_rest=is_rest))


_READERS: dict[str, _Reader] = {"document": _documents, "query": _queries, "judgment": _judgments}


class _Scan:
    """Looks for the malformed rows of one file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind, self._read = path, kind, _READERS[kind]
        self._seen: set[str] = set()
        self._has_rows = False  # whether a row of the file was read

    def errors(self) -> Iterator[FormatError]:
        """Yield an error for each malformed row, in order; nothing for a layout whose rows do not stand alone."""
        if self._kind == "judgment":
            if layout_of(self._path, "qrels").kind != "trec":
                return
        elif ending_of(self._path) not in {".tsv", ".jsonl"}:
            return
        with translate_read_errors(self._path), contextlib.closing(open_stream(self._path)) as file:
            for first, block in blocks(self._path, file, _PIECE):
                yield from self._errors_in(block.split(b"\n"), first)

    def _errors_in(self, lines: Sequence[bytes], first: int) -> Iterator[FormatError]:
        """Yield the errors of some lines, of which `first` is the number of the first.

        Behind an error only about as many lines are read together as were read before it, and more again while all is
        well: a reader looks at all lines that it is given, so that the time would else grow with their square.
        """
        start, together = 0, len(lines)
        while start < len(lines):
            part = lines[start : start + together]
            error, ids, rows = self._first_error(part, first + start)
            if error is None:
                self._take(ids, rows)
                start, together = start + together, 2 * together
                continue
            place = int(error.where.rpartition(":")[2]) - first - start
            if rows == place:  # each line before it is a row
                self._take(ids, rows)
            else:  # a check of all lines together may have found a later row before an earlier one was read
                yield from self._errors_in(part[:place], first + start)
            yield error
            start, together = start + place + 1, 2 * (place + 1)

    def _take(self, ids: set[str], rows: int) -> None:
        self._seen.update(ids)
        self._has_rows = self._has_rows or rows > 0

    def _first_error(self, lines: Sequence[bytes], first: int) -> tuple[FormatError | None, set[str], int]:
        """Return an error with the line of the whole file, None without one; the ids and the number of rows read."""
        ids: set[str] = set()
        rows = 0
        text = b"\n".join(lines)
        try:
            for number, row_id, has_no_text in self._read(self._path, lambda _: io.BytesIO(text), self._has_rows):
                where = at(self._path, number)
                if row_id and (checked_id(row_id, self._kind, where) in self._seen or row_id in ids):
                    raise duplicate_error(self._kind, row_id, where)
                if has_no_text:
                    raise FormatError(f"{self._kind} '{shown(row_id, 80)}' has no text", where=where)
                if row_id:
                    ids.add(row_id)
                rows += 1
        except FormatError as error:
            path, _, number_text = error.where.rpartition(":")
            if path != str(self._path) or not number_text.isdigit():
                raise
            where = at(self._path, int(number_text) + first - 1)
            return FormatError(error.what, where=where, hint=error.hint, code=error.code), ids, rows
        return None, ids, rows
