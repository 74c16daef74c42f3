"""Copying runs from one lab to another, on this machine or over ssh, with every hash checked.

Invariant: what came before a cut is not sent again, a run that is there already gets only what it lacks, and a run of
the same id with other content is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cerank.app.over_ssh.copy_records import RecordsOfRuns
from cerank.app.over_ssh.lab_files import (
    ChangedFile,
    Checkpoints,
    FilePiece,
    FileToReceive,
    Finished,
    LabFiles,
    Received,
    pieces_of,
    received_error,
)
from cerank.app.over_ssh.ssh_connection import SshConnection
from cerank.errors import CerankError, ExitCode, UsageError
from cerank.files import disk
from cerank.runs.lab_address import is_address, parsed
from cerank.runs.layout import runs_folder

T = TypeVar("T")

_SCP_ADDRESS = re.compile(r"([\w.@-]+):")
HASHING_PATIENCE = 3600.0  # seconds in which the other side hashes the files of a run


class RunStorage(Protocol):
    """A lab as copying sees it; `LabFiles` is one on this machine."""

    @property
    def title(self) -> str:
        """Return what messages call the lab."""

    def named_runs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the ids of the runs that the texts name; of all runs for no text."""

    def listing(self, run: str, checkpoints: Checkpoints) -> tuple[FileToReceive, ...]:
        """Return the files of a run with their hashes."""

    def read(self, run: str, pieces: Sequence[FilePiece]) -> bytes:
        """Return the bytes of pieces, one after another."""

    def begin(self, run: str, files: Sequence[FileToReceive]) -> Received:
        """Prepare to receive a run; return what is there of it."""

    def write(self, run: str, pieces: Sequence[FilePiece], data: bytes) -> None:
        """Write pieces of a run that is being received."""

    def finish(self, run: str, files: Sequence[FileToReceive]) -> Finished:
        """Check every hash and let the run appear in the lab."""

    def records(self, runs: Sequence[str]) -> RecordsOfRuns:
        """Return the records of the matrices and sweeps that have one of these runs."""

    def keep_records(self, records: RecordsOfRuns) -> tuple[str, ...]:
        """Keep records whose runs were copied; return what became of each, as a sentence."""


