"""Open files as publishers pack them: gzip, Zstandard, bzip2, xz, lz4, zip and tar, each as one stream of bytes.

Invariant: the first bytes decide, not the name; nothing is unpacked to disk, no name inside an archive is used as a
path, and no pickle is opened. Beyond the first `UNCHECKED_BYTES` a packed file gives at most `LARGEST_RATIO` times its
size.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol, cast

from cerank.errors import FormatError
from cerank.files.safe_open import open_file
from cerank.text.safe_text import counted, shown

LARGEST_RATIO = 200  # real text packs 3 to 60 times; deflate reaches 1,032 and Zstandard 32,000
UNCHECKED_BYTES = 64 << 20  # bytes that a packed file may always unpack to
_LARGEST_DICTIONARY = 1 << 28  # bytes of memory that unpacking xz may take; `xz -9` needs 65 MiB
_HEAD = 512  # bytes that tell what a file is
_PIECE = 1 << 14  # compressed bytes that are unpacked at once
_ZST_PIECE = 1 << 8  # likewise of Zstandard; four of them may unpack to 128 KiB
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one's
_TAR = b"ustar"
_PICKLE = tuple(bytes((0x80, protocol)) for protocol in range(6))
_PICKLE_HINT = (
    "if you trust its source, turn it into a TREC run where you can watch it, then `cerank data import run`: "
    "python -c \"import gzip,pickle,sys; [print(q,'Q0',d,0,s,'ce') for q,row in "
    'pickle.load(gzip.open(sys.argv[1])).items() for d,s in row.items()]" scores.pkl.gz > scores.run'
)
_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
_PACKED = {  # first bytes -> (name, ending)
    b"\x1f\x8b": ("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", ".zst"),
    b"BZh": ("bzip2", ".bz2"),
    b"\xfd7zXZ\x00": ("xz", ".xz"),
    b"\x04\x22\x4d\x18": ("lz4", ".lz4"),
}
PACKED_ENDINGS = {ending for _, ending in _PACKED.values()} | {".zip"}
_NOT_TEXT = {  # first bytes of a file that no reader of lines can use -> (what it is, what to do)
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it, and name the file inside"),
    b"Rar!": ("a RAR archive", "unpack it, and name the file inside"),
    b"ARROW1": ("an Arrow file", "write it as parquet or JSON lines"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "write it as parquet or JSON lines"),
    b"SQLite format 3": ("an SQLite database", "export its table as CSV or JSON lines"),
    b"\x89HDF": ("an HDF5 file", "write it as parquet or JSON lines"),
    b"\x93NUMPY": ("a numpy array", "write it as a TREC run"),
    b"%PDF": ("a PDF", ""),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "run `git lfs pull` where it was cloned"),
    b"PAR1": ("a parquet file, which cannot be used here", "write it as JSON lines or as tab-separated text"),
}


class ByteStream(Protocol):
    """Bytes that are read in order."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size` of them; none at the end."""

    def close(self) -> None:
        """Close the file behind it."""


