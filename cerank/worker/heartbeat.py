"""The worker's heartbeat: a thread rewrites progress.json with the worker's position and speed every 2 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from cerank.core.metrics import Progress
from cerank.core.progress import ProgressEstimator
from cerank.errors import RunFailedError
from cerank.files import json_records

INTERVAL = 2.0  # seconds


class Heartbeat:
    """Writes the newest `Progress` until it is stopped.

    Args:
        path: the path of progress.json.
        attempt: the number of the attempt, from 1.
        now: returns the current time, with a time zone.
        also: called at each heartbeat; an error of the disk does not stop the heartbeat.
    """

    def __init__(
        self, path: Path, attempt: int, now: Callable[[], datetime], also: Callable[[], None] = lambda: None
    ) -> None:
        self._path, self._attempt, self._now, self._every_beat = path, attempt, now, also
        self._progress = Progress(phase="start", attempt=attempt)
        self._began, self._before, self._pairs = time.monotonic(), 0, 0
        self._estimator: ProgressEstimator | None = None
        self._lock = threading.Lock()  # several threads report work, and another one reads it
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the progress a last time and stop the thread."""
        self._over.set()
        self._thread.join()

    def enter(self, phase: str, detail: str, total: int, done: int = 0) -> None:
        """Begin a phase of `total` units, of which `done` were done before."""
        self._began, self._before, self._pairs = time.monotonic(), done, 0
        self._progress = Progress(phase=phase, detail=detail, done=done, total=total, attempt=self._attempt)

        if self._estimator is not None:
            with self._lock:
                self._estimator.enter(phase, detail, total, done, self._began)

    def estimate_with(self, course: ProgressEstimator) -> None:
        """Report the progress of the whole run, too, from here on."""
        self._estimator = course

    def complete(self) -> None:
        """Report the whole run as done."""
        if self._estimator is not None:
            with self._lock:
                self._estimator.complete()

    def advance(self, units: int = 1, pairs: int = 0) -> None:
        """Count `units` more as done, for which `pairs` pairs went through the model; any thread may call this."""
        with self._lock:
            before, now = self._progress, time.monotonic()
            self._pairs += pairs
            seconds = max(now - self._began, 1e-6)
            done = before.done + units
            left = seconds / max(1, done - self._before) * max(0, before.total - done)
            rate = self._pairs / seconds
            if self._estimator is not None:
                self._estimator.advance(units, now)
            self._progress = msgspec.structs.replace(before, done=done, pairs_per_second=rate, seconds_left=left)

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(INTERVAL)
            try:
                self._every_beat()
                json_records.save(self._path, self._current())
            except RunFailedError:
                # a hint only: the worker itself will report a full disk or a missing folder
                continue

    def _current(self) -> Progress:
        progress = msgspec.structs.replace(self._progress, time=json_records.timestamp(self._now()))
        if self._estimator is None:
            return progress
        with self._lock:
            share, left = self._estimator.estimate(time.monotonic())
        return msgspec.structs.replace(progress, run_share=share, run_seconds_left=left)
