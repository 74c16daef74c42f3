"""Strict, streaming reading of text files from outside: plain or packed, UTF-8, one record a line.

Invariant: whatever a file holds, what leaves here is a CerankError with file:line or a list of clean lines; at most
one block and one line of a file is in memory at a time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, get_origin

import msgspec

from cerank.errors import FormatError, UsageError, os_error
from cerank.files import json_records
from cerank.files.packed_files import ByteStream, open_stream
from cerank.text.safe_text import shown

S = TypeVar("S")
Opener = Callable[[Path], ByteStream]  # opens what a path names, unpacked

_BLOCK = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes of comments at the beginning of a file that are kept together
_LONGEST_LINE = 1 << 26  # 64 MiB: far beyond any document, and a bound on what a file without line ends can take
_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
# What str.split() splits at and C's isspace() does not: an id with one of these is two ids to half of the tools.
_WIDE_SPACE = re.compile("[\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]")
_SEPARATORS = (b"\x1c", b"\x1d", b"\x1e", b"\x1f")
_SPACE_OR_NUL = re.compile("[\\s\x1c-\x1f\x00\ufeff]")


def at(path: Path, line: int) -> str:
    """Return `file:line`, the form in which errors name a place in a file."""
    return f"{path}:{line}"


def local_path(name: str) -> Path:
    """Return the path that the user wrote, with `~` expanded; it need not exist.

    Raises:
        UsageError: the text is no valid path: NUL, too long, an unknown user, a folder without permission.
    """
    try:
        path = Path(name).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # not exists(), which hides a NUL
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"'{shown(name, 120)}' cannot be a path: {shown(error, 120)}") from error
    return path


def _check_utf8(path: Path, block: bytes, first: int) -> None:
    """Reject NUL and bytes that are not UTF-8, naming the line; `block` ends with a complete line."""
    nul = block.find(b"\0")
    if nul >= 0:
        raise FormatError("the file holds a NUL byte", where=at(path, first + block.count(b"\n", 0, nul)))
    if block.isascii():
        return
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first + block.count(b"\n", 0, error.start)
        raise FormatError(
            f"the file holds bytes that are not UTF-8 ({error.reason})", where=at(path, line), code="not-utf8"
        ) from None


def _check_white_space(path: Path, block: bytes, first: int) -> None:
    """Reject white space at which only some tools split columns: they would read different ids."""
    if block.isascii() and not any(mark in block for mark in _SEPARATORS):
        return
    text = block.decode("utf-8")
    match = _WIDE_SPACE.search(text)
    if match:
        what = f"the file holds the white space U+{ord(match.group()):04X}, at which only some tools split columns"
        raise FormatError(what, where=at(path, first + text.count("\n", 0, match.start())), code="unusual-white-space")


def blocks(path: Path, file: ByteStream, size: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, bytes of complete lines) in order, without the byte order mark of UTF-8.

    Raises:
        FormatError: UTF-16, or a line of more than 64 MiB.
    """
    first, rest, is_start = 1, b"", True
    while block := file.read(size):
        if is_start and block.startswith(_UTF16_MARKS):
            raise FormatError(
                "the file is UTF-16 text (byte order mark)",
                where=at(path, 1),
                hint="save it as UTF-8",
                code="utf16-text",
            )
        block = block.removeprefix(_UTF8_MARK) if is_start else rest + block
        is_start = False
        end = block.rfind(b"\n") + 1
        if not end and len(block) > _LONGEST_LINE:
            raise FormatError(
                f"the file has a line of more than {_LONGEST_LINE >> 20} MiB",
                where=at(path, first),
                code="line-too-long",
            )
        is_header = first == 1 and block.rpartition(b"\n")[0].rpartition(b"\n")[2].startswith(b"#")
        if is_header and len(block) < _LONGEST_HEADER:  # packed files come in small parts, comments in one block
            rest = block
            continue
        complete, rest = block[:end], block[end:]
        if complete:
            yield first, complete
            first += complete.count(b"\n")
    if rest:
        yield first, rest


def check_columns(path: Path, block: bytes, first: int) -> None:
    """Check that every tool reads the same columns and characters in `block`, which starts with line `first`.

    Raises:
        FormatError: NUL, not UTF-8, odd white space; `where` names the line.
    """
    _check_utf8(path, block, first)
    _check_white_space(path, block, first)


@contextlib.contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Turn errors that appear while a file is read into cerank's errors.

    Raises:
        MissingError, UsageError: the file is not there, or cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise os_error(error, path) from error


