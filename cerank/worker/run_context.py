"""What every part of one attempt at a run works with."""

from __future__ import annotations

import msgspec

from cerank.recipes.plan import Plan
from cerank.runs.layout import RunFolder
from cerank.worker.heartbeat import Heartbeat
from cerank.worker.run_log import RunLog
from cerank.worker.stop_request import StopFlag


class RunContext(msgspec.Struct, frozen=True):
    """One attempt at a run: its plan and folder, and where the worker reports its progress."""

    plan: Plan
    folder: RunFolder
    log: RunLog
    heartbeat: Heartbeat
    stop: StopFlag

    def raise_if_stopped(self) -> None:
        """Return at once unless somebody asked this worker to stop.

        Raises:
            PausedError: a signal or a stop request came.
        """
        from cerank.training.trainer import PausedError  # imports torch, which takes seconds

        if self.stop.reason:
            raise PausedError(0)
