"""The queue of a lab: which runs start next, in what order, and which run each device was assigned to.

Invariant: each change is made under one lock and lands whole. An entry is a request, never a state: it is consumed once
its run was started after it was queued, whoever started it, so that no entry starts a run twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from cerank.core.metrics import Event
from cerank.errors import HeldError, UsageError
from cerank.files import disk, journal, json_records, lease
from cerank.files.disk import DamagedError
from cerank.files.lease import Lease
from cerank.runs.layout import QueueFolder, RunFolder

PATIENCE = 10.0  # seconds; a change takes milliseconds, so a lock held for longer belongs to a process that hangs


class QueueEntry(msgspec.Struct, frozen=True):
    """A run that waits for a device."""

    run: str  # its name
    starts: int  # how often it had been started when it was queued
    time: str  # UTC, ISO 8601


class Queue(msgspec.Struct, frozen=True):
    """The content of queue.json: the waiting runs, in the order in which they start."""

    entries: tuple[QueueEntry, ...] = ()


class DeviceAssignment(msgspec.Struct, frozen=True):
    """The run that a device was given to; true as long as the slot's lock is held."""

    run: str


# query


def entries(lab: Path) -> tuple[QueueEntry, ...]:
    """Return the entries in order, including consumed ones.

    Raises:
        DamagedError: the file is unreadable.
    """
    path = QueueFolder(lab).entries
    try:
        queue = json_records.load_if_there(path, Queue)
    except DamagedError as error:
        hint = "delete the file; the runs in it are intact and can be queued again"
        raise DamagedError(error.what, where=error.where, hint=hint) from error
    return queue.entries if queue else ()


def entries_or_none(lab: Path) -> tuple[QueueEntry, ...]:
    """Return the entries in order; none if the file is unreadable, which those who change the queue report."""
    try:
        return entries(lab)
    except DamagedError:
        return ()


def starts_in(events: Sequence[Event]) -> int:
    """Count how often a run was started, according to its events."""
    return sum(event.kind == "started" for event in events)


def is_consumed(entry: QueueEntry, events: Sequence[Event]) -> bool:
    """Return whether the run was started after it was queued."""
    return starts_in(events) > entry.starts


def _starts(folder: RunFolder) -> int:
    return starts_in(journal.read_valid_rows(folder.events, Event)[0])


# update


@contextlib.contextmanager
def locked(lab: Path) -> Iterator[None]:
    """Hold the queue's lock: what is read and written during the `with` block belongs together.

    Raises:
        HeldError: another process has been changing it for 10 seconds.
        RunFailedError: the lab cannot be written to.
    """
    files = QueueFolder(lab)
    disk.make_folder(files.path)
    with _lock(files.lock):
        yield


def _lock(path: Path) -> Lease:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return Lease.take(path)  # itself waits some milliseconds
        except HeldError as error:
            if time.monotonic() > deadline:
                what = f"another process is changing the queue: {error.what}"
                raise HeldError(what, where=str(path), hint="it seems to hang; check that process") from error


def _save(lab: Path, remaining: Sequence[QueueEntry]) -> None:
    json_records.save(QueueFolder(lab).entries, Queue(tuple(remaining)))


def add(folder: RunFolder, now: datetime) -> None:
    """Put the run at the end of its lab's queue; one that waits there already keeps its place.

    Raises:
        DamagedError, HeldError, RunFailedError: the queue cannot be read, or not be changed.
    """
    with locked(folder.lab):
        before = entries(folder.lab)
        starts = _starts(folder)
        if any(entry.run == folder.name and entry.starts == starts for entry in before):
            return
        remaining = [entry for entry in before if entry.run != folder.name]
        _save(folder.lab, [*remaining, QueueEntry(folder.name, starts, json_records.timestamp(now))])


def move(folder: RunFolder, place: int) -> None:
    """Give the run another place, from 1; one beyond an end is that end.

    Raises:
        UsageError: it is not in the queue.
        DamagedError, HeldError, RunFailedError: the queue cannot be read, or not be changed.
    """
    with locked(folder.lab):
        before = list(entries(folder.lab))
        own = [entry for entry in before if entry.run == folder.name]
        if not own:
            hint = "`cerank queue` lists what is"
            raise UsageError("the run is not in the queue", where=folder.name, hint=hint, code="not-queued")
        remaining = [entry for entry in before if entry.run != folder.name]
        remaining.insert(max(0, place - 1), own[0])
        if remaining != before:
            _save(folder.lab, remaining)


def remove(lab: Path, runs: Sequence[str]) -> None:
    """Take the runs of these names out of the queue, as far as they are in it.

    Raises:
        DamagedError, HeldError, RunFailedError: the queue cannot be read, or not be changed.
    """
    if not QueueFolder(lab).entries.exists():
        return
    with locked(lab):
        replace_entries(lab, [entry for entry in entries(lab) if entry.run not in runs])


def replace_entries(lab: Path, remaining: Sequence[QueueEntry]) -> None:
    """Replace the queue's entries; call it only within `locked`, with entries that were read there."""
    if tuple(remaining) != entries(lab):
        _save(lab, remaining)


# slots: which device is in use


def take_device(lab: Path, key: str, run: str) -> Lease | None:
    """Take the lock of a device for a run, and record the run beside it; None if a live worker holds it.

    The lock is meant to be inherited by the worker: then it ends with the worker, whatever becomes of its launcher.
    """
    files = QueueFolder(lab)
    disk.make_folder(files.slot(key).parent)
    try:
        slot = Lease.take(files.slot(key))
    except HeldError:
        return None
    try:
        json_records.save(files.assignment(key), DeviceAssignment(run))
    except BaseException:
        slot.release()
        raise
    return slot


def run_on_device(lab: Path, key: str) -> str:
    """Return the name of the run whose worker holds the device's lock; "" if it is free."""
    files = QueueFolder(lab)
    if not lease.is_held(files.slot(key)):
        return ""
    try:
        assignment = json_records.load_if_there(files.assignment(key), DeviceAssignment)
    except DamagedError:
        assignment = None
    return assignment.run if assignment else "?"