class _HashingReader:
    """A file whose bytes are hashed while they are read, which saves a second reading."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data

    def close(self) -> None:
        self._file.close()


class _FrameStream:
    """The content of a file of compressed frames, one after the other; one that is cut short is an error."""

    def __init__(self, file: ByteStream, new_decompressor: Callable[[], Any]) -> None:
        self._file, self._new = file, new_decompressor
        self._frame: Any = None
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._frame is None:
                data = self._rest or self._file.read(_PIECE)
                if not data:
                    return b""
                self._frame = self._new()
            else:
                data = self._file.read(_PIECE) if self._frame.needs_input else b""
                if not data and self._frame.needs_input:
                    raise EOFError("cut short")
            content: bytes = self._frame.decompress(data, max_length=size)
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
            if content:
                return content

    def close(self) -> None:
        self._file.close()


class _ZstandardFrame:
    """One frame in the way in which bz2 and lzma unpack theirs; what a piece unpacks to is handed on in parts."""

    def __init__(self) -> None:
        import zstandard

        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._error = zstandard.ZstdError
        self._unread = memoryview(b"")

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            try:
                self._unread = memoryview(self._frame.decompress(data))
            except self._error as error:
                raise EOFError(str(error)) from error
        content = bytes(self._unread[:max_length] if max_length >= 0 else self._unread)
        self._unread = self._unread[len(content) :]
        return content

    @property
    def needs_input(self) -> bool:
        return not self._unread

    @property
    def eof(self) -> bool:
        return self._frame.eof and not self._unread

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data


class _Content:
    """Bytes of `source` after a head that was read already; errors of packing become cerank's, and there is a limit."""

    def __init__(
        self, path: Path, source: ByteStream, kind: str = "", at_end: Callable[[], None] | None = None
    ) -> None:
        self._path, self._source, self._kind, self._at_end = path, source, kind, at_end
        self._left = max(UNCHECKED_BYTES, LARGEST_RATIO * path.stat().st_size) if kind else 0
        self._head, self._is_over = b"", False

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)

    def peek(self, size: int) -> bytes:
        """Return the first bytes, which `read` gives again."""
        while len(self._head) < size and (data := self._read(size - len(self._head))):
            self._head += data
        return self._head[:size]

    def _read(self, size: int) -> bytes:
        if self._is_over or not self._kind:
            return b"" if self._is_over else self._source.read(size)
        try:
            data = self._source.read(size)
            self._is_over = not data and size > 0
            if self._is_over and self._at_end is not None:
                self._at_end()  # moves a tar on, after which its member cannot be asked again
        except (*_ERRORS, NotImplementedError) as error:
            raise FormatError(
                f"the file is damaged {self._kind}: {shown(error, 200)}", where=str(self._path), code="archive-damaged"
            ) from error
        except RuntimeError as error:  # zipfile asks for a password so, and lz4 finds all damage so
            raise FormatError(f"the file cannot be unpacked: {shown(error, 200)}", where=str(self._path)) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise FormatError(
                f"the file is damaged {self._kind}: {shown(error, 200)}", where=str(self._path)
            ) from error
        self._left -= len(data)
        if self._left < 0:
            raise decompression_bomb(self._path)
        return data

    def close(self) -> None:
        self._source.close()


class _Unclosed:
    """A stream that its reader may close and whose owner still needs it."""

    def __init__(self, source: ByteStream) -> None:
        self.read = source.read

    def close(self) -> None:
        pass


class OpenedFile:
    """A file's content as `open_stream` gives it, the SHA-256 of the file itself, and how far it was read.

    Args:
        path: file to read, compressed or not.
        hashes: whether to compute the SHA-256 of the file while it is read.
    """

    def __init__(self, path: Path, *, hashes: bool = True) -> None:
        self._path, self._raw = path, open_file(path)
        self._hashing = _HashingReader(self._raw) if hashes else None
        start = self._raw.peek(_HEAD)[:_HEAD]
        self._is_zip = start.startswith(_ZIP)
        self._content = _open_content(path, self._hashing or self._raw, start)
        self.stream: ByteStream = _Unclosed(self._content)

    @property
    def position(self) -> int:
        """Return how many bytes of the file were read."""
        return self._raw.tell()

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, once all of its content was read."""
        if self._hashing is None or self._is_zip:  # a zip is not read from front to end
            with open_file(self._path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        while self._hashing.read(1 << 20):  # trailing bytes after the packed content belong to the hash
            continue
        return self._hashing.digest.hexdigest()

    def close(self) -> None:
        """Close the file; closing `stream` leaves it open, for the hash."""
        self._content.close()
        self._raw.close()


def decompression_bomb(path: Path) -> FormatError:
    """Return the error for a packed file that unpacks to far more than its size."""
    return FormatError(
        f"unpacks to more than {LARGEST_RATIO} times its size, which is not a normal file",
        where=str(path),
        hint="if you trust the file, unpack it yourself and give the unpacked one",
        code="unpacks-too-large",
    )


def open_stream(path: Path) -> ByteStream:
    """Open a file for reading, unpacked; the caller closes it.

    Raises:
        FormatError: an ending that the first bytes contradict; a damaged, encrypted or exploding archive, or one of
            several files; a pickle, and other files that are known not to be text.
        OSError: the file cannot be opened; `line_reader.translate_read_errors` turns that into cerank's error.
    """
    file = open_file(path)
    try:
        return _open_content(path, file, file.peek(_HEAD)[:_HEAD])
    except BaseException:
        file.close()
        raise


def first_bytes(path: Path) -> bytes:
    """Return the first 512 bytes of a file's content, unpacked; raises as `open_stream`, but parquet is no error."""
    with open_file(path) as file:
        start = file.peek(_HEAD)[:_HEAD]
        if start.startswith(b"PAR1"):
            return start
    with contextlib.closing(open_stream(path)) as stream:
        return cast("_Content", stream).peek(_HEAD)


