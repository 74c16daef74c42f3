"""Races: many workers on one run, with locks and without, and what a dead holder leaves behind."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cerank.errors import CerankError, HeldError
from cerank.files import lease
from cerank.files.lease import Lease
from cerank.machine import device_locks
from cerank.runs import run_store
from cerank.runs.layout import RunFolder

from .forks import ended, fast_plan, small_run
from .kills import result


def starters(folder: str, races: int = 20, workers: int = 8, *, without_locks: bool = False) -> dict[str, Any]:
    """Races of many processes for one lease: exactly one holds it at a time, and each gets it in the end.

    Each writes its number and, after a moment, again: a second holder would come in between.
    """
    if without_locks:
        os.environ[lease.NO_FLOCK] = "1"
    bad = []
    for race in range(races):
        path = Path(folder) / f"race-{race}"
        path.mkdir()
        first = [_racer(path, seed=race * 100 + number, patience=0.0) for number in range(workers)]
        codes = [ended(child) for child in first]
        won = codes.count(0)
        lines = (path / "written").read_text().split()
        if not won or set(codes) - {0, 4}:
            bad.append(f"race {race}: exit codes {codes}")
        elif lines != [line for line in lines[::2] for _ in "ab"]:
            bad.append(f"race {race}: two wrote at once: {lines}")
        elif lease.is_held(path / "lease"):
            bad.append(f"race {race}: it is held after all ended")
    return result(races, bad, starts=races * workers)


def _racer(path: Path, seed: int, patience: float) -> int:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            time.sleep(random.Random(seed).random() * 0.002)
            try:
                with Lease.take(path / "lease"), (path / "written").open("a") as file:
                    for _ in "ab":
                        file.write(f"{os.getpid()}\n")
                        file.flush()
                        time.sleep(0.05 + patience)
                code = 0
            except HeldError:
                code = 4
        finally:
            os._exit(code)
    return child


def dead_holders(folder: str, count: int = 20, *, without_locks: bool = False) -> dict[str, Any]:
    """Holders killed while a child of theirs lives: the lease is free at once, and nobody believes what it says."""
    if without_locks:
        os.environ[lease.NO_FLOCK] = "1"
    bad = []
    for number in range(count):
        path = Path(folder) / f"held-{number}" / "lease"
        path.parent.mkdir()
        out, into = os.pipe()
        holder = os.fork()
        if holder == 0:
            held = Lease.take(path)
            if os.fork() == 0:
                os.write(into, f"{os.getpid()}\n".encode())  # by itself: it lets go of the lock as it begins to run
                time.sleep(60)
                os._exit(0)
            time.sleep(60)
            held.release()
            os._exit(0)
        grandchild = int(os.read(out, 32))
        if not lease.is_held(path):
            bad.append(f"{number}: not held while its holder lives")
        os.kill(holder, signal.SIGKILL)
        ended(holder)
        if lease.is_held(path):
            bad.append(f"{number}: held by the dead")
        try:
            Lease.take(path).release()
        except CerankError as error:
            bad.append(f"{number}: {error}")
        os.kill(grandchild, signal.SIGKILL)
    return result(count, bad)


def removals(folder: str, count: int = 20) -> dict[str, Any]:
    """Two removals of one run at once: it is gone, nothing is left over, and the second says a clear word."""
    plan, settings = fast_plan(Path(folder))
    bad = []
    for number in range(count):
        run = small_run(Path(folder), plan, settings)
        children = [_remover(run) for _ in "ab"]
        codes = sorted(ended(child) for child in children)
        if codes[0] != 0 or codes[1] not in {0, 1, 2, 4}:
            bad.append(f"{number}: exit codes {codes}")
        left = [path.name for path in run.path.parent.iterdir()]
        if left:
            bad.append(f"{number}: left over: {left}")
    return result(count, bad)


def two_labs(folder: str, races: int = 20, workers: int = 8) -> dict[str, Any]:
    """Workers of two labs at once on a machine with two devices: never more holders of one than one, and each gets it.

    Each writes its number and, after a moment, again; one of each race is killed while it holds a device.
    """
    bad = []
    devices = ("cpu", "GPU-1")
    environ = {device_locks.FOLDER: str(Path(folder) / "devices")}
    for race in range(races):
        place = Path(folder) / f"race-{race}"
        place.mkdir()
        plans = [(devices[number // 2 % 2], Path(folder) / f"lab-{number % 2}") for number in range(workers)]
        children = [
            _user(place, device, lab, environ, is_killed=number == race % workers)
            for number, (device, lab) in enumerate(plans)
        ]
        codes = [ended(child) for child in children]
        if set(codes) - {0, -signal.SIGKILL} or codes.count(0) != workers - 1:
            bad.append(f"race {race}: exit codes {codes}")
        for device in devices:
            lines = (place / device).read_text().split()
            pairs = [line for line in lines if line[0] != "k"]
            if pairs != [line for line in pairs[::2] for _ in "ab"]:
                bad.append(f"race {race}: two used {device} at once: {lines}")
            if device_locks.current_owner(device, environ):
                bad.append(f"race {race}: {device} is held after all ended")
    return result(races, bad, starts=races * workers)


def _user(place: Path, device: str, lab: Path, environ: dict[str, str], *, is_killed: bool) -> int:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            deadline = time.monotonic() + 600
            while not isinstance(
                hold := device_locks.acquire(device, lab, f"{os.getpid()}", environ), device_locks.DeviceLock
            ):
                assert hold is not None
                assert time.monotonic() < deadline
            with (place / device).open("a") as file:
                for _ in "ab":
                    file.write(f"{'k' if is_killed else ''}{os.getpid()}\n")
                    file.flush()
                    time.sleep(0.01)
                    if is_killed:
                        os.kill(os.getpid(), signal.SIGKILL)
            hold.release()
            code = 0
        finally:
            os._exit(code)
    return child


def _remover(run: RunFolder) -> int:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            try:
                run_store.remove(run)
                code = 0
            except CerankError as error:
                code = int(error.exit_code)
        finally:
            os._exit(code)
    return child


def clocks(folder: str) -> dict[str, Any]:
    """A clock that jumps by days: a held run is running, a left one lost, and no age is negative."""
    from datetime import timedelta

    plan, settings = fast_plan(Path(folder))
    bad, tried = [], 0
    for days in (-4000, -400, -1, 0, 1, 400, 4000):
        run = small_run(Path(folder), plan, settings)
        now = datetime.now(UTC) + timedelta(days=days)
        from cerank.core.metrics import Progress
        from cerank.files import json_records
        from cerank.runs.records import Attempt

        json_records.save(run.attempt(1), Attempt(number=1, started="2026-01-01T00:00:00+00:00"))
        json_records.save(run.progress, Progress("train"))
        with Lease.take(run.lease, now):
            held = run_store.status(run, now)
        left = run_store.status(run, now)
        tried += 1
        if (held.state, left.state) != ("running", "lost") or min(
            held.seconds_since_heartbeat, left.seconds_since_heartbeat
        ) < 0:
            bad.append(f"{days} days: {held.state}, {left.state}, {held.seconds_since_heartbeat}")
    return result(tried, bad)