class RemoteFiles:
    """The runs of a lab on another machine."""

    def __init__(self, connection: SshConnection) -> None:
        self._connection = connection

    @property
    def title(self) -> str:
        """Return what messages call the lab."""
        return str(self._connection.address)

    def named_runs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the ids of the runs that the texts name; of all runs for no text."""
        return self._call("named_runs", tuple[str, ...], texts=list(texts))

    def listing(self, run: str, checkpoints: Checkpoints) -> tuple[FileToReceive, ...]:
        """Return the files of a run with their hashes."""
        return self._call("listing", tuple[FileToReceive, ...], run=run, checkpoints=checkpoints)

    def read(self, run: str, pieces: Sequence[FilePiece]) -> bytes:
        """Return the bytes of pieces, one after another."""
        args = {"run": run, "pieces": msgspec.to_builtins(pieces)}
        return self._connection.call("read", args, patience=HASHING_PATIENCE)[1]

    def begin(self, run: str, files: Sequence[FileToReceive]) -> Received:
        """Prepare to receive a run; return what is there of it."""
        return self._call("begin", Received, run=run, files=msgspec.to_builtins(files))

    def write(self, run: str, pieces: Sequence[FilePiece], data: bytes) -> None:
        """Write pieces of a run that is being received."""
        args = {"run": run, "pieces": msgspec.to_builtins(pieces)}
        self._connection.call("write", args, data=data, patience=HASHING_PATIENCE)

    def finish(self, run: str, files: Sequence[FileToReceive]) -> Finished:
        """Check every hash and let the run appear in the lab."""
        return self._call("finish", Finished, run=run, files=msgspec.to_builtins(files))

    def records(self, runs: Sequence[str]) -> RecordsOfRuns:
        """Return the records of the matrices and sweeps that have one of these runs."""
        return self._call("records", RecordsOfRuns, runs=list(runs))

    def keep_records(self, records: RecordsOfRuns) -> tuple[str, ...]:
        """Keep records whose runs were copied; return what became of each, as a sentence."""
        return self._call("keep_records", tuple[str, ...], records=msgspec.to_builtins(records))

    def _call(self, name: str, kind: type[T], **args: Any) -> T:
        result: T = self._connection.call(name, args, kind=kind, patience=HASHING_PATIENCE)[0]
        return result


class CopiedRun(msgspec.Struct, frozen=True):
    """What became of one run."""

    run: str  # id
    outcome: str  # "copied", "added", "there already" or "refused"
    files: int = 0  # that were sent
    size: int = 0  # bytes that were sent
    kept: int = 0  # bytes that had come before a cut
    notes: tuple[str, ...] = ()  # what it lacks there, or why it was refused
    error: CerankError | None = None


def storage_of(lab: str, where: str, cache: Path | None = None) -> RunStorage:
    """Return a lab by its folder or its address; over ssh, the line is opened.

    Args:
        lab: folder or address.
        where: what errors name.
        cache: folder of caches of this machine, which runs that a folder receives use from then on.

    Raises:
        UsageError: it is no address, or one as scp writes it.
        LineDroppedError, MissingError: the machine is not reached.
    """
    if is_address(lab):
        connection = SshConnection(parsed(lab, where))
        connection.open()
        return RemoteFiles(connection)
    folder = Path(lab).expanduser()
    if (match := _SCP_ADDRESS.match(lab)) and not folder.is_dir():
        rest = lab[match.end() :]
        hint = f"write ssh://{match[1]}{rest if rest.startswith('/') else '/FOLDER'}; or ./{lab} for a folder here"
        raise UsageError(f"there is no folder {lab!r:.100}", where=where, hint=hint, code="remote-lab")
    return LabFiles(folder.absolute(), cache)


def copy_runs(
    source: RunStorage,
    target: RunStorage,
    texts: Sequence[str],
    checkpoints: Checkpoints,
    say: Callable[[str], None] = lambda _: None,
) -> list[CopiedRun]:
    """Copy runs from one lab to another. One that is refused does not keep the others from being copied.

    Args:
        source: where the runs are.
        target: where they go.
        texts: runs by name, label or id; none copies all.
        checkpoints: which checkpoints of training go along; models of finished stages always do.
        say: called with a line for each run.

    Raises:
        UsageError: both labs are the same, or a text names no run.
        RunFailedError: the disk is full, or the line dropped; the same command continues.
    """
    if source.title == target.title:
        raise UsageError("a lab cannot be copied into itself", where=source.title, code="same-lab")
    runs = source.named_runs(texts)
    if isinstance(target, LabFiles):
        disk.make_folder(runs_folder(target.lab))
    copied = []
    for number, run in enumerate(runs, 1):
        say(f"{number} of {len(runs)}: {run}")
        copied.append(_copied(source, target, run, checkpoints))
    return copied


def _copied(source: RunStorage, target: RunStorage, run: str, checkpoints: Checkpoints) -> CopiedRun:
    try:
        files = source.listing(run, checkpoints)
        received = target.begin(run, files)
    except CerankError as error:
        if error.exit_code == ExitCode.FAILED:  # the disk or the line, which holds for every run
            raise
        if error.code == "run-differs":
            what = f"{error.what}; the run to copy is in {source.title}"
            error = UsageError(what, where=error.where, hint=error.hint, code=error.code)
        return CopiedRun(run, "refused", notes=(str(error),), error=error)
    if received.is_there:
        files = tuple(file for file in files if file.path in set(received.lacks))
        if not files:
            return CopiedRun(run, "there already")
    size = _send(source, target, run, files, received.sizes)
    sent = sum(1 for file in files if received.sizes.get(file.path, -1) < file.size)
    finished = target.finish(run, files)
    if finished.wrong:  # such as the part of a file that changed between two tries
        again = [file for file in files if file.path in set(finished.wrong)]
        size += _send(source, target, run, again, {})
        finished = target.finish(run, files)
    if finished.wrong:
        raise received_error(run, finished.wrong)
    outcome = "added" if received.is_there else "copied"
    return CopiedRun(run, outcome, sent, size, sum(received.sizes.values()), finished.notes)


def _send(
    source: RunStorage, target: RunStorage, run: str, files: Sequence[FileToReceive], came: dict[str, int]
) -> int:
    """Send what has not come yet, and return how many bytes that was."""
    parts = [ChangedFile(file.path, file.size, 0, came.get(file.path, 0)) for file in files]
    empty = [FilePiece(file.path, 0, 0) for file in files if not file.size and file.path not in came]
    if empty:
        target.write(run, empty, b"")
    size = 0
    for pieces in pieces_of(parts):
        target.write(run, pieces, source.read(run, pieces))
        size += sum(piece.size for piece in pieces)
    return size