def _open_content(path: Path, file: ByteStream, start: bytes) -> _Content:
    kind = next((name for magic, (name, _) in _PACKED.items() if start.startswith(magic)), "")
    for name, ending in (*_PACKED.values(), ("a zip", ".zip")):
        if path.suffix == ending and kind != name and not (ending == ".zip" and start.startswith(_ZIP)):
            raise FormatError(
                f"the name ends in {ending} but the content is not {name}",
                where=str(path),
                code="ending-does-not-match",
            )
    if start.startswith(_ZIP):
        content = _Content(path, _zip_member(path), "zip")
    elif kind:
        content = _Content(path, _unpacked(kind, file), kind)
    else:
        content = _Content(path, file)
    head = content.peek(_HEAD)
    if head[257:262] == _TAR:
        source, check_is_only = _tar_member(path, content)
        content = _Content(path, source, "tar", check_is_only)
        head = content.peek(_HEAD)
    if head.startswith(_PICKLE):
        what = "the file is a Python pickle, which can run any program when it is read; cerank opens none"
        raise FormatError(what, where=str(path), hint=_PICKLE_HINT, code="pickle-file")
    for magic, (name, hint) in _NOT_TEXT.items():
        if head.startswith(magic):
            raise FormatError(f"the file is {name}", where=str(path), hint=hint, code="wrong-file-kind")
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        hint = "a server may have answered with a page in place of the file"
        raise FormatError("the file is an HTML page", where=str(path), hint=hint, code="html-page")
    return content


def _unpacked(kind: str, file: ByteStream) -> ByteStream:
    if kind == "gzip":
        return _GzipStream(file)
    if kind == "bzip2":
        return _FrameStream(file, bz2.BZ2Decompressor)
    if kind == "xz":
        return _FrameStream(file, lambda: lzma.LZMADecompressor(memlimit=_LARGEST_DICTIONARY))
    if kind == "lz4":
        import lz4.frame  # ir_datasets brings it

        return _FrameStream(file, lz4.frame.LZ4FrameDecompressor)
    return _FrameStream(_SmallPieces(file), _ZstandardFrame)


class _SmallPieces:
    """Gives few bytes at a time: a piece of Zstandard unpacks as a whole."""

    def __init__(self, file: ByteStream) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, _ZST_PIECE))

    def close(self) -> None:
        self._file.close()


class _GzipStream(gzip.GzipFile):
    """The content of a gzip file, which closes that file with itself."""

    def __init__(self, file: ByteStream) -> None:
        super().__init__(fileobj=cast("IO[bytes]", file), mode="rb")
        self._packed = file

    def close(self) -> None:
        super().close()
        self._packed.close()


def _zip_member(path: Path) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(path)
        names = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_macos_metadata(entry.filename)]
        if len(names) != 1:
            archive.close()
            hint = "unpack it, and name the file"
            raise FormatError(
                f"the archive holds {counted(len(names), 'file')}, not one",
                where=str(path),
                hint=hint,
                code="archive-file-count",
            )
        return archive.open(names[0])
    except (*_ERRORS, NotImplementedError, ValueError, OverflowError) as error:
        raise FormatError(f"the file is a damaged zip: {shown(error, 200)}", where=str(path)) from error
    except RuntimeError as error:
        raise FormatError(
            f"the file cannot be unpacked: {shown(error, 200)}", where=str(path), code="archive-damaged"
        ) from error


def _is_macos_metadata(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def _tar_member(path: Path, stream: ByteStream) -> tuple[ByteStream, Callable[[], None]]:
    """Return the only regular file of a tar, and a function that checks at its end that there is no other."""
    try:
        archive = tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|")  # noqa: SIM115 - lives as long as the stream
        entry = _next_file(archive)
        source = archive.extractfile(entry) if entry is not None else None
    except (*_ERRORS, ValueError, OverflowError) as error:
        raise FormatError(f"the file is a damaged tar: {shown(error, 200)}", where=str(path)) from error
    if source is None:
        raise FormatError("the archive holds no file", where=str(path), code="archive-file-count")

    def check_is_only() -> None:
        if _next_file(archive) is not None:
            raise FormatError(
                "the archive holds more than one file",
                where=str(path),
                hint="unpack it, and name the file",
                code="archive-file-count",
            )

    return _TarStream(source, stream), check_is_only


class _TarStream:
    """The member of a tar, which closes the tar's file with itself."""

    def __init__(self, member: IO[bytes], tar: ByteStream) -> None:
        self._member, self._tar = member, tar

    def read(self, size: int, /) -> bytes:
        return self._member.read(size)

    def close(self) -> None:
        self._member.close()
        self._tar.close()


def _next_file(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next regular file; iterating would start from the first one again."""
    return next(
        (entry for entry in iter(archive.next, None) if entry.isreg() and not _is_macos_metadata(entry.name)), None
    )
