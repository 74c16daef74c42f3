"""Slurm as an executor: sbatch submits, squeue and sacct tell how jobs stand, scancel cancels.

Invariant: one squeue asks for all jobs at once; what Slurm refuses is shown in its own words.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cerank.errors import RunFailedError, UsageError
from cerank.executors.interface import Job, SubmittedJob, counted_devices, options_from, submitting_environment
from cerank.executors.slurm_script import SlurmOptions, batch_script
from cerank.files import disk
from cerank.runs.job_records import JobState, Phase
from cerank.runs.layout import JobFolder

PATIENCE = 60.0  # seconds that a command of Slurm may take; a busy controller answers in some
_PATIENCE_TO_ASK = 15.0  # seconds that squeue and sacct may take, for which `cerank ps` waits
_FIELDS = ("JobArrayID", "State", "Reason", "StartTime", "NodeList", "RestartCnt", "exit_code")
_RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "STOPPED"}
_PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_NO_REASON = {"None", "N/A", "(null)", "", "Unknown"}


class SlurmExecutor:
    """A Slurm cluster whose commands are on this machine.

    Args:
        name: as the settings call it.
        options: the table `[executors.NAME]`.

    Raises:
        UsageError: an option is wrong.
    """

    kind = "slurm"
    waits_for_jobs = True

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, dict(options)
        self._where = f"[executors.{name}]"
        self._options = options_from(SlurmOptions, name, options).checked(self._where)

    def device(self, setting: str) -> str:
        """Return the GPU if the jobs get one; no certain GPU can be asked for, because Slurm chooses it.

        Raises:
            UsageError: the device is none that a job gets.
        """
        gets = "cuda" if self._options.gpus else "cpu"
        if setting == "auto":
            return gets
        if setting not in {"cpu", "cuda"} or (setting == "cuda" and not self._options.gpus):
            what = f"jobs on {self.name} get {self._options.gpus} GPUs, which the device '{setting}' does not fit"
            hint = "leave out --device, or set `gpus`"
            raise UsageError(what, where="device", hint=hint, code="executor-device")
        return setting

    def devices(self, setting: str, device: str) -> str:
        """Return as many devices as a job gets GPUs, or as many as the user asks for.

        Raises:
            UsageError: jobs get fewer, or certain devices are asked for.
        """
        is_limit = "gpus" in self.options
        return counted_devices(self.name, setting, device, self._options.gpus, is_limit=is_limit)

    def threads(self, setting: int, processes: int = 1) -> int:
        """Return the threads of each process: its share of the job's cores, unless the user set fewer or more."""
        return setting or max(1, self._options.cpus // processes)

    def script(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> str:
        """Return the script that `submit` would submit; the jobs need the same."""
        logs = str(JobFolder(jobs[0].lab).logs).replace("%", "%%")  # Slurm has its own signs that begin so
        options, needs = self._options, jobs[0].needs
        if needs is not None and needs.device == "cuda":
            options = msgspec.structs.replace(options, gpus=needs.processes)
        elif needs is not None and "gpus" not in self.options:  # a plan for the CPU takes no GPU that nobody asked for
            options = msgspec.structs.replace(options, gpus=0)
        if needs is not None and needs.processes > 1:
            options = msgspec.structs.replace(options, cpus=max(options.cpus, needs.processes * needs.threads))
        log = f"{logs}/{'%A_%a.txt' if len(jobs) > 1 else '%j.txt'}"
        return batch_script(options, jobs, after, log, self._where)

    def submit(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> list[SubmittedJob]:
        """Submit one job, or an array with a task for each.

        Raises:
            UsageError: sbatch is not there, or refuses.
            RunFailedError: the lab cannot be written to.
        """
        files = JobFolder(jobs[0].lab)
        disk.make_folder(files.logs)
        script = files.script(f"{jobs[0].name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
        disk.make_folder(script.parent)
        disk.write(script, self.script(jobs, after).encode())
        done = self._call("sbatch", "--parsable", str(script))
        match = re.search(r"^(\d+)(;\S*)?$", done, re.MULTILINE)
        if match is None:
            what = f"sbatch gave no job id: {done.strip()[:200]}"
            raise UsageError(what, where=self._where, code="executor-refused")
        if len(jobs) == 1:
            return [SubmittedJob(match[1], str(files.logs / f"{match[1]}.txt"))]
        tasks = [(f"{match[1]}_{number}", files.logs / f"{match[1]}_{number}.txt") for number in range(len(jobs))]
        return [SubmittedJob(task, str(log)) for task, log in tasks]

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return how the jobs stand, by one squeue of the user's jobs; sacct is asked for those it has forgotten.

        Raises:
            UsageError: squeue is not there, or gives no answer.
        """
        if not ids:
            return {}
        layout = ",".join(f"{field}:|" for field in _FIELDS)
        words = ("--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--Format={layout}")
        known = dict(_states_of_squeue(self._call("squeue", *words)))
        states = {job: known[job] for job in ids if job in known}
        forgotten = [job for job in ids if job not in states]
        if forgotten:
            with contextlib.suppress(UsageError):  # a cluster without accounting; the files of a run say how it ended
                jobs = ",".join(forgotten)
                words_of_sacct = ("--noheader", "--parsable2", "--allocations", f"--jobs={jobs}")
                fields = "--format=JobID,State,Reason,Start,NodeList,ExitCode"
                states |= dict(_states_of_sacct(self._call("sacct", *words_of_sacct, fields), set(forgotten)))
        return states

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs.

        Raises:
            UsageError: scancel is not there, or refuses.
        """
        if ids:
            self._call("scancel", *ids)

    def _call(self, program: str, *words: str) -> str:
        """Return what a command of Slurm prints.

        Raises:
            UsageError: it is not installed, refuses or hangs; in its own words.
        """
        environ = submitting_environment()
        patience = _PATIENCE_TO_ASK if program in {"squeue", "sacct"} else PATIENCE
        try:
            done = subprocess.run(
                [program, *words],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=patience,
                env=environ,
            )
        except FileNotFoundError:
            what = f"there is no command {program} on this machine"
            hint = "work on a login node of the cluster, or load its module of Slurm"
            raise UsageError(what, where=self._where, hint=hint, code="executor-not-installed") from None
        except subprocess.TimeoutExpired:
            what = f"{program} gave no answer in {patience:.0f} s"
            raise UsageError(what, where=self._where, code="executor-no-answer") from None
        except OSError as error:
            raise RunFailedError(f"{program} cannot be started: {error.strerror}", where=self._where) from error
        if done.returncode:
            said = "; ".join(line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip())
            what = said[:1000] or f"{program} ended with {done.returncode}"
            raise UsageError(what, where=self._where, hint="these are Slurm's own words", code="executor-refused")
        return done.stdout


def _states_of_squeue(text: str) -> Iterator[tuple[str, JobState]]:
    """Yield id and state of each line of squeue in our format."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) < len(_FIELDS):
            continue
        job, word, reason, start, node, restarts, code = fields[: len(_FIELDS)]
        count = int(restarts) if restarts.isdigit() else 0
        if word == "PENDING" and count:
            word = "REQUEUED"
        yield job, _state(word, reason, start, node=node, restarts=count, code=code)


def _states_of_sacct(text: str, ids: set[str]) -> Iterator[tuple[str, JobState]]:
    """Yield id and state of each line of sacct that is about a job that was asked for."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 6 and fields[0] in ids:
            job, word, reason, start, node, code = fields
            yield job, _state(word.partition(" ")[0], reason, start, node=node, restarts=0, code=code)


def _state(word: str, reason: str, start: str, *, node: str, restarts: int, code: str) -> JobState:
    phase: Phase = "running" if word in _RUNNING else "pending" if word in _PENDING else "ended"
    reason = "" if reason in _NO_REASON else reason
    failed = re.match(r"[1-9]\d*", code)
    if phase == "ended" and not reason and failed:
        reason = f"exit code {code.partition(':')[0]}"
    return JobState(
        phase=phase,
        word=word,
        reason=reason,
        start="" if start in _NO_REASON else start,
        node="" if node in _NO_REASON else node,
        restarts=restarts,
    )
