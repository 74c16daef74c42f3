"""What was given to a server's Batch API, on disk: which calls, under which name there, and what came back.

Invariant: a batch is recorded before it is created, so that a process which dies in between finds it again at the
server; what came back is on disk, as it came, before an answer is made of it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from cerank.files import disk, json_records

State = Literal["prepared", "created", "ended", "failed"]
_NAME = re.compile(r"[0-9a-f]{16}\.json")


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One batch."""

    token: str  # sent as metadata, by which the batch is found again
    keys: tuple[str, ...]  # keys of its calls, which are their `custom_id`
    state: State = "prepared"
    file: str = ""  # id of the uploaded requests
    batch: str = ""  # id of the batch
    status: str = ""  # as the server says it: "completed", "expired", "cancelled"
    error: str = ""  # why the server did not accept it
    created: str = ""  # UTC, ISO 8601


class BatchLine(msgspec.Struct, frozen=True):
    """What came back for one call: the HTTP status and body of its answer, or an error in place of both."""

    status: int  # 0 where the call was never carried out, such as in a batch that expired
    body: bytes
    error: str = ""


class BatchRecords:
    """The batches of one model on one server, in the lab.

    Args:
        folder: their folder; made when the first one is recorded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: dict[str, BatchRecord] = {}
        self._holding: dict[str, list[str]] = {}  # key -> tokens, oldest first
        for record in sorted(_load(folder), key=_age):
            self._enter(record)
        self._lines: dict[str, dict[str, BatchLine]] = {}  # of batches that ended, as far as they were read

    def prepare(self, keys: Iterable[str], requests: bytes, now: str) -> BatchRecord:
        """Record a batch and its requests before anything is sent."""
        record = BatchRecord(token=secrets.token_hex(8), keys=tuple(keys), created=now)
        disk.make_folder(self._folder)
        disk.write(self._folder / f"{record.token}.requests.jsonl", requests)
        self.save(record)
        return record

    def requests(self, record: BatchRecord) -> bytes:
        """Return the requests of a batch as they are uploaded."""
        return (self._folder / f"{record.token}.requests.jsonl").read_bytes()

    def save(self, record: BatchRecord) -> None:
        """Write a batch's record anew."""
        json_records.save(self._folder / f"{record.token}.json", record)
        self._enter(record)

    def _enter(self, record: BatchRecord) -> None:
        if record.token not in self._records:
            for key in record.keys:
                self._holding.setdefault(key, []).append(record.token)
        self._records[record.token] = record

    def keep(self, record: BatchRecord, outputs: bytes) -> None:
        """Write what came back of a batch, then that it ended; its requests are not needed any more."""
        disk.write(self._folder / f"{record.token}.outputs.jsonl", outputs)
        self.save(msgspec.structs.replace(record, state="ended"))
        (self._folder / f"{record.token}.requests.jsonl").unlink(missing_ok=True)

    def open(self) -> list[BatchRecord]:
        """Return the batches that are not known to have ended, oldest first."""
        is_open = (record for record in self._records.values() if record.state in {"prepared", "created"})
        return sorted(is_open, key=_age)

    def holding(self, key: str) -> list[BatchRecord]:
        """Return the batches that hold a call and were accepted or may yet be, oldest first."""
        records = (self._records[token] for token in self._holding.get(key, ()))
        return [record for record in records if record.state != "failed"]

    def line(self, record: BatchRecord, key: str) -> BatchLine | None:
        """Return what came back for a call of a batch that ended; None if nothing did."""
        if record.token not in self._lines:
            path = self._folder / f"{record.token}.outputs.jsonl"
            self._lines[record.token] = read_lines(path.read_bytes() if path.is_file() else b"")
        return self._lines[record.token].get(key)


def _age(record: BatchRecord) -> tuple[str, str]:
    return record.created, record.token


def _load(folder: Path) -> list[BatchRecord]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [json_records.load(folder / name, BatchRecord) for name in names if _NAME.fullmatch(name)]


def read_lines(data: bytes) -> dict[str, BatchLine]:
    """Return key -> what came back, from output and error files; lines that are none are passed over.

    Order means nothing; of two lines for one call the one that holds an answer counts.
    """
    lines: dict[str, BatchLine] = {}
    for raw in data.splitlines():
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue
        key = value.get("custom_id") if isinstance(value, dict) else None
        if not isinstance(key, str):
            continue
        line = _line(value)
        if key not in lines or (line.status == 200 and lines[key].status != 200):
            lines[key] = line
    return lines


def _line(value: dict[str, object]) -> BatchLine:
    response, error = value.get("response"), value.get("error")
    reason = ""
    if isinstance(error, dict):
        reason = ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return BatchLine(response["status_code"], msgspec.json.encode(response.get("body")), reason)
    return BatchLine(0, b"", reason or "neither an answer nor an error")
