"""Start the processes of a run on several devices by torchrun, and return how the run ended.

torchrun is called by its Python interface: it starts the processes, gives them their numbers and a store to meet in,
and ends all when one fails. Nothing is restarted here: `cerank resume` or the cluster does that, from a checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType

import msgspec
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cerank.errors import CerankError, ExitCode, HeldError
from cerank.files import disk, json_records, lease
from cerank.files.lease import Lease
from cerank.runs.layout import RunFolder
from cerank.runs.records import Failure
from cerank.worker.ranks.rank_signs import LostRankError
from cerank.worker.run_context import StopFlag

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_SECONDS_TO_END = 20  # from the death of one process until the others are killed


def launch_ranks(folder: RunFolder, devices: Sequence[str], stop: StopFlag) -> ExitCode:
    """Start a process on each device and wait for their end; return the exit code of the first process.

    A request to stop that reaches this process is handed on to the first one, which decides for all.

    Args:
        folder: folder of the run.
        devices: a process is started on each.
        stop: heard the signals until now.
    """

    def hand_on(number: int, _frame: FrameType | None) -> None:
        owner = lease.owner(folder.lease)
        if owner is None or not lease.signal_owner(owner, number):
            disk.touch(folder.stop)  # it has not begun yet, and looks for this file when it does

    for number in _SIGNALS:
        signal.signal(number, hand_on)
    if stop.reason:
        disk.touch(folder.stop)  # a signal came before there was anyone to hand it on to
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(_SECONDS_TO_END)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(devices),
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle="SIGHUP",  # the others are handed on
    )
    command = ["-P", "-m", "cerank.worker", "--devices", ",".join(devices), str(folder.path)]
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        return _outcome(folder, error)
    return ExitCode.OK


def _outcome(folder: RunFolder, error: ChildFailedError) -> ExitCode:
    """Return how the run ended, and record which process failed where none of them could."""
    first = error.failures.get(0)
    if first is not None and first.exitcode in {ExitCode.PAUSED, ExitCode.HELD}:
        return ExitCode(first.exitcode)
    try:
        rank, failure = error.get_first_failure()
        recorded = json_records.load_if_there(folder.failure, Failure)
        if recorded is None or (rank and recorded.kind == LostRankError.__name__):
            _record(folder, rank, failure)
    except CerankError:
        pass  # on a full disk only the log remains
    return ExitCode(first.exitcode) if first is not None and first.exitcode in set(ExitCode) else ExitCode.FAILED


def _record(folder: RunFolder, rank: int, failure: ProcessFailure) -> None:
    """Record a process that ended without reporting."""
    hint, where = "log.txt may say why; ", f"rank {rank}"
    if "where" in failure.error_file_data:  # it noticed that it, another one, or all of them do nothing
        what, where = failure.message, str(failure.error_file_data["where"])
    elif failure.exitcode < 0:
        what = f"rank {rank} was killed by {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            hint = "the system does so where memory is short, and `dmesg` says it then; "
    else:
        what = f"rank {rank} ended with exit code {failure.exitcode}"
    hint = f"{hint}`cerank resume` goes on from the last checkpoint"
    save_failure(folder, Failure(kind=LostRankError.__name__, what=what, where=where, hint=hint))


def save_failure(folder: RunFolder, failure: Failure) -> None:
    """Save why a run's last attempt failed, unless it is finished or another worker is at it."""
    time, attempt = json_records.timestamp(datetime.now(UTC)), max(folder.attempt_numbers(), default=0)
    try:
        with Lease.take(folder.lease, datetime.now(UTC)):
            if not folder.done.exists():
                json_records.save(folder.failure, msgspec.structs.replace(failure, time=time, attempt=attempt))
    except HeldError:
        return  # the run goes on elsewhere
