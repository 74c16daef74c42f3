"""A run's record of what the machine was doing: a row every 15 seconds, written by the heartbeat's thread.

Invariant: it is a hint: a machine that tells nothing, or a disk that refuses, changes nothing in the run.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from cerank.core.metrics import UsageRow
from cerank.errors import RunFailedError
from cerank.files import json_records
from cerank.files.journal import Journal
from cerank.machine.system_usage import Machine
from cerank.runs.layout import RunFolder

INTERVAL = 15.0  # seconds between two rows


class UsageRecorder:
    """Writes the rows of one attempt; open it only while holding the run's lease.

    Args:
        folder: the run.
        attempt: the number of the attempt, from 1.
        device: the plan's: "cpu", "cuda" or "cuda:N".
        now: returns the current time.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        folder: RunFolder,
        attempt: int,
        device: str,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._attempt, self._now, self._clock = folder, attempt, now, clock
        self._gpu = _gpu_number(device, os.environ)
        self._machine = Machine(folder.lab)
        self._journal: Journal[UsageRow] = Journal(folder.usage, UsageRow)
        self._last: float | None = None

    def record_if_due(self) -> None:
        """Write a row if the last one is 15 seconds old; call it often, always from the same thread.

        After an error no further row is written.
        """
        now = self._clock()
        if self._last is not None and now - self._last < INTERVAL:
            return
        self._last = now
        try:
            self._record()
        except Exception:  # noqa: BLE001 - a record that decides nothing must not end the heartbeat
            self._last = math.inf

    def _record(self) -> None:
        sample = self._machine.sample(self._folder.lease)
        gpu = next((gpu for gpu in sample.gpus if gpu.index == self._gpu), None)
        self._journal.append(
            UsageRow(
                time=json_records.timestamp(self._now()),
                cpu=sample.cpu,
                memory=sample.memory,
                memory_total=sample.memory_total,
                worker_cores=sample.work.cores if sample.work else None,
                worker_memory=sample.work.memory if sample.work else None,
                gpu=gpu.busy if gpu else None,
                gpu_memory=gpu.memory if gpu else None,
                attempt=self._attempt,
            )
        )

    def close(self) -> None:
        """Close the journal."""
        with contextlib.suppress(RunFailedError):  # a full disk, which the run's own journals report
            self._journal.close()


def _gpu_number(device: str, environ: Mapping[str, str]) -> int | None:
    """Return the number of a plan's GPU as NVIDIA's library counts; None for a run on the CPU."""
    if not device.startswith("cuda"):
        return None
    number = int(device.partition(":")[2] or 0)
    visible = [part.strip() for part in environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return int(visible[number]) if number < len(visible) and visible[number].isdigit() else number
