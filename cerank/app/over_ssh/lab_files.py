"""The files of the runs of one lab, read in pieces and received in pieces: how a run moves from one lab to another.

Invariant: a run appears in the lab that receives it completely and with every hash checked, or not at all; what came
before a cut stays in a hidden folder and is not sent again. To a run that is there already, files are added that it
lacks, each folder of files whole; none of its files is ever changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from cerank.app.over_ssh import copy_records
from cerank.app.over_ssh.copy_records import RecordsOfRuns
from cerank.errors import CerankError, MissingError, UsageError, os_error
from cerank.files import disk, json_records, lease_files, manifests
from cerank.files.disk import DamagedError
from cerank.files.hashing import sha256_file
from cerank.files.lease import Lease
from cerank.files.safe_open import open_file
from cerank.runs import run_names, run_store
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.records import ReusedStage

Checkpoints = Literal["none", "last", "all"]
FileSet = Literal["journals", "results"]  # by a screen: the small files; rankings, too

PIECE = 4 << 20  # bytes that are read or written at once
_TAIL = 64  # bytes before the end of a journal by which a later look knows that only lines were added
_STEP = re.compile(r"stages/[^/]+/checkpoints/(step-\d+)/.+")
_OF_THIS_LAB = (
    "lease",
    "stop",
    "job.json",
    "submission.json",
    "damage.json",
    "place.json",
)  # about a run here, not of it
_MAY_DIFFER = re.compile(r"notes\.json|note\.md|name\.json|log\.txt|jobs\.jsonl|usage\.jsonl|trackers/.*")
_MAY_LACK = re.compile(r"stages/[^/]+/checkpoints/.*|scores/.*")
_WHOLE = re.compile(r"stages/[^/]+/checkpoints/[^/]+|scores/[^/]+/[^/]+/part-[^/]+")  # folders with a manifest
_RESULTS = ("candidates", "teachers", "qrels", "rankings", "measures")


class FileToReceive(msgspec.Struct, frozen=True):
    """A file of a run as it is to be received."""

    path: str  # relative to the run, with forward slashes
    size: int  # bytes
    sha256: str


class FilePiece(msgspec.Struct, frozen=True):
    """A part of a file."""

    path: str
    start: int  # in bytes
    size: int


class SeenFile(msgspec.Struct, frozen=True):
    """A file as it was last looked at."""

    size: int
    mtime: int  # ns
    tail: int = 0  # CRC-32 of its last bytes


class ChangedFile(msgspec.Struct, frozen=True):
    """A file that is not as it was last looked at; what is before `start` is."""

    path: str
    size: int
    mtime: int  # ns
    start: int = 0


class Received(msgspec.Struct, frozen=True):
    """What a lab has of a run that it is about to receive."""

    is_there: bool  # verified by the hashes of the other side
    sizes: dict[str, int] = {}  # path -> bytes that came before
    lacks: tuple[str, ...] = ()  # paths of the files that a run that is there goes without


class Finished(msgspec.Struct, frozen=True):
    """How receiving a run ended."""

    wrong: tuple[str, ...] = ()  # files whose bytes are not those that were sent; send them again
    notes: tuple[str, ...] = ()  # what the run lacks in this lab, or is called otherwise, in sentences


class LabFiles:
    """The runs of a lab on this machine, for one who copies them.

    Args:
        lab: its folder.
        cache: folder of caches that a run that is received uses here; None leaves it that of its plan.
    """

    def __init__(self, lab: Path, cache: Path | None = None) -> None:
        self.lab = lab
        self._cache = cache
        self._leases: dict[str, Lease] = {}

    @property
    def title(self) -> str:
        """Return what messages call the lab."""
        return str(self.lab)

    # giving

    def named_runs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the ids of the runs that the texts name, of all runs for no text; a sweep's or matrix' name names all.

        Raises:
            UsageError: a text names none, or several; or the lab is not there.
        """
        if not runs_folder(self.lab).is_dir():
            raise UsageError("there is no lab", where=str(self.lab), code="lab-not-found")
        if not texts:
            return tuple(folder.name for folder in run_store.folders(self.lab))
        return tuple(dict.fromkeys(run.name for text in texts for run in run_store.find_each(self.lab, text)))

    def listing(self, run: str, checkpoints: Checkpoints) -> tuple[FileToReceive, ...]:
        """Return the files of a run with their hashes.

        Raises:
            UsageError: a worker is at it.
            DamagedError: a file is not as it was written.
        """
        from cerank.worker import repair  # imports the readers of models

        folder = self.folder(run)
        status = run_store.status(folder, datetime.now(UTC))
        title = run_store.title(folder)
        if status.state in {"running", "stopping"}:
            hint = "wait for it, or stop it first: cerank stop"
            raise UsageError(
                f"the run is {status.state}, and its files change", where=title, hint=hint, code="run-state"
            )
        problems = [problem for problem in repair.find_problems(folder) if problem.path.suffix != ".jsonl"]
        if problems:
            hint = f"`cerank verify {run_store.short_name(folder)}` lists what is wrong"
            raise DamagedError(problems[0].what, where=str(problems[0].path), hint=hint)
        paths = list(_paths(folder, checkpoints))
        return tuple(
            FileToReceive(path, (file := folder.path / path).stat().st_size, sha256_file(file)) for path in paths
        )

    def read(self, run: str, pieces: Sequence[FilePiece]) -> bytes:
        """Return the bytes of pieces, one after another.

        Raises:
            MissingError: a file is gone, or shorter.
        """
        folder = self.folder(run)
        data = bytearray()
        for piece in pieces:
            path = folder.path / checked_path(piece.path)
            try:
                with open_file(path) as file:
                    file.seek(piece.start)
                    block = file.read(piece.size)
            except OSError as error:
                raise os_error(error, path, MissingError) from error
            if len(block) < piece.size:
                raise MissingError("the file became shorter while it was read", where=str(path), code="file-changed")
            data += block
        return bytes(data)

    def changed(
        self, run: str, known: Mapping[str, SeenFile], file_set: FileSet
    ) -> tuple[tuple[ChangedFile, ...], tuple[str, ...]]:
        """Return the files that differ from those known, and the known ones that are gone.

        Args:
            run: id of the run.
            known: path -> the file as it was last looked at.
            file_set: which files of the run count.
        """
        folder = self.folder(run)
        out, seen = [], set()
        for path in _looked_at(folder, file_set):
            with contextlib.suppress(OSError):
                state, before = (folder.path / path).stat(), known.get(path)
                seen.add(path)
                if before is not None and (before.size, before.mtime) == (state.st_size, state.st_mtime_ns):
                    continue
                has_grown = before is not None and path.endswith((".jsonl", ".txt")) and before.size <= state.st_size
                start = before.size if has_grown and before else 0
                if start and before and tail_of(folder.path / path, start) != before.tail:
                    start = 0
                out.append(ChangedFile(path, state.st_size, state.st_mtime_ns, start))
        is_whole = file_set == "results"
        gone = [path for path in known if path not in seen and (is_whole or not path.startswith(_RESULTS))]
        return tuple(out), tuple(gone)

    # receiving

    def begin(self, run: str, files: Sequence[FileToReceive]) -> Received:
        """Prepare to receive a run, or the files that the run here lacks; return what is here of it.

        Raises:
            UsageError: another run of this id is here.
            HeldError: another process is receiving it, or works at it.
        """
        folder = self.folder(run)
        is_there = folder.path.exists()
        lacks: tuple[str, ...] = ()
        if is_there:
            self._check_same(folder, files)
            present = set(_paths(folder, "all"))
            lacks = tuple(file.path for file in files if file.path not in present)
            if not lacks:
                return Received(is_there=True)
        incoming = self._incoming(run)
        disk.make_folder(incoming.path)
        if run not in self._leases:
            # no worker starts at a run while files are added to it
            self._leases[run] = Lease.take(folder.lease if is_there else self._lock(run))
        awaited = {file.path: file.size for file in files if not is_there or file.path in lacks}
        came: dict[str, int] = {}
        for path in disk.list_content(incoming.path)[0]:
            name = path.relative_to(incoming.path).as_posix()
            if name in awaited and not path.is_symlink() and path.stat().st_size <= awaited[name]:
                came[name] = path.stat().st_size
            else:
                disk.remove(path)
        return Received(is_there, came, lacks)

    def write(self, run: str, pieces: Sequence[FilePiece], data: bytes) -> None:
        """Write pieces of a run that is being received; what is behind a piece is cut off.

        Raises:
            RunFailedError: the disk refuses.
            UsageError: nothing of that run is being received, or a path leads out of it.
        """
        if run not in self._leases:
            raise UsageError("this run is not being received", where=run)
        incoming, at = self._incoming(run), 0
        for piece in pieces:
            path = incoming.path / checked_path(piece.path)
            if path.parent != incoming.path:
                disk.make_folder(path.parent)
            handle = disk.open_append(path)
            try:
                disk.truncate(handle, piece.start)
                disk.append(handle, data[at : at + piece.size])
                disk.sync(handle)
            finally:
                disk.close(handle)
            at += piece.size

    def finish(self, run: str, files: Sequence[FileToReceive]) -> Finished:
        """Check every hash and let what was received appear in the lab, or return what is wrong.

        Args:
            run: id of the run.
            files: all files that were to be received: of the whole run, or those that the run here lacked.

        Raises:
            RunFailedError: the disk refuses.
            UsageError: nothing of that run is being received.
        """
        if run not in self._leases:
            raise UsageError("this run is not being received", where=run)
        incoming, folder = self._incoming(run), self.folder(run)
        wrong = []
        for file in files:
            path = incoming.path / checked_path(file.path)
            if not path.is_file() or path.stat().st_size != file.size or sha256_file(path) != file.sha256:
                wrong.append(file.path)
                disk.remove(path)
        if wrong:
            return Finished(wrong=tuple(wrong))
        if folder.path.exists():
            _add(incoming, folder, [file.path for file in files])
            disk.remove_tree(incoming.path)
            os.utime(folder.path)  # later than the folders inside, or lists would take the run for changed
            self._leases.pop(run).release()
            return Finished()
        disk.make_folder(incoming.attempts)
        if self._cache is not None and run_store.load_plan(incoming).cache != str(self._cache):
            run_store.save_place(incoming, self._cache)
        os.utime(incoming.path)  # later than the folders inside, or lists would take the run for changed
        disk.rename(incoming.path, folder.path)
        self._leases.pop(run).release()
        disk.remove(self._lock(run))
        disk.remove_tree(lease_files.folder_of(self._lock(run)))
        return Finished(notes=tuple(self._notes(folder)))

    # matrices and sweeps

    def records(self, runs: Sequence[str]) -> RecordsOfRuns:
        """Return the records of the matrices and sweeps that have one of these runs."""
        return copy_records.records_of(self.lab, runs)

    def keep_records(self, records: RecordsOfRuns) -> tuple[str, ...]:
        """Keep records whose runs were copied; return what became of each, as a sentence."""
        return copy_records.keep(self.lab, records)

    def _check_same(self, folder: RunFolder, files: Sequence[FileToReceive]) -> None:
        """Check that a run that is here is the one that is sent.

        Raises:
            UsageError: its files are others; the error names the first, and both runs.
        """
        theirs = {file.path: file for file in files}
        ours = set(_paths(folder, "all"))
        is_finished = folder.done.exists()  # of such a run, a file that it lacks was lost
        for path in sorted(ours | theirs.keys()):
            if _MAY_DIFFER.fullmatch(path):
                continue
            file = theirs.get(path)
            if file is None and _MAY_LACK.fullmatch(path):
                continue
            if path not in ours and (_MAY_LACK.fullmatch(path) or is_finished):
                continue
            if file is None or path not in ours:
                what = f"{path} is in one of them only"
            elif (folder.path / path).stat().st_size != file.size or sha256_file(folder.path / path) != file.sha256:
                what = f"{path} differs"
            else:
                continue
            hint = "keep one: `cerank rm` deletes it from a lab; or copy it to another lab"
            here = f"run {folder.name} is in {self.lab} already, with other content: {what}"
            raise UsageError(here, where=run_store.title(folder), hint=hint, code="run-differs")

    def _notes(self, folder: RunFolder) -> Iterator[str]:
        """Yield what the user should know of a run that was received."""
        here = {other.name for other in run_store.folders(self.lab)}
        for path in sorted(folder.path.glob("stages/*/adopted.json")):
            with contextlib.suppress(DamagedError):
                reused = json_records.load_if_there(path, ReusedStage)
                if reused is not None and reused.run not in here:
                    lacks = "its model came along, its curves did not"
                    yield f"stage {path.parent.name} was trained by {reused.run}, which is not here: {lacks}"
        recorded = run_names.recorded(folder)
        if recorded and run_store.short_name(folder) != recorded:
            yield f"{recorded} is the name of another run here; this one is called {run_store.short_name(folder)}"

    def folder(self, run: str) -> RunFolder:
        """Return the folder of a run by its id.

        Raises:
            UsageError: it is none.
        """
        return RunFolder(runs_folder(self.lab) / checked_run(run))

    def _incoming(self, run: str) -> RunFolder:
        return RunFolder(runs_folder(self.lab) / f".{checked_run(run)}.incoming")

    def _lock(self, run: str) -> Path:
        return runs_folder(self.lab) / f".{checked_run(run)}.incoming-lease"


