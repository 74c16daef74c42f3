"""Signals of a person and of a cluster: a checkpoint at the step's end, exit 75, and the same bits after going on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from .forks import difference, ended, finish, log_of, small_run, worker
from .kills import prepared, result

PAUSING = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")


def pauses(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """`count` signals in turn at random times, the worker at any work from its first moment on.

    It ends with 75 and the state "paused", or had finished before; going on gives the same bits. How long the slowest
    took is told, and fails nothing: a busy machine takes any time.
    """
    plan, settings, _, wanted = prepared(folder)
    draw, bad, paused, slowest = random.Random(seed), [], 0, 0.0
    for number in range(count):
        run = small_run(Path(folder), plan, settings, 2 + number % 50)
        shutil.rmtree(Path(plan.cache) / "scores", ignore_errors=True)
        child = worker(run)
        _until_heard(child, run.lease)
        time.sleep(draw.uniform(0.0, 0.7))
        began = time.monotonic()
        os.kill(child, getattr(signal, PAUSING[number % len(PAUSING)]))
        code = ended(child)
        slowest = max(slowest, time.monotonic() - began)
        paused += code == 75
        wrong = "" if code in {0, 75} else f"exit {code}: {log_of(run)}"
        wrong = wrong or (log_of(run) if finish(run) else difference(run, wanted))
        if wrong:
            bad.append(f"{PAUSING[number % len(PAUSING)]} {number}: {wrong}")
        shutil.rmtree(run.path)
    return result(count, bad, paused=paused, slowest=round(slowest, 2))


def _until_heard(child: int, lease: Path) -> None:
    """Waits until the worker holds its lease: before that Python itself is starting."""
    deadline = time.monotonic() + 600
    while not (lease.exists() and lease.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.001)


def interrupted_twice(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """A second SIGINT ends the worker with 130 (or it had paused already); it can go on."""
    plan, settings, _, wanted = prepared(folder)
    draw, bad, at_once, slowest = random.Random(seed), [], 0, 0.0
    for number in range(count):
        run = small_run(Path(folder), plan, settings, 2 + number % 50)
        child = worker(run)
        _until_heard(child, run.lease)
        time.sleep(draw.uniform(0.0, 0.5))
        os.kill(child, signal.SIGINT)
        time.sleep(0.005)
        began = time.monotonic()
        os.kill(child, signal.SIGINT)
        code = ended(child)
        slowest = max(slowest, time.monotonic() - began)
        at_once += code == 130
        wrong = "" if code in {0, 75, 130} else f"exit {code}"
        wrong = wrong or (log_of(run) if finish(run) else difference(run, wanted))
        bad += [f"{number}: {wrong}"] if wrong else []
        shutil.rmtree(run.path)
    return result(count, bad, at_once=at_once, slowest=round(slowest, 2))
