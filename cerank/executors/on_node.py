"""`python -m cerank.executors.on_node RUN...`: carries runs out where an executor starts it, one after another.

It starts the worker as a local start would, passes signals on, and decides by how the worker ended whether the job is
worth requeueing. Invariant: only the signal that announces the end of the job's time leads to a requeue by itself; a
run that fails, or that the user stopped, is never started again by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import cerank
from cerank.errors import CerankError, ExitCode, RunFailedError
from cerank.executors.slurm_script import REQUEUE
from cerank.files import journal, json_records
from cerank.files.journal import Journal
from cerank.files.source_hash import COMPUTING_PACKAGES, code_sha256
from cerank.machine import devices
from cerank.recipes.plan import Plan
from cerank.runs import job_records, run_store
from cerank.runs.job_records import JobStart, JobStartKind
from cerank.runs.layout import RunFolder
from cerank.runs.records import Failure
from cerank.scheduler import local_launcher
from cerank.text.safe_text import counted

POLL_SECONDS = 0.5  # seconds between looks at the worker
HELD_SECONDS = 15.0  # seconds between tries where another machine still holds the run
HELD_TRIES = 10  # a lease of a machine that vanished is free after a minute; NFS takes a minute more for its locks
FRUITLESS = 3  # starts in a row after which a run that got no further is given up
TELLING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # signals that ask a job to end
_RESTARTS = "SLURM_RESTART_COUNT"
_JOB = "SLURM_JOB_ID"
_NODE = "SLURMD_NODENAME"


class Signals:
    """What the job was told by signals, kept until it is asked for."""

    def __init__(self) -> None:
        self.is_time_over = False  # USR2 or USR1: the end of the job's time is near
        self.is_stopped = False  # any signal that asks to end

    def install(self) -> None:
        """Handle the signals by which a job is told to end."""
        for number in TELLING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.is_stopped = True
        self.is_time_over = self.is_time_over or number in {signal.SIGUSR1, signal.SIGUSR2}


class NodeJob:
    """One run, as one job carries it out.

    Args:
        folder: folder of the run.
        signals: what the job was told.
        until: index of the stage after which this job ends, because others wait for it; None carries all out.
        max_requeues: how often the job may be requeued.
        code: hash of the computing code where the job was submitted; "" checks the version only.
        submission: the submission that the job is part of; "" for a job of a release that did not say.
        command: the program that carries a run out.
    """

    def __init__(
        self,
        folder: RunFolder,
        signals: Signals,
        *,
        until: int | None = None,
        max_requeues: int = 0,
        code: str = "",
        submission: str = "",
        command: Sequence[str] = local_launcher.WORKER,
    ) -> None:
        self.folder, self.signals, self.until, self.max_requeues, self.code = folder, signals, until, max_requeues, code
        self.submission = submission
        self.command = tuple(command)
        self.restarts = int(os.environ.get(_RESTARTS, "0") or 0)

    def carry_out(self) -> int:
        """Carry the run out and return the exit code of the job; `REQUEUE` asks for a requeue."""
        refusal = self._refusal()
        if refusal is not None:
            say(refusal[1])
            return refusal[0]
        try:
            plan = run_store.load_plan(self.folder)
            self._check_code(plan)
            self._check_restarts()
            self._check_devices(plan)
        except CerankError as error:
            say(str(error))
            self._write("refused", str(error))
            self._fail(error)
            return error.exit_code
        if self._is_over(plan):
            return ExitCode.OK
        record = job_records.load(self.folder)
        if record is not None and record.is_canceled:
            say("the run was stopped before this job began")
            return ExitCode.PAUSED
        self._write("started")
        code = self._worked(plan)
        if code == ExitCode.PAUSED and self.until is not None and self._is_over(plan):
            code = ExitCode.OK
        if code == ExitCode.PAUSED and self.signals.is_time_over:
            return self._requeued()
        self._write("ended", f"exit code {int(code)}")
        return code

    def _refusal(self) -> tuple[ExitCode, str] | None:
        """Return why this job has nothing to do with the run, with the exit code for that; None where it has."""
        if not self.folder.path.is_dir():
            text = f"{self.folder.path} is not seen from {this_node()}; the lab must be on a shared file system"
            return ExitCode.USAGE, text
        if self.submission and not job_records.is_newest_submission(self.folder, self.submission):
            record = job_records.load(self.folder)
            newer = f"by {record.executor} job {record.id}" if record is not None else "elsewhere"
            text = f"this job is not the run's any more: the run was started again {newer}; nothing is done here"
            return ExitCode.PAUSED, text
        return None

    def _check_code(self, plan: Plan) -> None:
        """Check that the plan was made by the cerank of this machine.

        Raises:
            RunFailedError: it was not; the error names both.
        """
        planned, here = plan.versions.get("cerank", ""), cerank.__version__
        own = computing_code() if self.code else ""
        if planned and planned != here:
            differs = f"cerank {here}, but the plan was made by cerank {planned}"
        elif own != self.code:
            differs = f"cerank {here} with the code {own}, but it was submitted by cerank with the code {self.code}"
        else:
            return
        hint = "install the same cerank on both, or start a new run"
        what = f"{this_node()} has {differs}"
        raise RunFailedError(what, where=self.folder.name, hint=hint, code="node-version")

    def _check_restarts(self) -> None:
        """Check that the job was not requeued too often, whoever did it.

        Raises:
            RunFailedError: it was.
        """
        if self.restarts > self.max_requeues:
            what = f"the job was requeued {self.restarts} times; {self.max_requeues} are allowed"
            hint = "raise max_requeues or the time limit, then `cerank resume`"
            raise RunFailedError(what, where=self.folder.name, hint=hint, code="too-many-requeues")

    def _check_devices(self, plan: Plan) -> None:
        """Check that the scheduler gave this job a GPU for each process of its run.

        Raises:
            RunFailedError: it gave fewer.
        """
        processes = len(plan.devices) if plan.device.startswith("cuda") else 0
        shown, gpus = os.environ.get("CUDA_VISIBLE_DEVICES"), devices.detect_gpus() if processes > 1 else []
        if processes < 2 or (not gpus and shown is None):
            return  # where no driver's tool can be asked, torch says what is missing
        words = [word for word in (shown or "").split(",") if word.strip()]
        given = len(devices.visible_gpus(gpus, shown) if gpus else words)
        if given < processes:
            seen = "" if shown is None else f" (CUDA_VISIBLE_DEVICES={shown[:80]})"
            what = f"the job got {counted(given, 'GPU')} on {this_node()}{seen}, and its run is for {processes} devices"
            hint = "raise `gpus` of the executor, then `cerank resume`"
            raise RunFailedError(what, where=self.folder.name, hint=hint, code="node-devices")

    def _is_over(self, plan: Plan) -> bool:
        """Return whether what this job is for is done."""
        if self.until is None:
            return self.folder.done.exists()
        return self.folder.done.exists() or self.folder.final(self.until, plan.recipe.chain[self.until]).is_dir()

    def _worked(self, plan: Plan) -> int:
        """Start the worker and return its exit code; wait for the run where another machine still holds it."""
        for _ in range(HELD_TRIES):
            if self.signals.is_stopped:
                return ExitCode.PAUSED
            code = self._worker_code(plan)
            if code != ExitCode.HELD:
                break
            say("another process holds the run; trying again")
            waited = time.monotonic() + HELD_SECONDS
            while time.monotonic() < waited and not self.signals.is_stopped:
                time.sleep(POLL_SECONDS)
        return code

    def _worker_code(self, plan: Plan) -> int:
        process = local_launcher.start(plan, self.folder, command=self.command)
        say(f"the worker is pid {process.pid} on {this_node()}; its output is in {self.folder.log}")
        is_told = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_SECONDS)
                say(f"the worker ended with {code}")
                return code if code >= 0 else ExitCode.FAILED
            if not is_told and (self.signals.is_stopped or (self.until is not None and self._is_over(plan))):
                is_told = True
                process.send_signal(signal.SIGTERM)  # it saves a checkpoint and ends

    def _requeued(self) -> int:
        """Return the exit code for a run that was stopped by the end of its time: a requeue, if it is worth one."""
        if _JOB not in os.environ:
            self._write("ended", "its time is over")
            return ExitCode.PAUSED
        rows = [row for row in journal.read_valid_rows(self.folder.job_starts, JobStart)[0] if row.kind == "started"]
        starts = [row.files for row in rows[-FRUITLESS:]]
        reason = ""
        if self.restarts >= self.max_requeues:
            reason = f"its time is over, and it was requeued {self.restarts} times, which is the limit"
        elif len(starts) == FRUITLESS and len({*starts, self._done()}) == 1:
            reason = f"its time was over {FRUITLESS} times before it got any further; a job needs a longer time limit"
        if reason:
            self._write("ended", reason)
            hint = "raise `time` or `max_requeues`, then `cerank resume`"
            self._fail(RunFailedError(reason, where=self.folder.name, hint=hint, code="too-many-requeues"))
            say(reason)
            return ExitCode.PAUSED
        self._write("requeued", "its time is over")
        return REQUEUE

    def _done(self) -> int:
        """Return a number that grows whenever the run gets further."""
        size = self.folder.readings.stat().st_size if self.folder.readings.exists() else 0
        names = ("candidates", "teachers", "scores", "rankings", "measures")
        return size + sum(1 for name in names for _ in (self.folder.path / name).rglob("*"))

    def _write(self, kind: JobStartKind, text: str = "") -> None:
        row = JobStart(
            kind=kind,
            time=json_records.timestamp(datetime.now(UTC)),
            host=this_node(),
            job=os.environ.get(_JOB, ""),
            restarts=self.restarts,
            files=self._done(),
            text=text,
        )
        with contextlib.suppress(CerankError, OSError):  # the worker reports a full disk
            rows = Journal(self.folder.job_starts, JobStart)
            try:
                rows.append(row)
            finally:
                rows.close()

    def _fail(self, error: CerankError) -> None:
        """Record why the run is not carried out, unless it is finished."""
        failure = Failure(
            kind=type(error).__name__,
            what=error.what,
            where=error.where,
            hint=error.hint,
            time=json_records.timestamp(datetime.now(UTC)),
        )
        if not self.folder.done.exists():
            with contextlib.suppress(CerankError):
                json_records.save(self.folder.failure, failure)


def this_node() -> str:
    """Return the name of this machine, as its cluster calls it."""
    return os.environ.get(_NODE) or socket.gethostname()


def say(text: str) -> None:
    """Write a line to the job's log."""
    print(f"{json_records.timestamp(datetime.now(UTC))} {text}", flush=True)  # noqa: T201 - its stdout is the job's log


