"""Strict, streaming reading of text files from outside: plain, gzip or Zstandard, UTF-8, one record a line.

Invariant: whatever a file holds, what leaves here is a CerankError with file:line or a list of clean lines; at most
one block and one line of a file is in memory at a time, and a packed file gives at most `LARGEST_RATIO` times its size.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

import msgspec

from cerank.errors import FormatError, UsageError, os_error
from cerank.files.safe_open import open_file
from cerank.text.safe_text import shown

S = TypeVar("S", bound=msgspec.Struct)
Opener = Callable[[Path], "ByteStream"]  # opens what a path names, unpacked; see importing/archives.py

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 26  # 64 MiB: far beyond any document, and a bound on what a file without line ends can take
_GZIP = b"\x1f\x8b"
_ZST = b"\x28\xb5\x2f\xfd"
_ZST_PIECE = 1 << 10  # compressed bytes unpacked at once; four of them may unpack to 128 KiB
LARGEST_RATIO = 200  # real text packs 3 to 60 times; deflate reaches 1,032 and Zstandard 32,000
UNCHECKED_BYTES = 64 << 20  # bytes that a packed file may always unpack to
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # UTF-8, UTF-16 LE and BE
# What str.split() splits at and C's isspace() does not: an id with one of these is two ids to half of the tools.
_WIDE_SPACE = re.compile("[\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_SEPARATORS = (b"\x1c", b"\x1d", b"\x1e", b"\x1f")
_SPACE_OR_NUL = re.compile(r"[\s\x1c-\x1f\x00]")


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


class ByteStream(Protocol):
    """Bytes that are read in order."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, about `size` of them; none at the end."""

    def close(self) -> None:
        """Close the file behind it."""


class HashingReader:
    """A file whose bytes are hashed while they are read, which saves a second reading."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """Return At most `size` bytes; all that are left where it is negative."""
        data = self._file.read(size)
        self.digest.update(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _GzipStream(gzip.GzipFile):
    """The content of a gzip file, which closes that file with itself."""

    def __init__(self, file: ByteStream) -> None:
        super().__init__(fileobj=cast("IO[bytes]", file), mode="rb")
        self._packed = file

    def close(self) -> None:
        super().close()
        self._packed.close()


class _ZstandardError(EOFError):
    """Zstandard that cannot be unpacked."""


class _ZstandardStream:
    """The content of a Zstandard file; zstandard's own reader takes one that was cut short for a whole one."""

    def __init__(self, file: ByteStream) -> None:
        import zstandard

        self._zstandard: Any = zstandard
        self._file, self._frame = file, None
        self._rest, self._ready, self._is_open = b"", memoryview(b""), False

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, or what is left of the content."""
        pieces, count = [], 0
        while count < size and (piece := self._ready or self._next()):
            pieces.append(piece[: size - count])
            self._ready = piece[size - count :]
            count += len(pieces[-1])
        return b"".join(pieces)

    def _next(self) -> memoryview:
        """Return what the next packed bytes hold; nothing at the end."""
        while data := self._rest or self._file.read(_ZST_PIECE):
            if out := self._unpack(data):
                return memoryview(out)
        if self._is_open:
            raise _ZstandardError("cut short")
        return memoryview(b"")

    def _unpack(self, data: bytes) -> bytes:
        if not self._is_open:
            self._frame, self._is_open = self._zstandard.ZstdDecompressor().decompressobj(), True
        frame: Any = self._frame
        try:
            out: bytes = frame.decompress(data)
        except self._zstandard.ZstdError as error:
            raise _ZstandardError(str(error)) from error
        self._rest, self._is_open = frame.unused_data, not frame.eof
        return out

    def close(self) -> None:
        self._file.close()


class _BoundedStream:
    """Bytes of `source`, at most as many as a harmless packed file of that size holds."""

    def __init__(self, path: Path, source: ByteStream) -> None:
        self._path, self._source = path, source
        self._left = max(UNCHECKED_BYTES, LARGEST_RATIO * path.stat().st_size)

    def read(self, size: int, /) -> bytes:
        """As the source's."""
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise decompression_bomb(self._path)
        return data

    def close(self) -> None:
        self._source.close()


def decompression_bomb(path: Path) -> FormatError:
    """Return the error for a packed file that unpacks to far more than its size."""
    what = f"unpacks to more than {LARGEST_RATIO} times its size, which is not a normal file"
    return FormatError(
        what, where=str(path), hint="if you trust the file, unpack it yourself and give the unpacked one"
    )


