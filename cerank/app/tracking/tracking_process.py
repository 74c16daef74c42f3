"""`python -m cerank.app.tracking.tracking_process RUN_DIR TRACKER ATTEMPTS`: send one run to one tracker.

Invariant: whatever the tracker's library does, raise, block or exit, only this process suffers it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cerank.app.tracking import track_run
from cerank.app.tracking.track_run import TrackingRecord
from cerank.errors import CerankError, ExitCode, HeldError, RunFailedError, UsageError, os_error
from cerank.files import disk
from cerank.files.lease import Lease
from cerank.runs import run_store
from cerank.runs.layout import RunFolder, slug
from cerank.text.safe_text import redacted
from cerank.tracking.tracker import PROJECT, MetricRow, Outcome, Tracker
from cerank.tracking.trackers import TRACKERS, check_project, check_tracker

PATIENCE_VARIABLE = "CERANK_TRACKER_PATIENCE"  # seconds that one call of a tracker's library may take
PATIENCE = 600.0
_LONGEST_REASON = 500  # characters

Process = subprocess.Popen[bytes]


class TrackingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The trackers that a run is sent to."""

    kinds: tuple[str, ...] = ()
    project: str = ""  # "" takes that of an earlier tracking of the run, else "cerank"
    is_offline: bool = False


def check_request(request: TrackingRequest, where: str) -> None:
    """Check everything that can be known before a run starts.

    Raises:
        UsageError: a tracker is unknown, twice, or not installed; or a project has a name that is none.
    """
    for kind in request.kinds:
        check_tracker(kind, where)
    if len(set(request.kinds)) < len(request.kinds):
        raise UsageError("a tracker is named twice", where=where, code="name-twice")
    if request.project:
        check_project(request.project, "--track-project")
    if not request.kinds and (request.project or request.is_offline):
        what = "--track-project and --track-offline only work with --track"
        raise UsageError(what, where="--track", hint=f"--track takes {', '.join(sorted(TRACKERS))}")


def log_file(folder: RunFolder, kind: str) -> Path:
    """Return the file with everything that a tracker's library printed."""
    return folder.trackers / f"{slug(kind)}.log"


def start(folder: RunFolder, request: TrackingRequest, *, after_attempt: int = 0) -> list[Process]:
    """Start a process for each tracker, and return at once; it ends by itself when the run has ended or stopped.

    Args:
        folder: the run.
        request: the trackers.
        after_attempt: number of attempts that have ended, where the run was just resumed.

    Raises:
        RunFailedError: the run's folder is gone or full, or the system takes no more processes.
    """
    save_request(folder, request)
    return [_start_process(folder, kind, after_attempt) for kind in request.kinds]


def save_request(folder: RunFolder, request: TrackingRequest) -> None:
    """Record which trackers a run is to be sent to; what was sent to the same place before stays recorded.

    Raises:
        RunFailedError: the disk refuses.
    """
    for kind in request.kinds:
        before = track_run.load_record(folder, kind)
        project = request.project or (before.project if before is not None else PROJECT)
        record = TrackingRecord(kind=kind, project=project, is_offline=request.is_offline)
        if before is not None and (before.project, before.is_offline) == (project, request.is_offline):
            record = msgspec.structs.replace(before, is_over=False, failure="")  # the rest, to the same place
        track_run.save_record(folder, record)


def start_again(folder: RunFolder, after_attempt: int) -> list[Process]:
    """Start the trackers again that a run had before it was stopped; the run was just resumed."""
    processes: list[Process] = []
    for path in sorted(folder.trackers.glob("*.json")):
        record = track_run.load_record(folder, path.stem)
        if record is not None:
            request = TrackingRequest(kinds=(record.kind,), project=record.project, is_offline=record.is_offline)
            processes += start(folder, request, after_attempt=after_attempt)
    return processes