@functools.cache
def computing_code() -> str:
    """Return the first 12 digits of the hash of the code that decides numbers."""
    return code_sha256(*COMPUTING_PACKAGES)[:12]


def arguments_for(
    folders: Sequence[RunFolder], *, until: int | None = None, max_requeues: int = 20, submission: str = ""
) -> tuple[str, ...]:
    """Return the arguments by which this program carries the runs out."""
    words = ["--code", computing_code(), "--max-requeues", str(max_requeues)]
    words += ["--submission", submission] if submission else []
    words += [] if until is None else ["--until", str(until)]
    return (*words, *(str(folder.path.resolve()) for folder in folders))


def main() -> int:
    """Carry out the runs that the arguments name; the exit code is that of the first that did not finish."""
    parser = argparse.ArgumentParser(prog="python -m cerank.executors.on_node")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--until", type=int, help="index of the stage after which to end")
    parser.add_argument("--max-requeues", type=int, default=20)
    parser.add_argument("--code", default="", help="hash of the computing code where the job was submitted")
    parser.add_argument("--submission", default="", help="the submission that this job is part of")
    arguments = parser.parse_args()
    signals = Signals()
    signals.install()
    worst: int = ExitCode.OK
    for run in arguments.runs:
        job = NodeJob(
            RunFolder(run.resolve()),
            signals,
            until=arguments.until,
            max_requeues=arguments.max_requeues,
            code=arguments.code,
            submission=arguments.submission,
        )
        code = job.carry_out()
        worst = worst or code
        if code == REQUEUE or signals.is_stopped:
            return code
    return worst


if __name__ == "__main__":
    outcome = main()
    for told in TELLING:  # the script repeats them, and Python puts their deadly defaults back while it ends
        signal.signal(told, signal.SIG_IGN)
    sys.exit(outcome)
