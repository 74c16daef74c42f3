"""Executors are asked seldom, once for all jobs, by one process at a time; what they say explains waiting runs."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cerank.app.run_views.run_monitor import LabMonitor
from cerank.errors import UsageError
from cerank.executors import polling
from cerank.files import json_records
from cerank.files.lease import Lease
from cerank.runs import job_records, run_store
from cerank.runs.job_records import JobAnswer, JobRecord, JobState
from cerank.runs.layout import JobFolder, RunFolder
from cerank.runs.records import Done, Failure
from tests.executors.conftest import MemoryExecutor
from tests.scheduler.conftest import TOML, plan_for

PENDING = JobState(phase="pending", word="PENDING", reason="Priority", start="2026-11-28T21:05:00")
RUNNING = JobState(phase="running", word="RUNNING", node="node1")
FAILED = JobState(phase="ended", word="TIMEOUT", node="node1")


def run_with_job(lab: Path, *ids: str, **changes: object) -> RunFolder:
    folder = run_store.create(lab, plan_for(label=ids[-1]), TOML, datetime.now(UTC))
    JobFolder(lab).path.mkdir(exist_ok=True)
    record = JobRecord(executor="memory", kind="memory", id=ids[-1], before=ids[:-1])
    job_records.save(folder, msgspec.structs.replace(record, **changes))
    return folder


def refresh(lab: Path, executor: MemoryExecutor, *, age: float = 0.0, force: bool = False) -> None:
    """Ask, when the last answer is `age` seconds old."""
    answer = JobFolder(lab).answer("memory")
    if answer.exists():
        os.utime(answer, (time.time() - age,) * 2)
    polling.refresh(lab, force=force, executor_of=lambda record: executor)


def status(folder: RunFolder) -> run_store.Status:
    return run_store.status(folder, datetime.now(UTC))


def wait(lab: Path) -> float:
    return json_records.load(JobFolder(lab).answer("memory"), JobAnswer).wait


def test_all_jobs_are_asked_for_at_once_and_not_again_before_ten_seconds(tmp_path: Path) -> None:
    run_with_job(tmp_path, "1", "2")
    run_with_job(tmp_path, "3")
    executor = MemoryExecutor()
    executor.told = {"1": RUNNING, "2": PENDING, "3": PENDING}
    for age in (0.0, 1.0, 9.0):
        refresh(tmp_path, executor, age=age)
    assert [sorted(ids) for ids in executor.asked] == [["1", "2", "3"]]
    refresh(tmp_path, executor, age=11.0)
    assert len(executor.asked) == 2


def test_while_nothing_changes_the_questions_get_fewer_and_a_change_brings_them_back(tmp_path: Path) -> None:
    run_with_job(tmp_path, "1")
    executor = MemoryExecutor()
    executor.told = {"1": PENDING}
    waits = []
    for _ in range(7):
        refresh(tmp_path, executor, age=400.0)
        waits.append(wait(tmp_path))
    assert waits[:3] == [10.0, 15.0, 22.5]
    assert waits[-1] == polling.MOST_SECONDS
    executor.told = {"1": RUNNING}
    refresh(tmp_path, executor, age=400.0)
    assert wait(tmp_path) == polling.LEAST_SECONDS


def test_an_executor_that_gives_no_answer_is_asked_more_seldom_and_its_last_answer_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_with_job(tmp_path, "1")
    executor = MemoryExecutor()
    executor.told = {"1": PENDING}
    refresh(tmp_path, executor)

    def away(ids: object) -> dict[str, JobState]:
        raise UsageError("the controller is away", where="memory", code="executor-refused")

    monkeypatch.setattr(executor, "states", away)
    refresh(tmp_path, executor, age=11.0)
    answer = json_records.load(JobFolder(tmp_path).answer("memory"), JobAnswer)
    assert (answer.wait, answer.states["1"]) == (20.0, PENDING)
    assert "memory" in answer.error
    assert status(folder).state == "queued"


def test_while_another_process_asks_nobody_else_does(tmp_path: Path) -> None:
    run_with_job(tmp_path, "1")
    executor = MemoryExecutor()
    with Lease.take(JobFolder(tmp_path).lock):
        refresh(tmp_path, executor)
    assert executor.asked == []


def test_jobs_that_ended_and_runs_that_are_done_are_not_asked_for_again(tmp_path: Path) -> None:
    run_with_job(tmp_path, "1")
    json_records.save(run_with_job(tmp_path, "2").done, Done(time=""))
    executor = MemoryExecutor()
    executor.told = {"1": FAILED}
    refresh(tmp_path, executor)
    refresh(tmp_path, executor, force=True)
    assert executor.asked == [["1"]]


def test_a_lab_without_jobs_asks_nobody(tmp_path: Path) -> None:
    run_store.create(tmp_path, plan_for(), TOML, datetime.now(UTC))
    executor = MemoryExecutor()
    refresh(tmp_path, executor)
    assert executor.asked == []
    assert not JobFolder(tmp_path).path.exists()


def test_a_run_whose_job_waits_is_queued_and_says_why_and_until_when(tmp_path: Path) -> None:
    folder = run_with_job(tmp_path, "1", "2")
    assert status(folder).state == "queued"  # submitted, and nobody was asked yet
    executor = MemoryExecutor()
    executor.told = {"1": FAILED, "2": PENDING}
    refresh(tmp_path, executor)
    assert status(folder).state == "queued"
    shown = status(folder).text
    assert [part for part in ("job 2", "PENDING", "Priority", "21:05:00") if part not in shown] == []
    assert "job 1" not in shown
    (entry,) = LabMonitor(tmp_path).poll()
    assert entry.at == status(folder).text


def test_a_job_that_was_requeued_says_how_often_and_where_it_ran(tmp_path: Path) -> None:
    folder = run_with_job(tmp_path, "1")
    executor = MemoryExecutor()
    executor.told = {"1": JobState(phase="pending", word="REQUEUED", reason="BeginTime", restarts=2)}
    refresh(tmp_path, executor)
    shown = status(folder).text
    assert [part for part in ("job 1", "REQUEUED", "BeginTime", "2 times") if part not in shown] == []


def test_a_job_that_ended_without_a_trace_of_its_run_says_how_it_ended(tmp_path: Path) -> None:
    folder = run_with_job(tmp_path, "1")
    executor = MemoryExecutor()
    executor.told = {"1": FAILED}
    refresh(tmp_path, executor)
    assert status(folder).state == "waiting"
    assert [part for part in ("job 1", "TIMEOUT", "node1") if part not in status(folder).text] == []
    executor.told = {}
    other = run_with_job(tmp_path, "5")
    refresh(tmp_path, executor, force=True)
    assert status(other).state == "waiting"
    assert "UNKNOWN" in status(other).text


def test_the_files_of_a_run_say_more_than_an_old_answer_about_its_job(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    executor.told = {"1": RUNNING, "2": RUNNING, "3": PENDING}
    failed, finished, stopped = (run_with_job(tmp_path, job) for job in "123")
    refresh(tmp_path, executor)
    json_records.save(failed.failure, Failure(kind="RunFailedError", what="no"))
    json_records.save(finished.done, Done(time=""))
    record = job_records.load(stopped)
    assert record is not None
    job_records.save(stopped, msgspec.structs.replace(record, is_canceled=True))
    assert [status(folder).state for folder in (failed, finished, stopped)] == ["failed", "finished", "waiting"]