def _start_process(folder: RunFolder, kind: str, after_attempt: int) -> Process:
    command = [sys.executable, "-P", "-m", "cerank.app.tracking.tracking_process", str(folder.path.resolve()), kind]
    log = disk.open_append(log_file(folder, kind))
    try:
        return subprocess.Popen(
            [*command, str(after_attempt)],
            stdin=subprocess.DEVNULL,
            stdout=log.descriptor,
            stderr=subprocess.STDOUT,
            cwd=folder.trackers,
            start_new_session=True,
        )
    except OSError as error:
        raise os_error(error, folder.name, RunFailedError, doing="cannot start a tracker's process") from error
    finally:
        disk.close(log)


class GuardedTracker:
    """A tracker whose calls may take so long and no longer: where one blocks, `on_block` is called by another thread.

    Args:
        opening: returns the tracker; it is called under the guard, too.
        patience: seconds that a call may take.
        on_block: called with a sentence; it should end the process, for the call cannot be ended.
    """

    def __init__(self, opening: Callable[[], Tracker], patience: float, on_block: Callable[[str], None]) -> None:
        self._patience, self._on_block = patience, on_block
        self._call = "", 0.0  # name and time of the call at work
        self._is_closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="tracker guard").start()
        self._tracker: Tracker = self._guarded("open", opening)
        self.tracker_id, self.where = self._tracker.tracker_id, self._tracker.where

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Send values."""
        self._guarded("log", self._tracker.log, rows)

    def result(self, *result: Any) -> None:
        """Send the result."""
        self._guarded("result", self._tracker.result, *result)

    def close(self, outcome: Outcome) -> None:
        """Close the tracker."""
        self._guarded("close", self._tracker.close, outcome)
        self._is_closed.set()

    def _guarded(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self._call = name, time.monotonic()
        try:
            return function(*arguments)
        finally:  # one that raised does not block
            self._call = "", 0.0

    def _watch(self) -> None:
        while not self._is_closed.wait(min(1.0, self._patience / 4)):
            name, since = self._call
            if name and time.monotonic() - since > self._patience:
                self._on_block(f"no answer to '{name}' within {self._patience:g} s")
                return


def track(folder: RunFolder, kind: str, after_attempt: int, environ: Mapping[str, str]) -> ExitCode:
    """Send a run to a tracker and record how that ended; never raises what a tracker's library raised."""
    request_record = track_run.load_record(folder, kind)
    if request_record is None:
        print(f"{folder.name}: tracking by {kind} was not asked for", file=sys.stderr)  # noqa: T201 - its log
        return ExitCode.USAGE
    try:
        patience = max(0.01, float(environ.get(PATIENCE_VARIABLE, PATIENCE)))
    except ValueError:
        patience = PATIENCE

    def failed(reason: str) -> None:
        reason = redacted(reason)[:_LONGEST_REASON]
        print(f"tracking failed: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - its log
        newest = track_run.load_record(folder, kind) or request_record
        with contextlib.suppress(RunFailedError):  # the run was removed at this moment, or the disk is full
            track_run.save_record(folder, msgspec.structs.replace(newest, is_over=True, failure=reason))

    def blocked(reason: str) -> None:
        failed(reason)
        os._exit(ExitCode.FAILED)  # the call that blocks cannot be ended otherwise

    try:
        with Lease.take(folder.trackers / f"{slug(kind)}.lease", datetime.now(UTC)):
            run = track_run.tracked_run(folder, run_store.load_plan(folder))
            to = track_run.destination(folder, request_record)
            tracker = GuardedTracker(lambda: TRACKERS.find(kind)(run, to), patience, blocked)
            record = msgspec.structs.replace(request_record, tracker_id=tracker.tracker_id, where=tracker.where)
            record = track_run.save_record(folder, record)
            track_run.follow(folder, record, tracker, after_attempt=after_attempt)
    except HeldError:
        print(f"another process sends {folder.name} to {kind}", file=sys.stderr)  # noqa: T201 - its log
        return ExitCode.HELD
    except CerankError as error:
        failed(str(error))
        return error.exit_code
    except BaseException as error:  # noqa: BLE001 - a library may raise anything, SystemExit included
        import traceback

        traceback.print_exc()
        failed(f"{type(error).__name__}: {error}")
        return ExitCode.FAILED
    return ExitCode.OK


def main() -> None:
    """Track the run that the arguments name, at low priority; no thread of a library keeps the process alive."""
    os.nice(10)
    code = track(RunFolder(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
