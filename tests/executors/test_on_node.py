"""What a job does on its node: it starts a worker, passes signals on, and decides whether to be requeued."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cerank.errors import ExitCode
from cerank.executors.on_node import NodeJob, Signals, arguments_for
from cerank.executors.slurm_script import REQUEUE
from cerank.files import journal, json_records
from cerank.files.journal import Journal
from cerank.machine import devices
from cerank.runs import job_records, run_store
from cerank.runs.job_records import JobRecord, JobStart, SubmissionMark
from cerank.runs.layout import RunFolder
from cerank.runs.records import Failure
from tests.scheduler.conftest import GPUS, STANDIN, TOML, plan_for


def waiting_run(lab: Path, label: str = "quick", **changes: object) -> RunFolder:
    plan = msgspec.structs.replace(plan_for(label=label), **changes)
    return run_store.create(lab, plan, TOML, datetime.now(UTC))


def rows(folder: RunFolder) -> list[JobStart]:
    return journal.read_valid_rows(folder.job_starts, JobStart)[0]


def failure_of(folder: RunFolder) -> str:
    return json_records.load(folder.failure, Failure).what


@pytest.fixture
def job_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURMD_NODENAME", "node7")


def ended_by_signal(folder: RunFolder, number: int, max_requeues: int = 5) -> int:
    """The code of a job that gets the signal once its worker is at work."""
    signals = Signals()
    signals.install()

    def warn() -> None:
        while not folder.attempt(1).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    thread = threading.Thread(target=warn)
    thread.start()
    try:
        return NodeJob(folder, signals, max_requeues=max_requeues, command=STANDIN).carry_out()
    finally:
        thread.join()
        for restored, handler in before.items():
            signal.signal(restored, handler)


def test_a_job_carries_its_run_out_and_says_where(tmp_path: Path, job_of_slurm: None) -> None:
    folder = waiting_run(tmp_path)
    assert NodeJob(folder, Signals(), max_requeues=1, command=STANDIN).carry_out() == ExitCode.OK
    assert run_store.status(folder, datetime.now(UTC)).state == "finished"
    assert [(row.kind, row.host, row.job, row.restarts) for row in rows(folder)] == [
        ("started", "node7", "42", 1),
        ("ended", "node7", "42", 1),
    ]


def test_the_end_of_its_time_pauses_the_run_and_requeues_the_job(tmp_path: Path, job_of_slurm: None) -> None:
    folder = waiting_run(tmp_path, "hold")
    assert ended_by_signal(folder, signal.SIGUSR2) == REQUEUE
    assert run_store.status(folder, datetime.now(UTC)).state == "paused"
    assert rows(folder)[-1].kind == "requeued"


@pytest.mark.slow
def test_any_other_signal_pauses_the_run_and_requeues_nothing(tmp_path: Path, job_of_slurm: None) -> None:
    folder = waiting_run(tmp_path, "hold")
    assert ended_by_signal(folder, signal.SIGTERM) == ExitCode.PAUSED
    assert run_store.status(folder, datetime.now(UTC)).state == "paused"


@pytest.mark.slow
def test_a_run_that_fails_is_not_requeued(tmp_path: Path, job_of_slurm: None) -> None:
    folder = waiting_run(tmp_path, "fail")
    assert NodeJob(folder, Signals(), max_requeues=5, command=STANDIN).carry_out() == ExitCode.FAILED
    assert failure_of(folder) == "as asked"


def test_the_limit_of_requeues_holds_whoever_requeued(tmp_path: Path, job_of_slurm: None) -> None:
    folder = waiting_run(tmp_path, "hold")
    assert ended_by_signal(folder, signal.SIGUSR2, max_requeues=1) == ExitCode.PAUSED
    assert "1" in failure_of(folder)
    other = waiting_run(tmp_path)
    assert NodeJob(other, Signals(), max_requeues=0, command=STANDIN).carry_out() == ExitCode.FAILED
    assert not other.log.exists()  # no worker was started


@pytest.mark.slow
def test_a_job_whose_time_never_suffices_is_given_up(tmp_path: Path, job_of_slurm: None) -> None:
    folder = waiting_run(tmp_path, "hold")
    starts = Journal(folder.job_starts, JobStart)
    for _ in range(2):
        starts.append(JobStart(kind="started", time="", host="node7", files=0))
    starts.close()
    assert ended_by_signal(folder, signal.SIGUSR2) == ExitCode.PAUSED
    assert run_store.status(folder, datetime.now(UTC)).state == "failed"


def test_a_run_that_was_stopped_before_its_job_began_is_not_started(tmp_path: Path) -> None:
    folder = waiting_run(tmp_path)
    job_records.save(folder, JobRecord(executor="s", kind="slurm", id="42", is_canceled=True))
    assert NodeJob(folder, Signals(), command=STANDIN).carry_out() == ExitCode.PAUSED
    assert not folder.log.exists()


def test_a_job_of_an_earlier_submission_ends_at_once_and_leaves_the_run_to_the_newer_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = waiting_run(tmp_path)
    job_records.save(folder, JobRecord(executor="bigbox", kind="slurm", id="57"))
    job_records.mark_submission(folder, SubmissionMark(id="newer"))
    assert NodeJob(folder, Signals(), submission="older", command=STANDIN).carry_out() == ExitCode.PAUSED
    assert "bigbox job 57" in capfd.readouterr().out
    assert not folder.log.exists()
    assert not folder.failure.exists()
    assert not folder.job_starts.exists()
    job_records.mark_submission(folder, None)  # resumed on another machine, without an executor
    assert NodeJob(folder, Signals(), submission="older", command=STANDIN).carry_out() == ExitCode.PAUSED
    assert not folder.log.exists()
    job_records.mark_submission(folder, SubmissionMark(id="newer"))
    assert NodeJob(folder, Signals(), submission="newer", command=STANDIN).carry_out() == ExitCode.OK
    assert folder.log.exists()


@pytest.mark.parametrize("code", ["", "another code"])
def test_another_cerank_on_the_node_is_refused_with_both(tmp_path: Path, code: str) -> None:
    folder = waiting_run(tmp_path, versions={} if code else {"cerank": "0.0.7"})
    assert NodeJob(folder, Signals(), code=code, command=STANDIN).carry_out() == ExitCode.FAILED
    assert (code or "0.0.7") in failure_of(folder)
    assert not folder.log.exists()


@pytest.mark.slow
def test_the_same_code_is_accepted(tmp_path: Path) -> None:
    folder = waiting_run(tmp_path)
    words = arguments_for([folder])
    code = words[words.index("--code") + 1]
    assert NodeJob(folder, Signals(), code=code, command=STANDIN).carry_out() == ExitCode.OK


def test_a_job_for_a_shared_stage_ends_when_the_stage_is_finished(tmp_path: Path) -> None:
    folder = waiting_run(tmp_path, "hold")

    def finish() -> None:
        while not folder.attempt(1).exists():
            time.sleep(0.01)
        folder.final(0, "a").mkdir(parents=True)

    thread = threading.Thread(target=finish)
    thread.start()
    assert NodeJob(folder, Signals(), until=0, command=STANDIN).carry_out() == ExitCode.OK
    thread.join()
    assert run_store.status(folder, datetime.now(UTC)).state == "paused"
    assert NodeJob(folder, Signals(), until=0, command=("false",)).carry_out() == ExitCode.OK  # nothing is left to do


def test_a_node_that_does_not_see_the_lab_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "runs" / "absent")
    assert NodeJob(folder, Signals(), command=STANDIN).carry_out() == ExitCode.USAGE
    assert str(folder.path) in capfd.readouterr().out


@pytest.mark.parametrize(("shown", "code"), [("1", ExitCode.FAILED), ("0,1", ExitCode.OK)])
def test_a_job_that_got_fewer_gpus_than_its_plan_has_devices_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, code: ExitCode
) -> None:
    monkeypatch.setattr(devices, "detect_gpus", lambda: list(GPUS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    folder = waiting_run(tmp_path, device="cuda", devices=("cuda", "cuda"), step_shards=8)
    assert NodeJob(folder, Signals(), command=STANDIN).carry_out() == code
    if code:
        assert "1 GPU" in failure_of(folder)
        assert "2 devices" in failure_of(folder)
        assert not folder.log.exists()