def _add(incoming: RunFolder, folder: RunFolder, paths: Sequence[str]) -> None:
    """Move files that were received to a run that lacks them: a folder with a manifest whole, or its manifest last."""
    last = sorted(paths, key=lambda path: (path.endswith(f"/{manifests.MANIFEST}"), path))
    for path in last:
        source, target, unit = incoming.path / path, folder.path / path, _WHOLE.match(path)
        if unit and (incoming.path / unit[0]).is_dir() and not (folder.path / unit[0]).exists():
            source, target = incoming.path / unit[0], folder.path / unit[0]
        if source.exists():  # not where its folder was moved
            disk.make_folder(target.parent)
            disk.rename(source, target)


def tail_of(path: Path, end: int) -> int:
    """Return the CRC-32 of the bytes before `end`, by which a journal that was rewritten is known."""
    with open_file(path) as file:
        file.seek(max(0, end - _TAIL))
        return zlib.crc32(file.read(min(end, _TAIL)))


def pieces_of(files: Sequence[ChangedFile]) -> Iterator[list[FilePiece]]:
    """Yield the pieces of files in groups of at most `PIECE` bytes."""
    group: list[FilePiece] = []
    room = PIECE
    for file in files:
        start = file.start
        while start < file.size:
            size = min(room, file.size - start)
            group.append(FilePiece(file.path, start, size))
            start, room = start + size, room - size
            if not room:
                yield group
                group, room = [], PIECE
    if group:
        yield group


