"""Opens files as publishers pack them (plain, gzip, zip, tar, also .tar.gz), each as one stream of bytes.

Invariant: nothing is unpacked to disk, no name inside an archive is used as a path, no pickle is opened, and beyond the
first `line_reader.UNCHECKED_BYTES` a packed file gives at most `line_reader.LARGEST_RATIO` times its size.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from cerank.errors import FormatError, MissingError, UsageError
from cerank.files import line_reader
from cerank.files.safe_open import open_file
from cerank.text.safe_text import counted, shown

_GZIP, _TAR = b"\x1f\x8b", b"ustar"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one's
_PICKLE = tuple(bytes((0x80, protocol)) for protocol in range(6))
_ARCHIVE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)
_PICKLE_HINT = (
    "if you trust its source, turn it into a TREC run where you can watch it, then `cerank data import run`: "
    "python -c \"import gzip,pickle,sys; [print(q,'Q0',d,0,s,'ce') for q,row in "
    'pickle.load(gzip.open(sys.argv[1])).items() for d,s in row.items()]" scores.pkl.gz > scores.run'
)


class _BoundedStream(io.RawIOBase):
    """Bytes of `source`; archive errors become cerank's errors, and reading stops at `limit` bytes."""

    def __init__(self, path: Path, source: IO[bytes], limit: int, at_end: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._path, self._source, self._left, self._at_end = path, source, limit, at_end
        self._is_over, self._rest = False, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io calls it with a memoryview only
        data = self._rest or self._taken(len(buffer))
        count = min(len(data), len(buffer))  # Zstandard's content comes in pieces that may be larger
        buffer[:count] = data[:count]
        self._rest = data[count:]
        return count

    def _taken(self, size: int) -> bytes:
        if self._is_over:
            return b""
        try:
            data = self._source.read(size)
            self._is_over = not data and size > 0
            if self._is_over and self._at_end is not None:
                self._at_end()  # moves a tar on, after which its member cannot be asked again
        except _ARCHIVE_ERRORS as error:
            raise FormatError(f"is a damaged archive: {shown(error, 200)}", where=str(self._path)) from error
        except RuntimeError as error:  # zipfile's way of asking for a password
            raise FormatError(f"cannot be unpacked: {shown(error, 200)}", where=str(self._path)) from error
        self._left -= len(data)
        if self._left < 0:
            raise line_reader.decompression_bomb(self._path)
        return data

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _buffered(path: Path, source: IO[bytes], limit: int, at_end: Callable[[], None] | None = None) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(_BoundedStream(path, source, limit, at_end), 1 << 16))


def _zip_member(path: Path) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(path)
        names = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_macos_metadata(entry.filename)]
        if len(names) != 1:
            archive.close()
            raise FormatError(
                f"holds {counted(len(names), 'file')}, not one", where=str(path), hint="unpack it, and name the file"
            )
        return archive.open(names[0])
    except (*_ARCHIVE_ERRORS, ValueError, OverflowError) as error:
        raise FormatError(f"is a damaged zip: {shown(error, 200)}", where=str(path)) from error
    except RuntimeError as error:
        raise FormatError(f"cannot be unpacked: {shown(error, 200)}", where=str(path)) from error


def _is_macos_metadata(name: str) -> bool:
    """Return whether a member is metadata that macOS adds."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def _tar_member(path: Path, stream: IO[bytes]) -> tuple[IO[bytes], Callable[[], None]]:
    """Return the only regular file of a tar, and a function that checks at its end that there is no other."""
    try:
        archive = tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115 - it lives as long as the stream that is returned
        entry = _next_file(archive)
        source = archive.extractfile(entry) if entry is not None else None
    except (*_ARCHIVE_ERRORS, ValueError, OverflowError) as error:
        raise FormatError(f"is a damaged tar: {shown(error, 200)}", where=str(path)) from error
    if source is None:
        raise FormatError("holds no file", where=str(path))

    def is_only() -> None:
        if _next_file(archive) is not None:
            raise FormatError("holds more files than one", where=str(path), hint="unpack it, and name the file")

    return source, is_only


def _next_file(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next regular file; iterating would start from the first one again."""
    return next(
        (entry for entry in iter(archive.next, None) if entry.isreg() and not _is_macos_metadata(entry.name)), None
    )


def open_archive(path: Path) -> IO[bytes]:
    """Open a downloaded file, unpacked; its first bytes decide the format.

    Raises:
        FormatError: a damaged, encrypted or exploding archive, one of several files, or a pickle.
        OSError: the file cannot be opened.
    """
    limit = max(line_reader.UNCHECKED_BYTES, line_reader.LARGEST_RATIO * path.stat().st_size)
    with open_file(path) as file:
        first = file.read(4)
    if first.startswith(_ZIP):
        stream = _buffered(path, _zip_member(path), limit)
    elif first.startswith(_GZIP):
        stream = _buffered(path, cast("IO[bytes]", gzip.GzipFile(path)), limit)
    elif first == _ZSTANDARD:
        stream = _buffered(path, cast("IO[bytes]", line_reader.open_stream(path)), limit)
    elif path.suffix == ".gz":
        raise FormatError("the name ends in .gz but the content is not gzip", where=str(path))
    else:
        stream = open_file(path)
    head = cast("io.BufferedReader", stream).peek(512)[:512]
    if head[257:262] == _TAR:
        source, is_only = _tar_member(path, stream)
        stream = _buffered(path, source, limit, is_only)
        head = cast("io.BufferedReader", stream).peek(2)[:2]
    if head.startswith(_PICKLE):
        stream.close()
        raise FormatError(
            "is a Python pickle, which can run any program when it is read; cerank opens none",
            where=str(path),
            hint=_PICKLE_HINT,
        )
    return stream


def checked_file(path: Path) -> Path:
    """Return `path` if it is a file.

    Raises:
        MissingError, UsageError: it is not there, or is something else.
    """
    if path.is_file():
        return path
    if path.exists():
        raise UsageError("is not a file", where=str(path))
    raise MissingError("no such file", where=str(path), hint="`cerank data formats` says where each file comes from")
