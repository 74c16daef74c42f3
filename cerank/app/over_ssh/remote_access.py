"""A lab on another machine as the dashboard uses it: its list by messages, the files that a screen shows as copies.

Invariant: every change is made where the lab is, by the cerank there; what lies here is a copy in the cache that may be
deleted at any time, and holds of a run only what a screen has shown.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from cerank.app.lab import Lab
from cerank.app.matrix.drafts import DraftRun
from cerank.app.matrix.matrix_planning import PlannedMatrix
from cerank.app.over_ssh import lab_messages
from cerank.app.over_ssh.lab_access import LabAccess, LookedAt
from cerank.app.over_ssh.lab_files import (
    ChangedFile,
    FileSet,
    SeenFile,
    checked_path,
    checked_run,
    pieces_of,
    tail_of,
)
from cerank.app.over_ssh.lab_messages import ListAnswer, SentEntry
from cerank.app.over_ssh.ssh_connection import LineDroppedError, SshConnection
from cerank.app.run_views import run_list
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import CerankError, HeldError, MissingError
from cerank.files import disk
from cerank.files.lease import Lease
from cerank.machine.system_usage import UsageSample
from cerank.runs import run_names, test_set_looks
from cerank.runs.layout import RunFolder, runs_folder
from cerank.settings import Settings

PLANNING_PATIENCE = 3600.0  # seconds in which the other side opens and hashes what runs read


def mirror_folder(cache: Path, address: str) -> Path:
    """Return the folder of the copies of a lab's files."""
    return cache / "labs-over-ssh" / hashlib.sha256(address.encode()).hexdigest()[:16]


def _take_mirror(folder: Path) -> tuple[Path, Lease]:
    """Return a folder for the copies that no other dashboard uses now, with the lease on it."""
    name, number = folder.name, 1
    while True:
        disk.make_folder(runs_folder(folder))
        try:
            return folder, Lease.take(folder / "mirror-lease")
        except HeldError:
            number += 1
            folder = folder.with_name(f"{name}-{number}")


