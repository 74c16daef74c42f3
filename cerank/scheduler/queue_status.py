"""The state of a lab's queue: whether a scheduler runs, how many runs wait, and which run uses which device.

Invariant: all of it is read from locks and files, so that every process sees the same.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from cerank.errors import CerankError
from cerank.files import lease
from cerank.machine import device_locks
from cerank.machine.devices import Device, device_of_process, fits
from cerank.runs import queue, run_store
from cerank.runs.layout import QueueFolder, RunFolder, runs_folder


class DeviceState(msgspec.Struct, frozen=True):
    """A device that can carry one run at a time."""

    device: str  # "cpu", "cuda:0"
    run: str = ""  # name of the run whose worker uses it; "" where it is free
    model: str = ""  # name of a GPU's model; "" for other devices


class QueueState(msgspec.Struct, frozen=True):
    """The queue as a whole."""

    running: bool  # a scheduler starts the waiting runs
    waiting: int  # queued runs
    slots: tuple[DeviceState, ...]
    damage: str = ""  # why the queue cannot be read; "" where it can

    @property
    def state(self) -> Literal["idle", "running", "stopped"]:
        """The state in a word; stopped: runs wait, and nothing starts them until the user starts the queue."""
        if self.running:
            return "running"
        return "stopped" if self.waiting else "idle"

    def blocked_by(self, device: str, count: int) -> str | None:
        """Return a run that uses a device that a plan needs; "" where enough are free, None where there is none here.

        Args:
            device: as a plan names it: "cpu", "cuda" for any GPU, "cuda:1".
            count: devices that the plan needs at once.
        """
        fitting = [slot for slot in self.slots if slot.device == device or slot.device.partition(":")[0] == device]
        if not fitting:
            return None
        users = [slot.run for slot in fitting if slot.run]
        return users[0] if users and len(fitting) - len(users) < count else ""


def state_of(lab: Path, devices: Sequence[Device], now: datetime) -> QueueState:
    """Return the state of the queue of `lab`; damaged files never raise an error here."""
    damage = ""
    try:
        waiting = len(queued(lab, now))
    except CerankError as error:
        waiting, damage = 0, str(error)
    runs_on = on_devices(lab, devices)
    slots = tuple(DeviceState(device.name, name, device.model) for device, name in zip(devices, runs_on, strict=True))
    return QueueState(lease.is_held(QueueFolder(lab).lease), waiting, slots, damage)


def queued(lab: Path, now: datetime) -> list[RunFolder]:
    """Return the queued runs in order, without consumed entries and removed runs.

    Raises:
        DamagedError: the queue cannot be read.
    """
    known = {folder.name: folder for folder in run_store.folders(lab)}
    named = [known[entry.run] for entry in queue.entries(lab) if entry.run in known]
    return [folder for folder in named if run_store.status(folder, now).state == "queued"]


def on_devices(lab: Path, devices: Sequence[Device]) -> list[str]:
    """Return the run that uses each device, "" if none does, in the order of `devices`.

    A run from the queue holds its slot's lock; one of another lab the machine's, and is "RUN in LAB" here. One that was
    started otherwise holds only its own lease, so its plan
    tells the device: "cuda" there is CUDA's first, as for torch.
    """
    runs_on = [queue.run_on_device(lab, device.key) for device in devices]
    runs_on = [run or run_of_other_lab(lab, device) for run, device in zip(runs_on, devices, strict=True)]
    if all(runs_on):
        return runs_on
    for folder in run_store.folders(lab):
        if folder.name in runs_on or not _is_held_here(folder):
            continue
        try:
            plan = run_store.load_plan(folder)
        except CerankError:
            continue
        names = plan.devices or (plan.device,)
        used = {device_of_process(names, number) for number in range(len(names))}
        for index, device in enumerate(devices):
            if not runs_on[index] and any(fits(name, device) for name in used):
                runs_on[index] = folder.name
    return runs_on


def run_of_other_lab(lab: Path, device: Device) -> str:
    """Return which run of another lab uses the device; "" if none does."""
    other = device_locks.current_owner(device.key)
    if other is None or other.is_of(lab):
        return ""
    named = run_store.short_name(RunFolder(runs_folder(Path(other.lab)) / other.run)) if other.run else ""
    return str(device_locks.LockOwner(other.lab, named))


def _is_held_here(folder: RunFolder) -> bool:
    try:
        if not lease.is_held(folder.lease):
            return False
    except CerankError:
        return False
    holder = lease.owner(folder.lease)
    return holder is None or holder.host == socket.gethostname()
