"""`python -m cerank.app.tracking.waiting_trackers RUN_DIR ATTEMPTS ...`: start the trackers of runs once they begin.

One process waits for all runs that one command queued or submitted, on the machine where the command was given, with
its environment: that is where the user has logged in to a tracker, and a node of a cluster may reach no network.

Invariant: a run that is removed, or at two looks in a row will not start by itself, is waited for no longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cerank.app.tracking import track_run, tracking_process
from cerank.app.tracking.tracking_process import Process, TrackingRequest
from cerank.errors import CerankError, RunFailedError, os_error
from cerank.executors import polling
from cerank.files import disk, lease
from cerank.runs import run_store
from cerank.runs.layout import RunFolder, slug

POLL_SECONDS = 3.0
_COMING = {"queued", "running", "stopping"}  # states of a run of which a next attempt may come by itself

Launch = Callable[[RunFolder, int], list[Process]]


def attempts_of(folder: RunFolder) -> int:
    """Return how many attempts of a run were started: what is asked for before it is queued again."""
    return max(folder.attempt_numbers(), default=0)


def start_when_they_begin(runs: Mapping[Path, int], request: TrackingRequest | None = None) -> Process | None:
    """Start a process that starts the trackers of queued or submitted runs, each as the run begins.

    Args:
        runs: folder of each run -> attempts that it had before it was queued.
        request: the trackers; None for those that each run had before.

    Raises:
        RunFailedError: a run's folder is gone or full, or the system takes no more processes.
    """
    if request is not None:
        for path in runs if request.kinds else ():
            tracking_process.save_request(RunFolder(path), request)
        waiting = dict(runs) if request.kinds else {}
    else:
        waiting = {path: count for path, count in runs.items() if _is_tracked(RunFolder(path))}
    if not waiting:
        return None
    words = [word for path, count in waiting.items() for word in (str(path.resolve()), str(count))]
    place = RunFolder(next(iter(waiting))).lab.resolve() / "trackers"
    disk.make_folder(place)
    log = disk.open_append(place / "waiting.log")
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cerank.app.tracking.waiting_trackers", *words],
            stdin=subprocess.DEVNULL,
            stdout=log.descriptor,
            stderr=subprocess.STDOUT,
            cwd=place,
            start_new_session=True,
        )
    except OSError as error:
        raise os_error(error, "trackers", RunFailedError, doing="cannot start the process that waits") from error
    finally:
        disk.close(log)


def _is_tracked(folder: RunFolder) -> bool:
    """Return whether the run has trackers that no process is at work for."""
    return any(
        record is not None and not lease.is_held(folder.trackers / f"{slug(record.kind)}.lease")
        for record in (track_run.load_record(folder, path.stem) for path in folder.trackers.glob("*.json"))
    )


def wait(
    runs: Mapping[Path, int],
    *,
    launch: Launch = tracking_process.start_again,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Start the trackers of each run once it has a further attempt; return when none is left that may get one.

    Args:
        runs: folder of each run -> attempts that do not count.
        launch: starts the trackers of a run, with the number of attempts that had ended.
        sleep: called between two looks.
    """
    left, started = {RunFolder(path): count for path, count in runs.items()}, list[Process]()
    doubtful = set[RunFolder]()  # a run that begins or ends just now may look for a moment as if it were given up
    while True:
        for lab in {folder.lab for folder in left}:
            polling.refresh(lab)
        for folder, before in list(left.items()):
            if attempts_of(folder) > before:
                del left[folder]
                try:
                    started += launch(folder, before)
                except CerankError as error:  # its folder is gone, or the disk is full: the next may work
                    print(f"{folder.name}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - its log
            elif not folder.path.is_dir():
                del left[folder]
            elif run_store.status(folder, datetime.now(UTC)).state in _COMING:
                doubtful.discard(folder)
            elif folder in doubtful:
                del left[folder]
            else:
                doubtful.add(folder)
        started = [process for process in started if process.poll() is None]  # so that none stays as a zombie
        if not left:
            return
        sleep(POLL_SECONDS)


def main() -> None:
    """Wait for the runs that the arguments name, at low priority."""
    os.nice(10)
    words = sys.argv[1:]
    wait({Path(path): int(count) for path, count in zip(words[::2], words[1::2], strict=True)})


if __name__ == "__main__":
    main()
