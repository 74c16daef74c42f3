"""A lab whose runs are carried out by a quick stand-in worker, and patience with a deadline."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cerank.app import Lab
from cerank.core.metrics import Event
from cerank.files import journal, lease
from cerank.machine.devices import Device
from cerank.recipes.plan import Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.runs import queue
from cerank.runs.layout import QueueFolder, RunFolder
from cerank.settings import Settings

STANDIN = (sys.executable, "-P", str(Path(__file__).with_name("standin.py")))
CPU = Device("cpu")
GPUS = (Device("cuda:0", "GPU-aa", "T4"), Device("cuda:1", "GPU-bb", "T4"))
TOML = b'name = "quick"\n'


def eventually(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Returns once `holds()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def plan_for(device: str = "cpu", label: str = "quick") -> Plan:
    values = {"name": "quick", "chain": ["a"], "stages": {"a": {"steps": 1}}}
    return Plan(recipe=recipe_from(values, "test"), inputs=(), device=device, threads=1, cache="/c", label=label)


class Bench:
    """A lab, and what the tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lab = self.opened((CPU,))

    def opened(self, devices: Sequence[Device]) -> Lab:
        settings = Settings(lab=self.folder, cache=self.folder / "cache", device="cpu", threads=1, format="")
        return Lab(settings, devices=devices, worker=STANDIN)

    def enqueued(self, *labels: str, device: str = "cpu") -> list[RunFolder]:
        return [self.lab.enqueue(plan_for(device, label), TOML) for label in labels]

    def state(self, folder: RunFolder) -> str:
        return self.lab.status(folder).state

    def states(self, folders: Sequence[RunFolder]) -> list[str]:
        return [self.state(folder) for folder in folders]

    def is_at_work(self, folder: RunFolder) -> bool:
        """Whether its worker has said all that a stand-in says before it holds; the lease comes a moment earlier."""
        return folder.attempt(1).exists() and self.state(folder) == "running"

    def starts(self, folder: RunFolder) -> list[Event]:
        return [event for event in journal.read_valid_rows(folder.events, Event)[0] if event.kind == "started"]

    def release(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "release").touch()

    def kill_supervisor(self) -> None:
        """kill -9; returns once it is gone. A supervisor that was just started may not have signed its lease yet."""
        path = QueueFolder(self.folder).lease
        while lease.is_held(path):
            owner = lease.owner(path)
            if owner is not None and owner.pid != os.getpid():
                lease.signal_owner(owner, signal.SIGKILL)

    def written(self, *entries: str) -> None:
        """A queue as a machine that lost its power leaves it."""
        QueueFolder(self.folder).path.mkdir(parents=True, exist_ok=True)
        time_now = datetime.now(UTC).isoformat()
        stored = queue.Queue(tuple(queue.QueueEntry(name, 0, time_now) for name in entries))
        QueueFolder(self.folder).entries.write_bytes(msgspec.json.encode(stored))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "lab")
    yield made
    made.release()
    made.kill_supervisor()
    for row in made.lab.listed():
        owner = lease.owner(row.folder.lease) if lease.is_held(row.folder.lease) else None
        if owner is not None and owner.pid != os.getpid():
            lease.signal_owner(owner, signal.SIGKILL)
