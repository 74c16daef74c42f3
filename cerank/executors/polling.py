"""Asking executors how the jobs of a lab stand: seldom, one question for all jobs, and the answer is kept in the lab.

Invariant: an executor is asked by one process at a time, and not again before the time that its last answer names,
however many commands and dashboards look at the lab: 10 s after a change, up to a minute where nothing changes, up to
five minutes where it gave no answer. Ages are by the file server's clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from cerank.errors import CerankError
from cerank.executors import choice
from cerank.executors.interface import JobExecutor
from cerank.files import json_records, lease_files
from cerank.files.lease import Lease
from cerank.runs import job_records, run_store
from cerank.runs.job_records import JobAnswer, JobRecord, JobState
from cerank.runs.layout import JobFolder, RunFolder

LEAST_SECONDS = 10.0  # between two questions
MOST_SECONDS = 60.0  # while nothing changes
MOST_AFTER_ERROR = 300.0  # while there is no answer
_GONE = JobState(phase="unknown", word="UNKNOWN", reason="its executor does not know it any more")

ExecutorOf = Callable[[JobRecord], JobExecutor]


def refresh(lab: Path, *, force: bool = False, executor_of: ExecutorOf = choice.of_job) -> None:
    """Ask each executor how the lab's unfinished jobs stand, if it is time to; never raises an error of an executor.

    Args:
        lab: folder of the lab.
        force: ask now, whenever it was asked last.
        executor_of: returns the executor of a job.
    """
    if not JobFolder(lab).path.is_dir():
        return
    jobs: dict[str, list[JobRecord]] = {}
    fresh = {path.stem for path in JobFolder(lab).path.glob("*.json") if not force and not _is_due(path)}
    for _, record in job_records.records(_unfinished(lab)):
        if record.id and JobFolder(lab).answer(record.executor).stem not in fresh:
            jobs.setdefault(record.executor, []).append(record)
    if not jobs:
        return
    with contextlib.suppress(CerankError), Lease.take(JobFolder(lab).lock):
        for name, records in jobs.items():
            if force or _is_due(JobFolder(lab).answer(name)):  # another process may have asked meanwhile
                _ask(lab, name, records, executor_of)


def _unfinished(lab: Path) -> list[RunFolder]:
    return [folder for folder in run_store.folders(lab) if not folder.done.exists()]


def _is_due(path: Path) -> bool:
    try:
        age = lease_files.server_age(path)
        answer = json_records.load(path, JobAnswer)
    except (OSError, CerankError):
        return True
    return not 0.0 <= age < answer.wait


def _ask(lab: Path, name: str, records: Sequence[JobRecord], executor_of: ExecutorOf) -> None:
    before = job_records.answer_of(lab, name)
    ids = [job for record in records for job in record.ids]
    open_ids = [job for job in dict.fromkeys(ids) if job not in before.states or before.states[job].phase != "ended"]
    known = {job: state for job, state in before.states.items() if job in ids}
    try:
        answers = executor_of(records[-1]).states(open_ids) if open_ids else {}
    except CerankError as error:
        wait = min(MOST_AFTER_ERROR, max(LEAST_SECONDS, before.wait * 2))
        answer = JobAnswer(states=known, wait=wait, error=str(error))
    else:
        states = known | {job: answers.get(job, _GONE) for job in open_ids}
        is_same = states == before.states
        wait = min(MOST_SECONDS, max(LEAST_SECONDS, before.wait * 1.5)) if is_same else LEAST_SECONDS
        answer = JobAnswer(states=states, wait=wait)
    json_records.save(JobFolder(lab).answer(name), answer)
