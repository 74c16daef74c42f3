"""Downloads published files: resumes where a download broke off, and renames a file only after its checks.

Invariant: a file has its name only after its size and checksum, as far as they are known, agreed; until then it is
`NAME.part` beside it. Only http and https are spoken, and what cannot be had fails at once, saying what to place where.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

import cerank
from cerank.errors import CerankError, FormatError, HeldError, MissingError, os_error
from cerank.files import disk, json_records
from cerank.importing.published_files import PublishedFile
from cerank.text.safe_text import shown

TIMEOUT = 10.0  # seconds without an answer or a byte
_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
Progress = Callable[[int, int], None]  # (bytes here, bytes in all or 0)


class FetchedFile(msgspec.Struct, frozen=True):
    """A published file on this machine."""

    path: str
    size: int  # bytes
    how: str  # "fetched", "resumed" or "was here"
    checked: str  # "md5", "size", or "nothing" where the publisher states neither


class _PartialDownload(msgspec.Struct, frozen=True):
    """The source of a partial download, stored beside FILE.part as FILE.part.json."""

    url: str
    validator: str = ""  # the answer's ETag or date, sent back so that a file that changed starts anew


def place_of(source: PublishedFile, folder: Path) -> Path:
    """Return where the file is, or where the user should place it."""
    return folder / source.name / source.file


def fetch(source: PublishedFile, folder: Path, progress: Progress = lambda _done, _total: None) -> FetchedFile:
    """Return the published file, downloading it unless it is here.

    Args:
        source: one of `PUBLISHED_FILES`.
        folder: folder of downloads; the file lies in it as NAME/FILE.
        progress: called now and then with the bytes downloaded so far and the total, 0 if it is unknown.

    Raises:
        MissingError: it must be fetched by hand, cannot be reached, broke off, or came other than published; the hint
            says which file to place where, or that the next call resumes the download.
        FormatError: a file that was here before is damaged.
        HeldError: another process fetches it.
        RunFailedError: the disk refuses.
    """
    path = place_of(source, folder)
    if path.exists():
        return _check_file(source, path, "was here")
    if source.by_hand:
        raise MissingError(
            f"the file must be downloaded by hand: {source.by_hand}",
            where=source.url,
            hint=_how_to_place(source, path),
            code="download-by-hand",
        )
    disk.make_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    with lock_part(part) as handle:
        present = part.stat().st_size
        _download(source, part, handle, progress)
        disk.sync(handle)
        try:
            fetched = _check_file(source, part, "resumed" if present else "fetched")
        except FormatError as error:
            disk.truncate(handle, 0)
            what = f"the downloaded file differs from the published one: {error.what}"
            raise MissingError(
                what, where=source.url, hint=_how_to_place(source, path), code="download-differs"
            ) from error
        disk.remove(_note_path(part))
        disk.rename(part, path)
    return msgspec.structs.replace(fetched, path=str(path))


def _how_to_place(source: PublishedFile, path: Path) -> str:
    checksums = f"; its md5 is {' or '.join(source.md5)}" if source.md5 else ""
    return f"fetch {source.url} on any machine and save it as {path}{checksums}"


@contextlib.contextmanager
def lock_part(part: Path) -> Iterator[disk.Handle]:
    """Open the partial file for appending and lock it."""
    handle = disk.open_append(part)
    try:
        try:
            fcntl.flock(handle.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HeldError("another process is downloading this file", where=str(part)) from None
        yield handle
    finally:
        disk.close(handle)


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _load_note(part: Path) -> _PartialDownload | None:
    try:
        return json_records.decode(_note_path(part).read_bytes(), _PartialDownload)
    except (OSError, ValueError):  # without this record the download cannot be resumed
        return None


def _download(source: PublishedFile, part: Path, handle: disk.Handle, progress: Progress) -> None:
    """Append what the partial file lacks; its content is checked later."""
    present = part.stat().st_size
    note = _load_note(part)
    if present and (note is None or note.url != source.url or not (note.validator or source.md5)):
        disk.truncate(handle, 0)
        present, note = 0, None
    if present and present == source.size:
        return
    with _translate_network_errors(source, part):
        try:
            answer = _send_request(source.url, present, note.validator if note else "")
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and present:
                return  # nothing is left to fetch; the checksum decides
            raise
        with answer:
            total = _begin(source, answer, present, handle, part)
            _copy(answer, handle, part, total or source.size, progress)
    size = part.stat().st_size
    expected = total or source.size
    if expected and size < expected:
        hint = "repeat the command to resume the download"
        raise MissingError(
            f"the download broke off after {size:,} of {expected:,} bytes",
            where=source.url,
            hint=hint,
            code="download-cut-off",
        )


def _send_request(url: str, present: int, validator: str) -> http.client.HTTPResponse:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise MissingError("the address does not begin with http:// or https://", where=shown(url, 200))
    headers = {"User-Agent": f"cerank/{cerank.__version__}", "Accept-Encoding": "identity"}
    if present:
        headers["Range"] = f"bytes={present}-"
        if validator:
            headers["If-Range"] = validator
    opener = urllib.request.OpenerDirector()  # without the handlers for file:, ftp: and data:
    for kind in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(kind())
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked above
    response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)  # typeshed cannot know the handler
    return response


@contextlib.contextmanager
def _translate_network_errors(source: PublishedFile, part: Path) -> Iterator[None]:
    """Turn network errors into MissingError."""
    path = part.with_name(source.file)
    try:
        yield
    except CerankError:
        raise
    except urllib.error.HTTPError as error:
        what = f"the server answers {error.code} {shown(error.reason, 80)}"
        raise MissingError(what, where=source.url, hint=_how_to_place(source, path), code="download-refused") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = shown(getattr(error, "reason", "") or error or type(error).__name__, 200)
        raise MissingError(
            f"the server cannot be reached: {reason}",
            where=source.url,
            hint=_how_to_place(source, path),
            code="server-unreachable",
        ) from error


def _begin(
    source: PublishedFile, answer: http.client.HTTPResponse, present: int, handle: disk.Handle, part: Path
) -> int:
    """Prepare the partial file by the response's headers; return the size of the whole file, 0 if unknown."""
    total = 0
    span = (
        _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT
        else None
    )
    if span is not None and int(span[1]) == present:
        total = int(span[2]) if span[2] != "*" else 0
    elif answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        raise MissingError("the server returned an unexpected byte range", where=source.url)
    else:
        if present:
            disk.truncate(handle, 0)
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 18 else 0
    etag = answer.headers.get("ETag", "")
    strong = "" if etag.startswith("W/") else etag  # a weak one says nothing about bytes
    note = _PartialDownload(source.url, strong or answer.headers.get("Last-Modified", ""))
    disk.write(_note_path(part), msgspec.json.encode(note))
    if source.size and total and total != source.size:
        what = f"the server has a file of {total:,} bytes; the published one has {source.size:,}"
        raise MissingError(
            what,
            where=source.url,
            hint="it may have been replaced; download it yourself and check it",
            code="download-size-differs",
        )
    return total