def _paths(folder: RunFolder, checkpoints: Checkpoints) -> Iterator[str]:
    """Yield the paths of the files that belong to a run."""
    files, _ = disk.list_content(folder.path)
    names = [path.relative_to(folder.path).as_posix() for path in files if not path.is_symlink()]
    steps: dict[str, str] = {}  # folder of checkpoints -> the last one
    for name in names:
        if match := _STEP.fullmatch(name):
            steps[name.partition("/step-")[0]] = max(steps.get(name.partition("/step-")[0], ""), match[1], key=_number)
    for name in names:
        parts = name.split("/")
        if parts[0].startswith(_OF_THIS_LAB) or any(part.startswith(".") or ".bad" in part for part in parts):
            continue
        if match := _STEP.fullmatch(name):
            is_last = match[1] == steps[name.partition("/step-")[0]]
            if checkpoints == "none" or (checkpoints == "last" and not is_last):
                continue
        yield name


def _number(step: str) -> int:
    return int(step.rpartition("-")[2] or 0)


def _looked_at(folder: RunFolder, file_set: FileSet) -> Iterator[str]:
    """Yield the files that a screen may show."""
    try:
        with os.scandir(folder.path) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError as error:
        raise os_error(error, folder.path, MissingError, doing="cannot read the run") from error
    yield from sorted(name for name in names if not name.startswith((".", "lease", "stop")))
    folders = ["attempts", *(_RESULTS if file_set == "results" else ())]
    paths = [path for name in folders for path in sorted((folder.path / name).rglob("*"))]
    paths += sorted(folder.path.glob("stages/*/adopted.json"))
    for path in paths:
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and ".bad" not in path.name:
            yield path.relative_to(folder.path).as_posix()


def checked_path(path: str) -> str:
    """Return a relative path that leads out of no folder.

    Raises:
        UsageError: it does, or is hidden.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\0" in path or any(part.startswith(".") for part in parts):
        raise UsageError("not a file of a run", where=path[:200], code="path-outside")
    return path


def checked_run(run: str) -> str:
    """Return the id of a run, which leads out of no lab.

    Raises:
        UsageError: it is none.
    """
    if "/" in checked_path(run):
        raise UsageError("not the id of a run", where=run[:200], code="path-outside")
    return run


def received_error(title: str, wrong: Sequence[str]) -> CerankError:
    """Return the error for files that arrived otherwise than they were sent, twice."""
    return DamagedError(
        f"{len(wrong)} files arrived with other bytes than they were sent with, twice; the first is {wrong[0]}",
        where=title,
        hint="does a worker or another program write to the run?",
    )
