"""What answers where the lab is: `cerank lab-server` reads calls from its standard input and writes answers.

Invariant: it does only what the command line there does, with the rights of the user who logged in, and ends when its
input ends; the changes of the lab that were asked for before are made. Nothing but answers goes to the stream that it
got as standard output.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

import cerank
from cerank.app.lab import Lab
from cerank.app.matrix import matrix_planning
from cerank.app.matrix.drafts import DraftRun
from cerank.app.matrix.matrix_planning import PlannedMatrix
from cerank.app.over_ssh import lab_access, lab_messages
from cerank.app.over_ssh.copy_records import RecordsOfRuns
from cerank.app.over_ssh.lab_files import Checkpoints, FilePiece, FileSet, FileToReceive, LabFiles, SeenFile
from cerank.app.over_ssh.lab_messages import BANNER, ErrorText, Greeting, LabAnswer, LabCall, ListAnswer, SentEntry
from cerank.app.run_views import label_runs, run_list, verdict_summaries
from cerank.app.run_views.run_monitor import LabMonitor, RunEntry
from cerank.errors import CerankError, RunFailedError, UsageError
from cerank.files import disk, json_records
from cerank.machine import system_usage
from cerank.runs import test_set_looks, user_labels
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.test_set_looks import Look

_CHANGES = {"act", "label", "note", "looks", "launch"}  # calls that nothing would carry to their end later
_THREADS = 16  # calls that are worked on at once: a plan may take minutes, and the list is asked for meanwhile

Result = tuple[object, bytes]


class LabServer:
    """Answers calls about one lab.

    Args:
        lab: the lab.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.files = LabFiles(lab.folder, lab.settings.cache)
        self._monitor = LabMonitor(lab.folder, lab.queue_state, lab.settings.cache, lab.refresh_jobs)
        self._machine = system_usage.Machine(lab.folder)
        self._sent: dict[str, RunEntry] | None = None  # None before the first list, which has everything
        self._again: set[str] = set()
        self._polling, self._sampling = threading.Lock(), threading.Lock()
        self._sampled = system_usage.Machine(lab.folder)  # apart: shares of time count from the sample before
        self._calls: dict[str, Callable[..., Result]] = {
            "poll": self.poll,
            "sample": self.sample,
            "act": self.act,
            "label": self.label,
            "note": self.note,
            "sizes": self.sizes,
            "bases": lambda: (lab_access.bases_at_hand(), b""),
            "verdicts": self.verdicts,
            "looks": self.looks,
            "plan": self.plan,
            "launch": self.launch,
            "changed": self.changed,
            "named_runs": lambda texts: (self.files.named_runs(texts), b""),
            "listing": self.listing,
            "read": self.read,
            "begin": self.begin,
            "write": self.write,
            "finish": self.finish,
            "records": lambda runs: (self.files.records(runs), b""),
            "keep_records": lambda records: (
                self.files.keep_records(json_records.convert(records, RecordsOfRuns)),
                b"",
            ),
        }

    def answer(self, call: LabCall, data: bytes) -> tuple[LabAnswer, bytes]:
        """Return the answer to a call; an error is one, too."""
        try:
            act = self._calls.get(call.name)
            if act is None:
                raise UsageError(f"there is no call {call.name[:40]}")
            given = {"data": data} if call.name in {"write", "launch", "plan"} else {}
            result, out = act(**call.args, **given)
            return LabAnswer(call.id, msgspec.Raw(msgspec.json.encode(result)), None, len(out)), out
        except CerankError as error:
            return LabAnswer(call.id, error=ErrorText.of(error)), b""
        except Exception as error:  # noqa: BLE001 - the boundary to the other machine, which shows it
            text = f"internal error on {socket.gethostname()}: {type(error).__name__}: {error}"
            return LabAnswer(call.id, error=ErrorText.of(RunFailedError(text[:1000]))), b""

    # looking

    def poll(self, again: Sequence[str] = ()) -> Result:
        """Return which runs there are, with the entries that changed since the last call."""
        with self._polling:
            named, self._again = {*again, *self._again}, set()
            entries = self._monitor.poll(named)
            before = self._sent or {}
            now = {entry.name: entry for entry in entries}
            changed = [SentEntry.of(entry) for entry in entries if before.get(entry.name) is not entry]
            names = None if self._sent is not None and list(before) == list(now) else tuple(now)
            self._sent = now
            answer = ListAnswer(names=names, devices=system_usage.briefly(self._machine.gpus()))
        return answer, lab_messages.packed(changed) if changed else b""

    def changed(self, run: str, known: dict[str, Any], file_set: FileSet) -> Result:
        """Return which files of a run are not as they were last looked at."""
        return self.files.changed(run, json_records.convert(known, dict[str, SeenFile]), file_set), b""

    def sample(self, run: str, is_live: bool) -> Result:
        """Return what this machine does now, with the worker of a run if it is live."""
        with self._sampling:
            return self._sampled.sample(self._folder(run).lease if is_live else None), b""

    def verdicts(self, runs: Sequence[str]) -> Result:
        """Have the verdicts of finished runs computed; the list shows them when they are there."""
        cache, folders = self.lab.settings.cache, [self._folder(run) for run in runs]

        def work() -> None:
            verdict_summaries.compute_in_process(cache, folders)
            with self._polling:
                self._again |= set(runs)

        threading.Thread(target=work, daemon=True).start()
        return None, b""

    def looks(self, rows: Sequence[Any]) -> Result:
        """Record looks at test sets that were taken on the other machine."""
        for row in rows:
            test_set_looks.record(self.lab.folder, json_records.convert(row, Look))
        return None, b""

    def sizes(self, runs: Sequence[str]) -> Result:
        """Return what deleting runs takes with it, in words."""
        names = set(runs)
        return run_list.goes_with([entry for name, entry in (self._sent or {}).items() if name in names]), b""

    # acting

    def act(self, verb: str, run: str, place: int = 0) -> Result:
        """Do to a run what a key of the dashboard asks for."""
        folder = self._folder(run)
        if verb == "stop":
            self.lab.stop(folder)
        elif verb == "resume":
            lab_access.resume(self.lab, folder)
        elif verb == "trash":
            self.lab.trash(folder)
        elif verb == "restore":
            self.lab.restore(folder.name)
        elif verb == "move":
            self.lab.move(folder, place)
        else:
            raise UsageError(f"a run cannot be asked to {verb[:40]}")
        return None, b""

    def label(self, run: str, label: str, tags: str) -> Result:
        """Save a label and tags."""
        label_runs.note(self._folder(run), label, tags)
        return None, b""

    def note(self, run: str, text: str) -> Result:
        """Save the note on a run."""
        user_labels.save_note(self._folder(run), text)
        return None, b""

    def plan(self, device: str, data: bytes) -> Result:
        """Plan the runs of a draft with the data and models of this machine."""
        cells = lab_messages.unpacked(data, tuple[DraftRun, ...])
        settings = self.lab.plan_settings(device)
        matrix = matrix_planning.plan_runs(cells, settings, datetime.now(UTC), lambda _: None)
        return None, lab_messages.packed(matrix)

    def launch(self, data: bytes) -> Result:
        """Put planned runs in the queue and return their names as messages show them."""
        folders = matrix_planning.launch(self.lab, lab_messages.unpacked(data, PlannedMatrix))
        return [folder.name for folder in folders], b""

    # moving files

    def listing(self, run: str, checkpoints: Checkpoints) -> Result:
        """Return the files of a run with their hashes."""
        return self.files.listing(run, checkpoints), b""

    def read(self, run: str, pieces: Sequence[Any]) -> Result:
        """Return the bytes of pieces."""
        return None, self.files.read(run, json_records.convert(pieces, list[FilePiece]))

    def begin(self, run: str, files: Sequence[Any]) -> Result:
        """Prepare to receive a run."""
        disk.make_folder(runs_folder(self.lab.folder))
        return self.files.begin(run, json_records.convert(files, list[FileToReceive])), b""

    def write(self, run: str, pieces: Sequence[Any], data: bytes) -> Result:
        """Write pieces of a run that is being received."""
        self.files.write(run, json_records.convert(pieces, list[FilePiece]), data)
        return None, b""

    def finish(self, run: str, files: Sequence[Any]) -> Result:
        """Check a run that was received and let it appear."""
        return self.files.finish(run, json_records.convert(files, list[FileToReceive])), b""

    def _folder(self, run: str) -> RunFolder:
        return self.files.folder(run)


