"""A quick worker: it takes the real lease, says that it started, beats, and ends as its run's label asks.

While it works it holds the file `busy-DEVICE` in the lab, and a second one that finds it there leaves `overlap`.

Label "quick": it finishes at once. "hold": it finishes when the file `release` appears in the lab, and pauses at a
stop request. "fail": it ends with a failure. "mute": it dies before it says anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cerank.core.metrics import Event, Progress
from cerank.errors import ExitCode, HeldError
from cerank.files import json_records
from cerank.files.journal import Journal
from cerank.files.lease import Lease
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt, Done, Failure

BUSY = f"busy-{os.environ.get('CUDA_VISIBLE_DEVICES', 'cpu')}"


def main() -> int:
    folder = RunFolder(Path(sys.argv[1]))
    label = run_store.load_plan(folder).label
    if label == "mute":
        return 9
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        with Lease.take(folder.lease, datetime.now(UTC)), Journal(folder.events, Event) as events, alone(folder.lab):
            return carried_out(folder, label, events, asked)
    except HeldError:
        return ExitCode.HELD


@contextlib.contextmanager
def alone(lab: Path) -> Iterator[None]:
    """In the lab, and among all that share their devices."""
    places = [place for place in (lab, Path(os.environ.get("CERANK_DEVICES", "/absent"))) if place.is_dir()]
    for place in places:
        try:
            (place / BUSY).touch(exist_ok=False)
        except FileExistsError:
            (place / "overlap").touch()
    yield
    for place in places:
        (place / BUSY).unlink(missing_ok=True)


def carried_out(folder: RunFolder, label: str, events: Journal[Event], asked: list[int]) -> int:
    time_now = json_records.timestamp(datetime.now(UTC))
    number = len(folder.attempt_numbers()) + 1
    where = f"pid {os.getpid()} CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}"
    events.append(Event("started", where, time_now, number))
    events.sync()
    run_store.clear_stop(folder)
    run_store.clear_failure(folder)
    json_records.save(folder.progress, Progress("train", attempt=number))
    json_records.save(folder.attempt(number), Attempt(number=number, started=time_now))
    deadline = time.monotonic() + 600
    while label.startswith("hold") and not (folder.lab / "release").exists() and time.monotonic() < deadline:
        if asked or folder.stop.exists():
            events.append(Event("paused", "", time_now, number))
            return ExitCode.PAUSED
        time.sleep(0.02)
    if label == "fail":
        json_records.save(folder.failure, Failure(kind="RunFailedError", what="as asked"))
        return ExitCode.FAILED
    json_records.save(folder.done, Done(time=time_now, attempt=number))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