def _copy(answer: http.client.HTTPResponse, handle: disk.Handle, part: Path, total: int, progress: Progress) -> None:
    done = part.stat().st_size
    progress(done, total)
    while chunk := answer.read(_CHUNK):
        done += len(chunk)
        if total and done > total:
            disk.truncate(handle, 0)
            raise MissingError(f"the server sent more than the announced {total:,} bytes", where=str(part))
        disk.append(handle, chunk)
        progress(done, total)


def _check_file(source: PublishedFile, path: Path, how: str) -> FetchedFile:
    """Return the file after comparing its size and checksum with the published ones.

    Raises:
        FormatError: they differ.
    """
    try:
        size = path.stat().st_size
        if source.size and size != source.size:
            hint = "remove it, and fetch it again"
            raise FormatError(
                f"the file has {size:,} bytes, not {source.size:,}", where=str(path), hint=hint, code="wrong-file-size"
            )
        if source.md5:
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5 not in source.md5:
                what = f"the file has the md5 {md5}, not {' or '.join(source.md5)}"
                raise FormatError(what, where=str(path), hint="remove it, and fetch it again", code="wrong-checksum")
    except OSError as error:
        raise os_error(error, path) from error
    return FetchedFile(str(path), size, how, "md5" if source.md5 else "size" if source.size else "nothing")