def serve(lab: Lab, read: BinaryIO, write: BinaryIO) -> None:
    """LabAnswer calls until the input ends."""
    server, writing = LabServer(lab), threading.Lock()
    greeting = Greeting(cerank.__version__, socket.gethostname(), str(lab.folder.absolute()))
    write.write(BANNER + msgspec.json.encode(greeting) + b"\n")
    write.flush()

    unfinished: set[threading.Event] = set()  # of the changes of the lab that were asked for

    def leave() -> None:
        while changes := list(unfinished):
            changes[0].wait()
        os._exit(0)  # what is still computed is for nobody

    def work(call: LabCall, data: bytes, change: threading.Event) -> None:
        try:
            answer, out = server.answer(call, data)
        finally:
            unfinished.discard(change)
            change.set()
        try:
            with writing:
                lab_messages.send(write, answer, out)
        except OSError:  # the line dropped, and nobody reads any more; changes may need this thread
            threading.Thread(target=leave, daemon=True).start()

    with ThreadPoolExecutor(_THREADS) as threads:
        while (received := lab_messages.receive(read, LabCall)) is not None:
            change = threading.Event()
            if received[0].name in _CHANGES:
                unfinished.add(change)
            threads.submit(work, *received, change)
        sys.stderr.flush()
        leave()


def serve_standard_streams(lab: Lab) -> None:
    """LabAnswer on the streams of this process; whatever else prints goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(lab, sys.stdin.buffer, out)
