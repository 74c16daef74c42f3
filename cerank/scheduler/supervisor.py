"""`python -m cerank.scheduler.supervisor LAB`: starts the queued runs of a lab in order, one on each free device.

A run on several devices takes all of them at once. Until they are free, later runs leave free ones of its kind to it.

Invariant: it may be killed at any moment. What it must know after that is in locks that its workers inherit and in the
runs' own files: a device is taken as long as a worker lives, and an entry is dropped once its run says it was started.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.core.metrics import Event
from cerank.errors import CerankError, ExitCode, HeldError
from cerank.files import disk, journal, json_records
from cerank.files.disk import DamagedError
from cerank.files.lease import Lease
from cerank.machine import device_locks, devices, process_environment
from cerank.machine.devices import Device
from cerank.recipes.plan import Plan
from cerank.runs import queue, run_store
from cerank.runs.layout import QueueFolder, RunFolder, runs_folder
from cerank.runs.queue import QueueEntry
from cerank.scheduler import local_launcher, queue_status


class StageDependencies:
    """The stages that earlier runs are going to finish; a queued run that shares one of them waits for it.

    Invariant: a run waits only for runs that are running or come before it in the queue, so no two wait for each other;
    and only as long as these runs may still finish the stage.

    Args:
        lab: folder of the lab's runs.
        under_way: names of the runs whose workers are alive.
    """

    def __init__(self, lab: Path, under_way: Iterable[str]) -> None:
        self._lab = lab
        self._coming: set[str] = set()
        for run in under_way:
            self.add(run)

    def can_start(self, run: str) -> bool:
        """Return whether no earlier run is going to train a stage that this run could reuse.

        A stage's key includes its predecessors, so checking the keys is enough.
        """
        lacking, shares = self._missing_stages(run)
        return not shares or self._coming.isdisjoint(lacking)

    def add(self, run: str) -> None:
        """Add a run that comes before those asked about from now on."""
        self._coming |= set(self._missing_stages(run)[0])

    def _missing_stages(self, run: str) -> tuple[list[str], bool]:
        """Return the keys of the stages that the run has not finished, and whether it may reuse stages."""
        from cerank.planning.stage_keys import (
            stage_keys,  # the command line imports this module and needs no datasets
        )

        folder = RunFolder(runs_folder(self._lab) / run)
        try:
            plan = run_store.load_plan(folder)
            keys = zip(stage_keys(plan), plan.recipe.chain, strict=True)
            missing = [key for at, (key, name) in enumerate(keys) if not folder.final(at, name).is_dir()]
            return missing, plan.shares
        except (CerankError, KeyError):
            return [], False  # the attempt to start the run will report the error


POLL_SECONDS = 0.5  # seconds between checks of the workers and the queue's file
REFRESH_SECONDS = 2.0  # seconds between checks of all runs, some 30 us each
_LONGEST_LOG = 1 << 20  # bytes


class WorkerProcess(msgspec.Struct, frozen=True):
    """A worker that this process started, and what for."""

    entry: QueueEntry
    devices: tuple[Device, ...]
    process: local_launcher.Process


class Supervisor:
    """The scheduler of one lab's queue.

    Args:
        lab: folder of the lab whose queue is worked off.
        available: the devices to use, each for one run at a time.
        command: the program that carries out a run, with its arguments.
        environ: the environment from which workers get selected variables.
    """

    def __init__(
        self, lab: Path, available: Sequence[Device], command: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        self.lab, self.devices, self.command, self.environ = lab, tuple(available), tuple(command), dict(environ)
        self.children: list[WorkerProcess] = []
        self._device_names: dict[str, tuple[str, ...]] = {}  # run -> its plan's devices
        self._logged: set[str] = set()
        self._seen = (-1, -1)
        self._look_at = 0.0

    def serve(self, own: Lease) -> None:
        """Start runs until none is left to start or to wait for; `own` is released in the same moment."""
        while not self.finish_if_idle(own):
            self.step()
            time.sleep(POLL_SECONDS)

    def finish_if_idle(self, own: Lease) -> bool:
        """Release the lease if nothing is left to do; under the queue's lock, so that no new entry is overlooked."""
        if self.children or self._startable():
            return False
        with queue.locked(self.lab):
            if self._startable():
                return False
            own.release()
            return True

    def _startable(self) -> list[QueueEntry]:
        """Return the entries that a device here could carry out, now or later."""
        return [
            entry
            for entry in queue.entries(self.lab)
            if not self._requested_devices(entry) or self._fits_somewhere(entry)
        ]

    def step(self) -> None:
        """Collect workers that ended, drop consumed entries, and start what fits on a free device.

        If no worker ended and the queue did not change, it checks the runs only every 2 seconds: a run that
        was started otherwise may have left its device.
        """
        ended = self._reap_workers()
        version = self._version()
        if not ended and version == self._seen and time.monotonic() < self._look_at:
            return
        with queue.locked(self.lab):
            remaining = [
                entry for entry in queue.entries(self.lab) if entry not in ended and not self._is_consumed(entry)
            ]
            queue.replace_entries(self.lab, remaining)
            has_started = self._start_from(remaining)
        self._seen = version
        self._look_at = time.monotonic() + (0.0 if has_started else REFRESH_SECONDS)

    def _version(self) -> tuple[int, int]:
        """Return a value that changes whenever the queue's file does; each change makes a new file."""
        try:
            state = QueueFolder(self.lab).entries.stat()
        except FileNotFoundError:
            return (0, 0)
        return (state.st_ino, state.st_mtime_ns)

    def _reap_workers(self) -> list[QueueEntry]:
        """Return the entries whose workers, started here, have ended."""
        over = [child for child in self.children if child.process.poll() is not None]
        for child in over:
            log_line(f"{child.entry.run} on {_names(child.devices)} ended with {child.process.returncode}")
        self.children = [child for child in self.children if child not in over]
        return [child.entry for child in over]

    def _is_consumed(self, entry: QueueEntry) -> bool:
        folder = self._folder(entry)
        if not folder.path.is_dir() or folder.done.exists():
            return True
        return queue.is_consumed(entry, journal.read_valid_rows(folder.events, Event)[0])

    def _folder(self, entry: QueueEntry) -> RunFolder:
        return RunFolder(runs_folder(self.lab) / entry.run)

    def _requested_devices(self, entry: QueueEntry) -> tuple[str, ...]:
        """Return the devices of the entry's plan, which never change; () if the plan is unreadable.

        All processes on the CPU share it, so that it is one device here.
        """
        if entry.run not in self._device_names:
            try:
                plan = run_store.load_plan(self._folder(entry))
            except CerankError:
                return ()
            names = plan.devices or (plan.device,)
            self._device_names[entry.run] = names[:1] if names[0] == "cpu" else names
        return self._device_names[entry.run]

    def _start_from(self, entries: Sequence[QueueEntry]) -> bool:
        """Start each entry, in order, for which its devices are free; return whether any was started."""
        in_use = queue_status.on_devices(self.lab, self.devices)
        under_way = {*in_use, *(child.entry.run for child in self.children)}
        waiting = [entry for entry in entries if entry.run not in under_way]
        self._log_other_labs(waiting)
        # a plan for any GPU leaves those that others ask for by number to them, as far as it has the choice
        named = {name for entry in waiting for name in self._requested_devices(entry)}
        free = [device for device, run in zip(self.devices, in_use, strict=True) if not run]
        free.sort(key=lambda device: device.name in named)
        has_started = False
        dependencies = StageDependencies(self.lab, [run for run in under_way if run])
        for entry in waiting:
            if not free:
                break
            can_start = dependencies.can_start(entry.run)
            taken = self._start(entry, free) if can_start else ()
            has_started = has_started or bool(taken)
            names = self._requested_devices(entry)
            if can_start and not taken and len(names) > 1 and self._fits_somewhere(entry):
                # it takes all at once: what is free is kept for it, or runs on one device would overtake it for ever
                taken = tuple(device for device in free if any(devices.fits(name, device) for name in names))
            free = [device for device in free if device not in taken]
            if self._fits_somewhere(entry):
                dependencies.add(entry.run)
        return has_started

    def _log_other_labs(self, waiting: Sequence[QueueEntry]) -> None:
        """Log once for each device that a run of another lab blocks it."""
        for device in self.devices:
            other = queue_status.run_of_other_lab(self.lab, device) if waiting else ""
            text = f"waiting for {device.name}, which {other} uses"
            if other and text not in self._logged:
                self._logged.add(text)
                log_line(text)

    def _fits_somewhere(self, entry: QueueEntry) -> bool:
        names = self._requested_devices(entry)
        return bool(names) and bool(devices.assign(names, self.devices))

    def _start(self, entry: QueueEntry, free: Sequence[Device]) -> tuple[Device, ...]:
        """Start the entry's run on the first free devices that fit; return them, or () if it must wait.

        Raises:
            RunFailedError: the disk or the system refuses. The entry stays, and the queue stops: the next would meet
                the same.
        """
        folder = self._folder(entry)
        try:
            plan = run_store.load_plan(folder)
            names = self._requested_devices(entry)
            left = list(free)
            while chosen := devices.assign(names, left):
                slots = self._take_slots(entry, chosen)
                if slots and self._start_on(entry, plan, chosen, slots):
                    return chosen
                left = [device for device in left if device != chosen[0]]
        except CerankError as error:
            if folder.path.is_dir() and not isinstance(error, DamagedError):
                raise
            log_line(f"{entry.run} cannot be started: {error}")
            queue.replace_entries(self.lab, [other for other in queue.entries(self.lab) if other != entry])
        return ()

    def _take_slots(self, entry: QueueEntry, chosen: Sequence[Device]) -> list[Lease]:
        """Take the queue's locks of all these devices, or of none."""
        slots: list[Lease] = []
        for device in chosen:
            slot = queue.take_device(self.lab, device.key, entry.run)
            if slot is None:
                for taken in slots:
                    taken.release()
                return []
            slots.append(slot)
        return slots

    def _lock_devices(self, entry: QueueEntry, chosen: Sequence[Device], own: list[device_locks.DeviceLock]) -> str:
        """Add the machine-wide locks of the devices to `own`; return who has one of them, "" if nobody does."""
        for device in sorted(chosen, key=lambda device: device.key):  # in the order in which every worker takes them
            lock = device_locks.acquire(device.key, self.lab, entry.run)
            if isinstance(lock, device_locks.LockOwner) and not lock.is_of(self.lab):
                return f"{device.name}, which {lock} uses"
            own += [lock] if isinstance(lock, device_locks.DeviceLock) else []
        return ""

    def _start_on(self, entry: QueueEntry, plan: Plan, chosen: Sequence[Device], slots: Sequence[Lease]) -> bool:
        """Start the entry's run, handing the locks of queue and devices over to the worker.

        False where a run of another lab has one of the devices.
        """
        environment = self.environ | devices.device_environment(plan.device, chosen, self.devices)
        folder = self._folder(entry)
        own: list[device_locks.DeviceLock] = []
        try:
            waits_for = self._lock_devices(entry, chosen, own)
        except BaseException:
            _release(slots, own)
            raise
        if waits_for:
            _release(slots, own)
            log_line(f"{entry.run} waits for {waits_for}")
            return False
        descriptors = [slot.descriptor for slot in slots] + [lock.descriptor for lock in own]
        keys = ",".join(device.key for device in chosen)
        try:
            process = local_launcher.start(
                plan, folder, command=self.command, given=environment, inherited=descriptors, key=keys
            )
        except BaseException:
            for slot in slots:
                slot.hand_over()
            raise
        finally:
            for held in own:
                held.hand_over()
        for slot in slots:
            slot.hand_over(process.pid)
        self.children.append(WorkerProcess(entry, tuple(chosen), process))
        log_line(f"{entry.run} started on {_names(chosen)} as pid {process.pid}")
        return True


