"""The messages between a dashboard, or a copy, and the cerank where the lab is: a line of JSON, then raw bytes.

Invariant: both sides are of one version, so that a message has one form; the first line that the other side writes
says which it is, and whatever a login shell prints before it is skipped.
"""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

import msgspec

from cerank import errors
from cerank.app.run_views.run_index import IndexedRun
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.sweep_trials import SweepTrial
from cerank.errors import CerankError, RunFailedError
from cerank.files import json_records
from cerank.files.disk import DamagedError

BANNER = b"cerank-lab "  # begins the first line of the other side
MOST_NOISE = 1000  # lines that a login shell may print before it


class Greeting(msgspec.Struct, frozen=True):
    """What the other side says of itself."""

    version: str
    host: str
    lab: str  # its folder, absolute


class LabCall(msgspec.Struct, frozen=True):
    """A request; `size` bytes follow."""

    id: int
    name: str
    args: dict[str, Any] = {}
    size: int = 0


class ErrorText(msgspec.Struct, frozen=True):
    """An error of cerank in words."""

    kind: str  # its class
    what: str
    where: str = ""
    hint: str = ""
    code: str = ""

    @classmethod
    def of(cls, error: CerankError) -> ErrorText:
        """Return an error as it is sent."""
        return cls(type(error).__name__, error.what, error.where, error.hint, error.code)

    def error(self) -> CerankError:
        """Return the error that was sent."""
        kinds: dict[str, type[CerankError]] = {"DamagedError": DamagedError}
        kind = kinds.get(self.kind) or getattr(errors, self.kind, RunFailedError)
        if not (isinstance(kind, type) and issubclass(kind, CerankError)):
            kind = RunFailedError
        return kind(self.what, where=self.where, hint=self.hint, code=self.code)


class LabAnswer(msgspec.Struct, frozen=True):
    """The answer to a call; `size` bytes follow."""

    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorText | None = None
    size: int = 0


class SentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run as lists show it."""

    name: str
    run: IndexedRun
    short_name: str
    place: int
    waits_for: str
    trial: SweepTrial | None = None

    @classmethod
    def of(cls, entry: RunEntry) -> SentEntry:
        """Return an entry as it is sent."""
        run = IndexedRun(
            plan=entry.plan,
            status=entry.status,
            notes=entry.notes,
            validation=entry.validation,
            finals=entry.finals,
            note=entry.note,
            verdict=entry.verdict,
            kept=entry.kept,
        )
        texts = {"short_name": entry.short_name, "waits_for": entry.waits_for}
        return cls(name=entry.name, run=run, place=entry.place, trial=entry.trial, **texts)


class ListAnswer(msgspec.Struct, frozen=True):
    """What changed in a list of runs; the entries that changed follow as bytes."""

    names: tuple[str, ...] | None  # every run, the oldest first; None where none came or went
    devices: str = ""  # GPUs there, in a few characters each


def packed(value: object) -> bytes:
    """Return a value as compressed JSON: plans of many runs are much alike."""
    return zlib.compress(msgspec.json.encode(value), 3)


def unpacked(data: bytes, kind: Any) -> Any:
    """Return what `packed` packed."""
    return json_records.decode(zlib.decompress(data), kind)


def send(stream: BinaryIO, message: LabCall | LabAnswer, data: bytes = b"") -> None:
    """Write a message with its bytes."""
    stream.write(msgspec.json.encode(message) + b"\n")
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO, kind: type[Any]) -> tuple[Any, bytes] | None:
    """Return the next message with its bytes; None at the end of the stream.

    Raises:
        ValueError: what came is no message.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        message = json_records.decode(line, kind)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    data = stream.read(message.size) if message.size else b""
    return (message, data) if len(data) == message.size else None
