"""What a lab knows of the jobs that carry out its runs on other machines: which job, and what its executor said of it.

Invariant: the files of a run alone say whether it is finished, failed or paused; a job's state only explains a run that
no worker is at. It is read from the lab, where whoever asked the executor last has left the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from cerank.errors import RunFailedError, os_error
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.files.safe_open import read_file
from cerank.runs.layout import JobFolder, RunFolder

JobStartKind = Literal["started", "ended", "requeued", "refused"]
Phase = Literal["pending", "running", "ended", "unknown"]


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor said of one job."""

    phase: Phase
    word: str = ""  # in the executor's own word, such as "PENDING", "REQUEUED" or "NODE_FAIL"
    reason: str = ""  # why it waits or ended, in the executor's own words
    start: str = ""  # when it is expected to start, or started; local time of the executor, ISO 8601
    node: str = ""  # the machine it runs on
    restarts: int = 0  # how often it was requeued

    @property
    def is_live(self) -> bool:
        """Return whether the job waits or runs."""
        return self.phase in {"pending", "running"}


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a run, as it was submitted."""

    executor: str  # the name by which the user chose it
    kind: str  # "slurm", "ray", "command", or the name of a plugin
    id: str
    before: tuple[str, ...] = ()  # jobs that train stages which other runs share, in the name of this run
    trains: dict[str, str] = {}  # key of a stage -> the job that finishes it
    options: dict[str, Any] = {}  # of the executor, so that the job is found from every folder
    time: str = ""  # UTC, ISO 8601
    host: str = ""  # where it was submitted
    log: str = ""  # file of what the job prints, or the command that shows it
    is_canceled: bool = False  # the user asked to stop it

    @property
    def ids(self) -> tuple[str, ...]:
        """Return all jobs in the order in which they run."""
        return (*self.before, self.id)


class SubmissionMark(msgspec.Struct, frozen=True, kw_only=True):
    """Which submission of a run is the newest; it is written before the executor hears of it."""

    id: str
    time: str = ""  # UTC, ISO 8601


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor said when it was asked for all jobs of a lab."""

    states: dict[str, JobState] = {}  # id -> state
    wait: float = 10.0  # seconds until it may be asked again
    error: str = ""  # why it gave no answer; the states are those of the answer before


class JobStart(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a run's journal of jobs: a job that began to carry it out, or ended doing so."""

    kind: JobStartKind
    time: str  # UTC, ISO 8601
    host: str
    job: str = ""
    restarts: int = 0
    files: int = 0  # how much of the run was done: its readings and finished files
    text: str = ""


class RunJob(msgspec.Struct, frozen=True):
    """The job of a run with its newest known state."""

    record: JobRecord
    id: str  # the one of its jobs that counts now
    state: JobState

    @property
    def text(self) -> str:
        """Return the job in a line: "slurm job 12: PENDING (Priority), expected at 2026-11-28 21:05"."""
        state = self.state
        name = f"{self.record.executor} job {self.id}" if self.id else self.record.executor
        parts = [f"{name}: {state.word or state.phase}"]
        parts[0] += f" ({state.reason})" if state.reason else ""
        if state.phase == "pending" and state.start:
            parts.append(f"expected at {state.start.replace('T', ' ')}")
        parts += [f"on {state.node}"] if state.node else []
        parts += [f"requeued {state.restarts} times" if state.restarts > 1 else "requeued once"] * bool(state.restarts)
        return ", ".join(parts)


def load(folder: RunFolder) -> JobRecord | None:
    """Return the job of a run; None where it has none, or its record is unreadable."""
    try:
        return json_records.load_if_there(folder.job, JobRecord)
    except DamagedError:
        return None


def save(folder: RunFolder, record: JobRecord) -> None:
    """Write the job of a run.

    Raises:
        RunFailedError: the disk refuses.
    """
    json_records.save(folder.job, record)


def mark_submission(folder: RunFolder, mark: SubmissionMark | None) -> None:
    """Make a submission the one whose jobs may carry the run out; None lets no job do so.

    Raises:
        RunFailedError: the disk refuses.
    """
    if mark is None:
        disk.remove(folder.submission)
    else:
        json_records.save(folder.submission, mark)


def submission_mark(folder: RunFolder) -> bytes | None:
    """Return the mark of the newest submission as it is on the disk; None where there is none.

    Raises:
        RunFailedError: the disk refuses.
    """
    try:
        return read_file(folder.submission)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_error(error, folder.submission, RunFailedError) from error


def restore_submission_mark(folder: RunFolder, mark: bytes | None, failed: str) -> None:
    """Put back the mark that was there before a submission that failed, unless a later one is there already.

    Args:
        folder: the run.
        mark: what `submission_mark` returned before.
        failed: id of the submission that failed.

    Raises:
        RunFailedError: the disk refuses.
    """
    if not is_newest_submission(folder, failed):
        return
    if mark is None:
        disk.remove(folder.submission)
    else:
        disk.write(folder.submission, mark)


def is_newest_submission(folder: RunFolder, submission: str) -> bool:
    """Return whether the jobs of a submission may carry the run out."""
    try:
        mark = json_records.load_if_there(folder.submission, SubmissionMark)
    except DamagedError:
        return True  # who holds the run's lease decides
    return mark is not None and mark.id == submission


def job_of(folder: RunFolder) -> RunJob | None:
    """Return the job of a run with the state that its executor last told; None where it has none."""
    record = load(folder)
    if record is None:
        return None
    answer = answer_of(folder.lab, record.executor)
    return newest(record, answer)


def newest(record: JobRecord, answer: JobAnswer) -> RunJob:
    """Return the first of a record's jobs that has not ended, else the last; a job nobody has asked for is pending."""
    # without an id nobody can ask, as for a line that the user runs
    states = [
        (job, answer.states.get(job, JobState(phase="pending" if job else "unknown", word="SUBMITTED")))
        for job in record.ids
    ]
    job, state = next(((job, state) for job, state in states if state.is_live), states[-1])
    return RunJob(record, job, state)


_answers: dict[Path, tuple[tuple[int, int], JobAnswer]] = {}  # a list of 500 runs reads the file once


def answer_of(lab: Path, executor: str) -> JobAnswer:
    """Return what the executor said last of the lab's jobs; an empty answer where it was never asked."""
    path = JobFolder(lab).answer(executor)
    try:
        state = path.stat()
        mark = (state.st_ino, state.st_mtime_ns)
        if path not in _answers or _answers[path][0] != mark:
            _answers[path] = (mark, json_records.load(path, JobAnswer))
    except (OSError, DamagedError):
        return JobAnswer()
    return _answers[path][1]


def records(folders: list[RunFolder]) -> Iterator[tuple[RunFolder, JobRecord]]:
    """Yield the runs that have a job, with its record."""
    for folder in folders:
        record = load(folder)
        if record is not None:
            yield folder, record
