"""What every process of a run but the first does: it waits for orders and shares in them.

Invariant: it writes nothing into the run's folder but chunks of scores, each whole or not at all.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cerank.core.metrics import Position, RankRow, Scoring
from cerank.errors import CerankError, ExitCode
from cerank.files import json_records
from cerank.kernels import determinism
from cerank.kernels.rank_group import RankGroup
from cerank.recipes.plan import Plan
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.text.safe_text import redacted
from cerank.training.trainer import PausedError
from cerank.worker import orders
from cerank.worker.heartbeat import Heartbeat
from cerank.worker.ranks.join_ranks import joined_ranks
from cerank.worker.run_context import RunContext, StopFlag
from cerank.worker.run_inputs import RunInputs
from cerank.worker.run_log import RunLog
from cerank.worker.stage_evaluation import StageEvaluation
from cerank.worker.train_stage import StageWork


class SilentLog(RunLog):
    """A log that writes nothing: what happens in a run is written by its first process."""

    def __init__(self) -> None:
        self.attempt, self.replayed, self.mismatches = 0, 0, 0

    def time(self) -> str:
        """Return the current time as records hold it."""
        return json_records.timestamp(datetime.now(UTC))

    def event(self, kind: str, text: str, position: Position | None = None) -> None:
        """Do nothing."""

    def write_metrics(self, row: ReadingRow) -> None:
        """Do nothing."""

    def write_ranks(self, rows: Sequence[RankRow]) -> None:
        """Do nothing."""

    def write_scoring(self, row: Scoring) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""


def follow(plan: Plan, folder: RunFolder, stop: StopFlag, device: str, say: Callable[[str], None]) -> ExitCode:
    """Share in the work of a run until its first process has no more; return how that ended.

    Args:
        plan: plan of the run.
        folder: folder of the run, in which the first process has written what the work is made from.
        stop: never asked to stop: the first process decides that for all.
        device: device of this process.
        say: prints a line to the run's log.
    """
    number = os.environ["RANK"]
    try:
        determinism.make_deterministic(device, plan.threads)
        with joined_ranks(device) as (group, _):
            heartbeat = Heartbeat(folder.progress, 0, lambda: datetime.now(UTC))  # never started, so it writes nothing
            context = RunContext(plan, folder, SilentLog(), heartbeat, stop, group, device)
            _carry_out_orders(context, group)
    except CerankError as error:
        say(f"rank {number} failed: {error}")
        return error.exit_code
    except Exception:  # noqa: BLE001 - the top of the process: whatever it was, the log must say so
        say(f"rank {number} failed: {redacted(traceback.format_exc())}")
        return ExitCode.FAILED
    return ExitCode.OK


def _carry_out_orders(context: RunContext, group: RankGroup) -> None:
    """Share in one piece of work after another until the first process says that there is no more."""
    inputs: RunInputs | None = None
    evaluation: StageEvaluation | None = None  # kept for the next test dataset: it holds the model
    for data in group.orders():
        order = orders.decode(data)
        if isinstance(order, orders.EndOrder):
            return
        inputs = inputs or RunInputs(context)
        try:
            if isinstance(order, orders.TrainOrder):
                evaluation = None
                StageWork(context, inputs, order.index, order.precision).train()
            else:
                evaluation = evaluation or StageEvaluation(context, inputs)
                evaluation.share(order)
        except PausedError:
            continue  # the first process was asked to stop, and says so next