class RemoteAccess(LabAccess):
    """A lab on another machine.

    Args:
        connection: the line to it, opened once.
        settings: settings of this machine; the cache holds the copies.
    """

    is_remote = True

    def __init__(self, connection: SshConnection, settings: Settings) -> None:
        self._connection = connection
        self.address = str(connection.address)
        self.mirror, self._mirror_lease = _take_mirror(mirror_folder(settings.cache, self.address))
        super().__init__(Lab(msgspec.structs.replace(settings, lab=self.mirror, executor="local"), devices=()))
        self._entries: dict[str, RunEntry] = {}
        self._devices = ""
        self._read_at = ""
        self._seen: dict[str, dict[str, SeenFile]] = {}
        self._copying = threading.Lock()
        self._looks = len(test_set_looks.load(self.mirror))

    @property
    def title(self) -> str:
        """Return the address."""
        return self.address

    @property
    def folder_there(self) -> str:
        """Return the lab's folder on its own machine."""
        return self._connection.address.folder

    def refusal(self, what: str) -> str:
        """Return where to use a part of the dashboard that needs more than the runs."""
        host = self._connection.address.host
        return f"{what} cannot be used over ssh; log in for it: ssh -t {host} cerank tui"

    def close(self) -> None:
        """Close the line."""
        self._connection.close()
        self._mirror_lease.release()

    # looking

    def poll(self, again: Collection[str] = (), followed: Collection[str] = ()) -> LookedAt:
        """Return the runs as the other side has them; the ones that were seen last where it is not reached."""
        try:
            # a line that was opened anew ends at a new server, which sends everything
            args = {"again": sorted(again)}
            answer, data = self._connection.call("poll", args, kind=ListAnswer, patience=120.0)
            self._take(answer, data)
            self._send_looks()
            for name in followed:
                if name in self._entries:
                    with contextlib.suppress(MissingError):  # a file that is rewritten now comes with the next look
                        self.bring([name], "journals")
        except LineDroppedError as error:
            since = f"; this is how it was at {self._read_at}" if self._read_at else ""
            return LookedAt(tuple(self._entries.values()), self._devices, f"{error.what}{since}")
        except CerankError as error:  # the other side refuses, such as a lab whose disk is away
            return LookedAt(tuple(self._entries.values()), self._devices, str(error))
        self._read_at = f"{datetime.now().astimezone():%H:%M:%S}"
        return LookedAt(tuple(self._entries.values()), self._devices)

    def _take(self, answer: ListAnswer, data: bytes) -> None:
        """Take over what changed in the list."""
        changed = self._connection.unpacked(data, list[SentEntry]) if data else []
        entries = self._entries | {sent.name: self._entry(sent) for sent in changed}
        if answer.names is not None:
            entries = {name: entries[name] for name in answer.names if name in entries}
            for folder in runs_folder(self.mirror).iterdir():
                if folder.name not in entries:
                    disk.remove_tree(folder)
                    self._seen.pop(folder.name, None)
        self._entries, self._devices = entries, answer.devices

    def _entry(self, sent: SentEntry) -> RunEntry:
        run = sent.run
        return RunEntry(
            folder=self._folder(sent.name),
            plan=run.plan,
            status=run.status,
            notes=run.notes,
            validation=run.validation,
            finals=run.finals,
            short_name=sent.short_name,
            note=run.note,
            place=sent.place,
            verdict=run.verdict,
            waits_for=sent.waits_for,
            trial=sent.trial,
            kept=run.kept,
        )

    def sample(self, folder: RunFolder, *, is_live: bool) -> UsageSample:
        """Return what the lab's machine does now; an empty sample while it is not reached."""
        try:
            args = {"run": folder.name, "is_live": is_live}
            sample: UsageSample = self._connection.call("sample", args, kind=UsageSample)[0]
        except LineDroppedError:
            return UsageSample()
        return sample

    def bring(self, names: Collection[str], file_set: FileSet) -> None:
        """Copy what changed of the files of runs.

        Raises:
            CerankError: the machine is not reached, or the run is gone.
        """
        for name in names:
            with self._copying:
                self._bring(name, file_set)

    def bring_targets(self, targets: Sequence[str]) -> None:
        """Copy the rankings of the runs that a comparison names, those of all folds where it says so."""
        named = run_list.entries_named(targets, self._entries.values())
        self.bring([entry.name for entry in named], "results")

    def _known_here(self, folder: RunFolder) -> dict[str, SeenFile]:
        """Return the files that an earlier dashboard copied."""
        known = {}
        for path in folder.path.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                state, name = path.stat(), path.relative_to(folder.path).as_posix()
                known[name] = SeenFile(state.st_size, state.st_mtime_ns, tail_of(path, state.st_size))
        return known

    def _bring(self, name: str, file_set: FileSet) -> None:
        if name not in self._seen:
            self._seen[name] = self._known_here(self._folder(name))
        known = self._seen[name]
        args = {"run": name, "known": msgspec.to_builtins(known), "file_set": file_set}
        kind = tuple[tuple[ChangedFile, ...], tuple[str, ...]]
        (changed, gone), _ = self._connection.call("changed", args, kind=kind)
        folder = self._folder(name)
        disk.make_folder(folder.path)
        for path in gone:
            checked_path(path)  # as with what is written: nothing outside the copy is deleted
            if known.pop(path, None) is not None:
                (folder.path / path).unlink(missing_ok=True)
        self._copy(folder, changed, known)
        self._name(folder)

    def _copy(self, folder: RunFolder, changed: Sequence[ChangedFile], known: dict[str, SeenFile]) -> None:
        for file in changed:
            checked_path(file.path)  # whatever runs on the other machine, nothing is written outside the copy
        parts = {file.path: _part_of(folder, file) for file in changed}
        for file in changed:
            parts[file.path].parent.mkdir(parents=True, exist_ok=True)
            with parts[file.path].open("ab" if file.start else "wb") as out:
                out.truncate(file.start)
        for pieces in pieces_of(changed):
            args = {"run": folder.name, "pieces": msgspec.to_builtins(pieces)}
            _, data = self._connection.call("read", args, patience=300.0)
            at = 0
            for piece in pieces:
                with parts[piece.path].open("ab") as out:
                    out.write(data[at : at + piece.size])
                at += piece.size
        for file in changed:
            path = folder.path / file.path
            if parts[file.path] != path:
                parts[file.path].replace(path)
            os.utime(path, ns=(time.time_ns(), file.mtime))
            known[file.path] = SeenFile(file.size, file.mtime, tail_of(path, file.size))

    def _name(self, folder: RunFolder) -> None:
        """Record the short name that the run has where the lab is: here the other runs may be missing."""
        entry = self._entries.get(folder.name)
        if entry is not None and run_names.recorded(folder) != entry.short_name:
            run_names.cached_names[folder.path] = entry.short_name

    def bases_at_hand(self) -> tuple[dict[str, bool], bool]:
        """Return which base models are on the other machine's disk, and whether it can download none."""
        bases: tuple[dict[str, bool], bool] = self._connection.call("bases", kind=tuple[dict[str, bool], bool])[0]
        return bases

    def compute_verdicts(self, folders: Sequence[RunFolder], is_canceled: Callable[[], bool]) -> None:  # noqa: ARG002
        """Have the verdicts of finished runs computed where the lab is; the list shows them later."""
        with contextlib.suppress(LineDroppedError):
            self._connection.call("verdicts", {"runs": [folder.name for folder in folders]})

    def sizes(self, entries: Sequence[RunEntry]) -> str:
        """Return what deleting runs takes with it, in words."""
        return str(self._connection.call("sizes", {"runs": [entry.name for entry in entries]}, kind=str)[0])

    def _send_looks(self) -> None:
        """Record at the lab which comparisons were looked at here."""
        looks = test_set_looks.load(self.mirror)
        if len(looks) > self._looks:
            self._connection.call("looks", {"rows": msgspec.to_builtins(looks[self._looks :])})
        self._looks = len(looks)

    # acting

    def stop(self, folder: RunFolder) -> None:
        """Ask a run's worker to stop, or take the run out of the queue."""
        self._act("stop", folder.name)

    def resume(self, folder: RunFolder) -> None:
        """Put a run in the queue, or submit it again."""
        self._act("resume", folder.name)

    def trash(self, folder: RunFolder) -> None:
        """Move a run to the trash."""
        self._act("trash", folder.name)

    def restore(self, name: str) -> None:
        """Bring a run back from the trash."""
        self._act("restore", name)

    def move(self, folder: RunFolder, place: int) -> None:
        """Give a queued run another place."""
        self._connection.call("act", {"verb": "move", "run": folder.name, "place": place})

    def save_label(self, folder: RunFolder, label: str, tags: str) -> None:
        """Save a label and tags."""
        self._connection.call("label", {"run": folder.name, "label": label, "tags": tags})

    def save_note(self, folder: RunFolder, text: str) -> None:
        """Save the note on a run."""
        self._connection.call("note", {"run": folder.name, "text": text})

    def plan(self, cells: Sequence[DraftRun], device: str) -> PlannedMatrix:
        """Plan the runs of a draft with the data and models of the other machine."""
        data = lab_messages.packed(tuple(cells))
        _, planned = self._connection.call("plan", {"device": device}, data=data, patience=PLANNING_PATIENCE)
        matrix: PlannedMatrix = self._connection.unpacked(planned, PlannedMatrix)
        return matrix

    def launch(self, matrix: PlannedMatrix) -> list[str]:
        """Put planned runs in the queue there and return their ids."""
        data = lab_messages.packed(matrix)
        names: list[str] = self._connection.call("launch", data=data, kind=list[str], patience=300.0)[0]
        return names

    def shown_name(self, run: str) -> str:
        """Return the short name of a run, where the list has it already."""
        return self._entries[run].title if run in self._entries else run

    def _act(self, verb: str, run: str) -> None:
        self._connection.call("act", {"verb": verb, "run": run}, patience=120.0)

    def _folder(self, name: str) -> RunFolder:
        return RunFolder(runs_folder(self.mirror) / checked_run(name))


def _part_of(folder: RunFolder, file: ChangedFile) -> Path:
    """Return where a file arrives: behind what is here of it, or beside it."""
    path = folder.path / file.path
    return path if file.start else path.with_name(f".{path.name}.part")