def _release(slots: Sequence[Lease], locks: Sequence[device_locks.DeviceLock]) -> None:
    for slot in slots:
        slot.release()
    for lock in locks:
        lock.release()


def _names(chosen: Sequence[Device]) -> str:
    return ", ".join(device.name for device in chosen)


def log_line(text: str) -> None:
    """Write a line to standard output, which the launcher redirects to the queue's log."""
    print(f"{json_records.timestamp(datetime.now(UTC))} {text}", flush=True)  # noqa: T201 - its stdout is its log


def start(
    lab: Path, worker: Sequence[str] = local_launcher.WORKER, slots_given: Sequence[Device] = ()
) -> local_launcher.Process | None:
    """Start a scheduler in its own session unless one is running; it holds its lease before this returns.

    Args:
        lab: folder of the lab whose queue is worked off.
        worker: the program that carries out a run, with its arguments.
        slots_given: devices to use; if empty, all devices of this machine.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    files = QueueFolder(lab.resolve())
    disk.make_folder(files.path)
    try:
        own = Lease.take(files.lease)
    except HeldError:
        return None
    log = disk.open_append(files.log)
    process = None
    try:
        if files.log.stat().st_size > _LONGEST_LOG:
            disk.truncate(log, 0)
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "cerank.scheduler.supervisor"),
                *(str(files.lab), "--lease", str(own.descriptor)),
                *("--worker", msgspec.json.encode(list(worker)).decode()),
                *(f"--device={device.name}={device.uuid}" for device in slots_given),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log.descriptor,
            stderr=subprocess.STDOUT,
            env=process_environment.inherited_environment(os.environ),
            cwd=files.path,
            start_new_session=True,
            pass_fds=(own.descriptor,),
        )
    finally:
        disk.close(log)
        own.hand_over(process.pid if process else 0)
    return process


def main() -> int:
    """Run the scheduler for the lab that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m cerank.scheduler.supervisor")
    parser.add_argument("lab", type=Path)
    parser.add_argument("--lease", type=int, help="descriptor of the lease, taken by the process that starts this one")
    parser.add_argument("--device", action="append", metavar="NAME[=UUID]", help="a slot, instead of those found")
    parser.add_argument("--worker", help="JSON list of words: what carries a run out, instead of cerank's worker")
    arguments = parser.parse_args()
    lab = arguments.lab.resolve()
    path = QueueFolder(lab).lease
    try:
        own = Lease.take(path) if arguments.lease is None else Lease.from_descriptor(path, arguments.lease)
        named = [Device(*text.split("=", 1)) for text in arguments.device or []]
        command = json_records.decode(arguments.worker, tuple[str, ...]) if arguments.worker else local_launcher.WORKER
        supervisor = Supervisor(lab, named or devices.detect_devices(os.environ), command, os.environ)
        log_line(f"serving as pid {os.getpid()}: {', '.join(device.name for device in supervisor.devices)}")
        supervisor.serve(own)
    except CerankError as error:
        log_line(str(error))
        return error.exit_code
    left = len(queue.entries(lab))
    log_line(f"waiting for devices that are not here: {left}" if left else "nothing left to start")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