def decompress(path: Path, file: ByteStream, start: bytes) -> ByteStream:
    """Return the content of `file`, whose first bytes are `start`, unpacked if they say so.

    Raises:
        FormatError: its name says otherwise; or later, while it is read, beyond the first `UNCHECKED_BYTES` it unpacks
            to more than `LARGEST_RATIO` times its size.
    """
    is_gzip, is_zst = start.startswith(_GZIP), start.startswith(_ZST)
    if path.suffix == ".gz" and not is_gzip:
        raise FormatError("the name ends in .gz but the content is not gzip", where=str(path))
    if path.suffix == ".zst" and not is_zst:
        raise FormatError("the name ends in .zst but the content is not Zstandard", where=str(path))
    if is_gzip:
        return _BoundedStream(path, _GzipStream(file))
    return _BoundedStream(path, _ZstandardStream(file)) if is_zst else file


def open_stream(path: Path) -> ByteStream:
    """Open a file for reading, unpacked if it is gzip or Zstandard; the caller closes it.

    Raises:
        FormatError: the file's ending does not match its first bytes.
        OSError: the file cannot be opened; `translate_read_errors` turns that into cerank's error.
    """
    with open_file(path) as file:
        start = file.read(4)
    return decompress(path, open_file(path), start)


def _check_utf8(path: Path, block: bytes, first: int) -> None:
    """Reject NUL and bytes that are not UTF-8, naming the line; `block` ends with a complete line."""
    nul = block.find(b"\0")
    if nul >= 0:
        raise FormatError("holds a NUL byte", where=at(path, first + block.count(b"\n", 0, nul)))
    if block.isascii():
        return
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first + block.count(b"\n", 0, error.start)
        raise FormatError(f"holds bytes that are not UTF-8 ({error.reason})", where=at(path, line)) from None


def _check_white_space(path: Path, block: bytes, first: int) -> None:
    """Reject white space at which only some tools split columns: they would read different ids."""
    if block.isascii() and not any(mark in block for mark in _SEPARATORS):
        return
    text = block.decode("utf-8")
    match = _WIDE_SPACE.search(text)
    if match:
        what = f"holds the white space U+{ord(match.group()):04X}, at which some tools split columns and some do not"
        raise FormatError(what, where=at(path, first + text.count("\n", 0, match.start())))


def blocks(path: Path, file: ByteStream, size: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, bytes of complete lines) in order; only a byte order mark is checked.

    Raises:
        FormatError: a byte order mark, or a line of more than 64 MiB.
    """
    first, rest = 1, b""
    while block := file.read(size):
        if first == 1 and not rest and block.startswith(_BYTE_ORDER_MARKS):
            raise FormatError("starts with a byte order mark", where=at(path, 1), hint="save it as UTF-8 without BOM")
        block = rest + block
        end = block.rfind(b"\n") + 1
        if not end and len(block) > _LONGEST_LINE:
            raise FormatError(f"has a line of more than {_LONGEST_LINE >> 20} MiB", where=at(path, first))
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
        FormatError: damaged gzip or Zstandard.
        MissingError, UsageError: the file is not there, or cannot be read.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        kind = "Zstandard" if isinstance(error, _ZstandardError) else "gzip"
        raise FormatError(f"is damaged {kind}: {error}", where=str(path)) from error
    except OSError as error:
        raise os_error(error, path) from error


def line_blocks(
    path: Path, *, columns: bool = False, opener: Opener | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield blocks of lines: (number of the first line, lines without line feeds), unpacked.

    The lines without line feeds), gzip or Zstandard unpacked.

    A carriage return at a line's end stays for the caller, whose splitting or stripping drops it. What is packed is
    known by its first bytes. With `columns`, the caller splits at ASCII's white space, and every other kind is refused.

    Raises:
        FormatError: bad gzip, byte order mark, NUL, not UTF-8, a line of more than 64 MiB, odd white space.
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
    return FormatError(f"{subject} appears twice" + (f" for query '{shown(query, 80)}'" if query else ""), where=where)


def checked_id(text: str, kind: str, where: str) -> str:
    """Return `text` if it can be an id in a TREC file: not empty, no white space, no NUL.

    Raises:
        FormatError: it cannot.
    """
    if not text:
        raise FormatError(f"empty {kind} id", where=where)
    if _SPACE_OR_NUL.search(text):
        raise FormatError(f"{kind} id '{shown(text, 80)}' holds white space, which no TREC file can carry", where=where)
    return text


def json_lines(path: Path, kind: type[S], opener: Opener | None = None) -> Iterator[tuple[int, S]]:
    """Yield (line number, record) of a JSONL file; blank lines are skipped, unknown keys ignored.

    Raises:
        FormatError: a line that is not JSON, or not a `kind`; and all that `line_blocks` raises.
    """
    decoder = msgspec.json.Decoder(kind)
    for first, lines in line_blocks(path, opener=opener):
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            try:
                yield number, decoder.decode(line)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise FormatError(f"not a valid record: {shown(error, 200)}", where=at(path, number)) from error


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
                raise FormatError(f"{len(parts)} tab-separated columns, not {expected}", where=at(path, number))
            yield number, parts