def line_blocks(
    path: Path, *, columns: bool = False, opener: Opener | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield blocks of lines of a file, unpacked: (number of the first line, lines without line feeds).

    A carriage return at a line's end stays for the caller, whose splitting or stripping drops it. What is packed is
    known by its first bytes. With `columns`, the caller splits at ASCII's white space, and every other kind is refused.

    Raises:
        FormatError: a damaged archive, NUL, not UTF-8, a line of more than 64 MiB, odd white space.
        MissingError, UsageError: the file is not there, or cannot be read.
    """
    with translate_read_errors(path), contextlib.closing((opener or open_stream)(path)) as file:
        for first, block in blocks(path, file):
            _check_utf8(path, block, first)
            if columns:
                _check_white_space(path, block, first)
            lines = block.split(b"\n")
            if not lines[-1]:
                lines.pop()
            yield first, lines


def duplicate_error(kind: str, name: str, where: str, *, query: str = "") -> FormatError:
    """Return the error for an id that appears twice in a file, or twice for one query.

    Args:
        kind: what the id names, such as "document".
        name: the id; "" if it is not known.
        where: the file, if possible with the line of the second appearance.
        query: the id of the query whose list has the document twice; "" for a file of documents or queries.
    """
    subject = f"{kind} '{shown(name, 80)}'" if name else f"a {kind}"
    return FormatError(
        f"{subject} appears twice" + (f" for query '{shown(query, 80)}'" if query else ""),
        where=where,
        code="id-twice",
    )


def checked_id(text: str, kind: str, where: str) -> str:
    """Return `text` if it can be an id in a TREC file: not empty, no white space, no NUL.

    Raises:
        FormatError: it cannot.
    """
    if not text:
        raise FormatError(f"empty {kind} id", where=where, code="id-empty")
    if _SPACE_OR_NUL.search(text):
        raise FormatError(
            f"{kind} id '{shown(text, 80)}' holds white space, which no TREC file can carry",
            where=where,
            code="id-with-white-space",
        )
    return text


def json_lines(path: Path, kind: type[S], opener: Opener | None = None) -> Iterator[tuple[int, S]]:
    """Yield (line number, record) of a JSONL file; blank lines are skipped, unknown keys ignored.

    A file that is one JSON array gives its elements, numbered from 1.

    Raises:
        FormatError: a line that is not JSON, or not a `kind`; the hint names the keys that are there; and all that
            `line_blocks` raises.
    """
    decoder, is_start = json_records.decoder_of(kind), True
    for first, lines in line_blocks(path, opener=opener):
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            if is_start and line.lstrip().startswith(b"[") and not _is_array_like(kind):
                yield from _json_array(path, kind, opener)
                return
            is_start = False
            try:
                yield number, decoder.decode(line)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                what = f"not a valid record: {shown(error, 200)}"
                raise FormatError(what, where=at(path, number), hint=_json_hint(line), code="invalid-record") from error


def _is_array_like(kind: type) -> bool:
    if get_origin(kind) is list:
        return True
    config = getattr(kind, "__struct_config__", None)
    return config is not None and bool(config.array_like)


def _json_array(path: Path, kind: type[S], opener: Opener | None) -> Iterator[tuple[int, S]]:
    if opener is not None:
        raise FormatError(
            "the file is one JSON array", where=str(path), hint="so large a file needs one JSON object a line"
        )
    parts = [block for _, lines in line_blocks(path) for block in lines]
    try:
        items = json_records.decode(b"\n".join(parts), list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = "write one JSON object a line, or one array of objects"
        raise FormatError(f"the file is not valid JSON: {shown(error, 200)}", where=str(path), hint=hint) from error
    decoder = json_records.decoder_of(kind)
    for number, item in enumerate(items, 1):
        try:
            yield number, decoder.decode(item)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            what = f"element {number} is not a valid record: {shown(error, 200)}"
            raise FormatError(what, where=str(path), hint=_json_hint(bytes(item))) from error


def _json_hint(line: bytes) -> str:
    """Return what a line that cannot be read as a record holds instead."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "one JSON object stands on one line, whole" if line.strip() in {b"{", b"["} else ""
    return keys_hint(value)


def keys_hint(value: object) -> str:
    """Return the keys of a JSON object, for an error that misses one."""
    return "its keys: " + shown(", ".join(map(str, value)), 300) if isinstance(value, dict) and value else ""


def tab_lines(path: Path, columns: tuple[int, ...], opener: Opener | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, columns) of a tab-separated file; blank lines are skipped.

    Raises:
        FormatError: a line whose number of columns is not in `columns`; and all that `line_blocks` raises.
    """
    for first, lines in line_blocks(path, opener=opener):
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            parts = line.decode("utf-8").removesuffix("\r").split("\t")
            if len(parts) not in columns:
                expected = " or ".join(map(str, columns))
                raise FormatError(
                    f"{len(parts)} tab-separated columns, not {expected}", where=at(path, number), code="column-count"
                )
            yield number, parts
