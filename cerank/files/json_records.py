"""Writes frozen records as JSON and reads them back.

Invariant: what is written can be read back as the same record; a number that JSON cannot express is an error, never
null. A record carries the CRC-32 of its own bytes, so that a changed bit is seen where the JSON is still JSON; one
without it (from an older release, or written by hand) is accepted.
"""

from __future__ import annotations

import threading
import zlib
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

import msgspec

from cerank.errors import RunFailedError, os_error
from cerank.files import disk
from cerank.files.disk import DamagedError
from cerank.files.safe_open import read_file

R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)
DECODE_ERRORS = (ValueError, RecursionError)  # all that msgspec raises for bytes that are not the record asked for

# msgspec keeps what it learns of a struct on its class, and puts it there before it is complete. A thread that reads
# the half of it ends the whole process (0.22: `ps` of 36 runs, two times in five). So each kind is prepared under a
# lock before any thread uses it, and all decoding of structs goes through the functions below; a test sees to that.
_decoders: dict[tuple[Any, bool], msgspec.json.Decoder[Any]] = {}
_preparing = threading.RLock()


def decoder_of(kind: type[R] | UnionType, *, strict: bool = True) -> msgspec.json.Decoder[R]:
    """Return a decoder of one record, which any thread may use.

    Args:
        kind: the record's type; it may be a union of tagged structs.
        strict: whether the text "3" is no number.
    """
    known = _decoders.get((kind, strict))
    if known is None:
        with _preparing:
            known = _decoders.setdefault((kind, strict), msgspec.json.Decoder(kind, strict=strict))
    return known


def decode(data: bytes | str, kind: type[R] | UnionType, *, strict: bool = True) -> R:
    """Return the `kind` that JSON holds.

    Raises:
        ValueError, RecursionError: it is none (`DECODE_ERRORS`).
    """
    return decoder_of(kind, strict=strict).decode(data)


def convert(value: object, kind: type[R]) -> R:
    """Return a value of plain lists, tables, texts and numbers as a `kind`.

    Raises:
        ValueError, RecursionError: it is none (`DECODE_ERRORS`).
    """
    decoder_of(kind)
    return msgspec.convert(value, kind)


def timestamp(now: datetime) -> str:
    """Return `now` in UTC as ISO 8601 with seconds, such as 2026-11-23T10:43:31+00:00.

    Raises:
        ValueError: `now` has no time zone, which is an internal error.
    """
    if now.tzinfo is None:
        raise ValueError("a time without its zone")
    return now.astimezone(UTC).isoformat(timespec="seconds")


def _without_surrogates(value: object) -> object:
    """Return `value` with undecodable bytes of file names escaped, such as \\udcff; UTF-8 cannot encode them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list | tuple) else value


def encode_record(record: R, decoder: msgspec.json.Decoder[R], where: str) -> bytes:
    """Return `record` as one line of JSON without its line feed.

    Raises:
        RunFailedError: it holds NaN or an infinity, or is not of the decoder's kind.
    """
    try:
        data = _ENCODER.encode(record)
    except UnicodeEncodeError:
        record = msgspec.convert(_without_surrogates(msgspec.to_builtins(record)), decoder.type)
        data = _ENCODER.encode(record)
    try:
        is_same = decoder.decode(data) == record
    except DECODE_ERRORS:
        is_same = False
    if not is_same:  # msgspec silently writes NaN and infinities as null
        raise RunFailedError(
            f"a number in a {type(record).__name__} record is not finite (nan or inf)",
            where=where,
            code="value-not-finite",
        )
    return data


_ENCODER = msgspec.json.Encoder()
_CRC_MEMBER = b',"crc":"'
_CRC_LENGTH = len(_CRC_MEMBER) + 8 + 2  # bytes that `stamped` adds before the last bracket, and that bracket


def with_crc(data: bytes) -> bytes:
    """Return a JSON object with a last member "crc": the CRC-32 of the bytes before it, 8 hex digits."""
    body = data[:-1]
    return body + _CRC_MEMBER + b'%08x"}' % zlib.crc32(body) if body != b"{" else data


def crc_matches(line: bytes, *, without: bool = True) -> bool:
    """Return whether the CRC of a line, without its line feed, matches; `without` for a line that has none."""
    has_one = line[-_CRC_LENGTH:-10] == _CRC_MEMBER
    return line[-10:-2] == b"%08x" % zlib.crc32(line[:-_CRC_LENGTH]) if has_one else without


def _without_crc(data: bytes) -> bytes:
    """Return the JSON object without its CRC.

    Raises:
        ValueError: a stamp that does not fit.
    """
    line = data.rstrip()
    if not crc_matches(line):
        raise ValueError(CRC_DIFFERS)
    return line[:-_CRC_LENGTH] + b"}" if line[-_CRC_LENGTH:-10] == _CRC_MEMBER else data


CRC_DIFFERS = "its content is not what was written (crc differs)"


def save(path: Path, record: msgspec.Struct) -> None:
    """Write `record` to `path`, atomically.

    Raises:
        RunFailedError: the disk refuses, or the record holds NaN or an infinity.
    """
    disk.write(path, bytes_of(record, str(path)))


def bytes_of(record: msgspec.Struct, where: str) -> bytes:
    """Return the bytes that `save` writes.

    Raises:
        RunFailedError: the record holds NaN or an infinity.
    """
    return with_crc(encode_record(record, decoder_of(type(record)), where)) + b"\n"


def load(path: Path, kind: type[S]) -> S:
    """Return the record in `path`.

    Raises:
        DamagedError: it is absent, unreadable, or not a `kind`.
    """
    record = load_if_there(path, kind)
    if record is None:
        raise DamagedError("the file is missing", where=str(path))
    return record


def load_if_there(path: Path, kind: type[S]) -> S | None:
    """Return the record in `path`, or None where there is no such file.

    Raises:
        DamagedError: it is unreadable, or not a `kind`.
    """
    try:
        return decode(_without_crc(read_file(path)), kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_error(error, path, DamagedError) from error
    except DECODE_ERRORS as error:
        raise DamagedError(
            f"not a readable {kind.__name__.lower()}: {decode_reason(error)}", where=str(path)
        ) from error


def decode_reason(error: Exception) -> str:
    """Return msgspec's message with plain quotes and a small first letter."""
    text = str(error).replace("`", "'")
    return text[:1].lower() + text[1:]
