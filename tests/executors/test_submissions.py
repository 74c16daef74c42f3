"""What is submitted for runs that share stages: each shared stage once, and the runs after it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cerank.app import Lab
from cerank.cli.typer_app import app
from cerank.errors import RunFailedError, UsageError
from cerank.executors import choice
from cerank.executors.interface import GROUP, Needs
from cerank.executors.submissions import Submission, runs_waiting_for, shared_stages
from cerank.recipes.plan import Input, Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.runs import job_records, run_store
from cerank.runs.job_records import JobAnswer, JobRecord, JobState
from cerank.runs.layout import JobFolder, RunFolder
from cerank.settings import Settings
from tests.executors.conftest import MemoryExecutor, ScriptedSlurm
from tests.refusals import refused


def run_of(lab: Path, *steps: int, shares: bool = True, **changes: Any) -> RunFolder:
    """A run whose stages have so many steps; runs with the same first numbers share those stages."""
    names = "abcdef"[: len(steps)]
    stages = {name: {"steps": count} for name, count in zip(names, steps, strict=True)}
    recipe = recipe_from({"name": "-".join(map(str, steps)), "chain": list(names), "stages": stages}, "test")
    data = recipe.data
    first = data.validation_first_stage or data.first_stages[0]
    uses = [("first_stage", f"{first} on {name}") for name in {data.train, data.validation}]
    inputs = [("base", recipe.base), ("dataset", data.train), ("dataset", data.validation), *uses]
    pinned = tuple(Input(role, name, "0" * 64) for role, name in inputs)
    plan = Plan(recipe=recipe, inputs=pinned, device="cpu", threads=1, cache="/c", shares=shares)
    return run_store.create(lab, msgspec.structs.replace(plan, **changes), b"", datetime.now(UTC))


def told(executor: MemoryExecutor) -> list[tuple[str, str, list[str], tuple[str, ...]]]:
    """(id, until, recipes, after) of each job."""
    rows = []
    for job, arguments, after in executor.submitted:
        until = arguments[arguments.index("--until") + 1] if "--until" in arguments else ""
        folders = [RunFolder(Path(word)) for word in arguments if word.startswith("/")]
        rows.append((job, until, [run_store.load_plan(folder).recipe.name for folder in folders], after))
    return rows


def test_a_stage_that_all_share_and_one_that_some_share_are_listed_once_each() -> None:
    runs = [("a", "b", "c"), ("a", "b", "d"), ("a", "e"), ("x",)]
    assert [(stage.key, stage.index, stage.run) for stage in shared_stages(runs, set())] == [("a", 0, 0), ("b", 1, 0)]
    assert [stage.key for stage in shared_stages(runs, {"a"})] == ["b"]
    assert shared_stages([("a", "b"), ("c", "d")], set()) == []


def test_of_stages_that_the_same_runs_share_only_the_last_is_listed() -> None:
    assert [stage.key for stage in shared_stages([("a", "b", "c"), ("a", "b", "d")], set())] == ["b"]


def test_each_shared_stage_is_one_job_and_the_runs_wait_for_the_last_they_share(tmp_path: Path) -> None:
    folders = [run_of(tmp_path, *steps) for steps in ((1, 2, 3), (1, 2, 4), (1, 5), (9,))]
    executor = MemoryExecutor()
    records = Submission(executor, folders).submit()
    assert told(executor) == [
        ("1", "0", ["1-2-3"], ()),
        ("2", "1", ["1-2-3"], ("1",)),
        ("3", "", ["1-2-3"], ("2",)),
        ("4", "", ["1-2-4"], ("2",)),
        ("5", "", ["1-5"], ("1",)),
        ("6", "", ["9"], ()),
    ]
    assert records[0].ids == ("1", "2", "3")
    assert [job_records.load(folder) for folder in folders] == records


def test_a_finished_stage_is_not_trained_again_and_one_under_way_is_waited_for(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    finished = run_of(tmp_path, 1, 3)
    finished.final(0, "a").mkdir(parents=True)
    Submission(executor, [run_of(tmp_path, 2, 7)]).submit()
    Submission(executor, [run_of(tmp_path, *steps) for steps in ((1, 4), (1, 5), (2, 8))]).submit()
    assert told(executor)[1:] == [("2", "", ["1-4"], ()), ("3", "", ["1-5"], ()), ("4", "", ["2-8"], ("1",))]


def test_a_job_that_has_ended_or_was_canceled_is_not_waited_for(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    first, second = run_of(tmp_path, 1, 2), run_of(tmp_path, 3, 4)
    records = Submission(executor, [first, second]).submit()
    job_records.save(first, msgspec.structs.replace(records[0], is_canceled=True))
    states = {"2": JobState(phase="ended", word="FAILED")}
    answer = JobFolder(tmp_path).answer("memory")
    answer.parent.mkdir(parents=True, exist_ok=True)
    answer.write_bytes(msgspec.json.encode(JobAnswer(states=states)))
    Submission(executor, [run_of(tmp_path, 1, 5), run_of(tmp_path, 3, 6)]).submit()
    assert [after for *_, after in told(executor)[2:]] == [(), ()]


def test_runs_that_are_not_of_a_matrix_share_nothing(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    Submission(executor, [run_of(tmp_path, 1, 2, shares=False), run_of(tmp_path, 1, 3, shares=False)]).submit()
    assert [(until, after) for _, until, _, after in told(executor)] == [("", ()), ("", ())]


def test_where_jobs_cannot_wait_runs_that_share_a_stage_are_one_job_in_order(tmp_path: Path) -> None:
    folders = [run_of(tmp_path, *steps) for steps in ((1, 2), (8, 9), (1, 3))]
    executor = MemoryExecutor(waits=False)
    records = Submission(executor, folders).submit()
    assert told(executor) == [("1", "", ["1-2", "1-3"], ()), ("2", "", ["8-9"], ())]
    assert [record.id for record in records] == ["1", "2", "1"]


def test_a_refusal_half_way_cancels_what_was_submitted_and_leaves_no_record(tmp_path: Path) -> None:
    folders = [run_of(tmp_path, 1, 2), run_of(tmp_path, 1, 3)]
    executor = MemoryExecutor(refuse_after=1)
    with refused(UsageError, "executor-refused"):
        Submission(executor, folders).submit()
    assert executor.canceled == ["1"]
    assert [job_records.load(folder) for folder in folders] == [None, None]


def test_after_a_refusal_the_jobs_of_the_submission_before_may_still_begin(tmp_path: Path) -> None:
    again, new = run_of(tmp_path, 1, 2), run_of(tmp_path, 1, 3)
    executor = MemoryExecutor()
    Submission(executor, [again]).submit()
    mark = again.submission.read_bytes()
    executor.refuse_after = len(executor.submitted)
    with refused(UsageError, "executor-refused"):
        Submission(executor, [again, new]).submit()
    assert again.submission.read_bytes() == mark
    assert not new.submission.exists()


def test_jobs_whose_records_cannot_be_kept_are_canceled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: RunFolder, record: JobRecord) -> None:
        raise RunFailedError("the disk is full", where=str(folder.path))

    executor = MemoryExecutor()
    monkeypatch.setattr(job_records, "save", full)
    with refused(RunFailedError, "failed"):
        Submission(executor, [run_of(tmp_path, 1)]).submit()
    assert executor.canceled == ["1"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_submission_withdraws_what_an_earlier_attempt_left(tmp_path: Path, count: int) -> None:
    folder = run_of(tmp_path, 1)
    for path in (folder.stop, folder.failure)[:count]:
        path.write_text("")
    Submission(MemoryExecutor(), [folder]).submit()
    assert not folder.stop.exists()
    assert not folder.failure.exists()


def test_jobs_are_told_what_the_processes_of_their_plans_need_and_unlike_ones_are_no_array(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    two = run_of(tmp_path, 1, device="cuda", devices=("cuda", "cuda"), step_shards=8, threads=3)
    Submission(executor, [two, run_of(tmp_path, 2), run_of(tmp_path, 3)]).submit()
    assert executor.needs == [Needs("cuda", 2, 3), Needs("cpu", 1, 1), Needs("cpu", 1, 1)]
    assert executor.calls == [1, 2]


def test_a_plan_for_more_devices_than_a_job_gets_is_not_submitted(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    with refused(UsageError, "executor-device"):
        Submission(executor, [run_of(tmp_path, 1), run_of(tmp_path, 2, devices=("cpu",) * 4, step_shards=8)]).submit()
    assert executor.submitted == []


def test_the_runs_that_wait_for_a_stage_of_a_stopped_run_are_known_until_it_is_finished(tmp_path: Path) -> None:
    first, second, third, apart = (run_of(tmp_path, *steps) for steps in ((1, 2, 3), (1, 2, 4), (1, 5), (9,)))
    Submission(MemoryExecutor(), [first, second, third, apart]).submit()
    assert [set(runs_waiting_for(folder)) for folder in (first, second, apart)] == [{second, third}, set(), set()]
    record = job_records.load(third)
    assert record is not None
    job_records.save(third, msgspec.structs.replace(record, is_canceled=True))
    assert runs_waiting_for(first) == [second]
    first.final(1, "b").mkdir(parents=True)
    first.final(0, "a").mkdir(parents=True)
    assert runs_waiting_for(first) == []


def test_stopping_a_run_does_not_cancel_the_job_that_carries_out_others_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = MemoryExecutor(waits=False)

    class Point:
        name = "memory"

        def load(self) -> Any:
            return lambda name, options: executor

    monkeypatch.setattr(choice, "entry_points", lambda group: [Point()] if group == GROUP else [])
    settings = Settings(lab=tmp_path, cache=tmp_path / "c", device="cpu", threads=1, format="", executor="memory")
    lab = Lab(settings)
    first, second = run_of(tmp_path, 1, 2), run_of(tmp_path, 1, 3)
    lab.submit([first, second])
    executor.told["1"] = JobState(phase="pending", word="PENDING")
    lab.stop(first)
    assert executor.canceled == []
    assert [lab.status(folder).state for folder in (first, second)] == ["waiting", "queued"]
    lab.stop(second)
    assert executor.canceled == ["1"]


def test_a_run_whose_executor_is_gone_can_be_stopped_and_then_resumed_elsewhere(
    tmp_path: Path, slurm: ScriptedSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"slurm": {"gpus": 0}}
    settings = Settings(
        lab=tmp_path, cache=tmp_path / "c", device="cpu", threads=1, format="", executor="slurm", executors=options
    )
    lab = Lab(settings)
    folder = run_of(tmp_path, 1)
    (record,) = lab.submit([folder])
    slurm.squeue(f"{record.id}|PENDING|Priority|N/A||0|0|")
    lab.refresh_jobs(force=True)
    slurm.refuses("scancel", "scancel: error: not your job")
    with refused(UsageError, "executor-refused", "not your job"):
        lab.stop(folder)
    slurm.refuses("squeue", "Unable to contact slurm controller")
    with refused(UsageError, "run-state", record.id):
        lab.check_resumable(folder)
    monkeypatch.setenv("CERANK_LAB", str(tmp_path))
    app(["stop", folder.name], standalone_mode=False)
    assert "slurm controller" in capsys.readouterr().err
    kept = job_records.load(folder)
    assert kept is not None
    assert kept.is_canceled
    lab.check_resumable(folder)


def test_the_run_knows_its_newest_submission_before_a_job_of_it_can_begin(tmp_path: Path) -> None:
    folder = run_of(tmp_path, 1)
    marks = []
    for _ in range(2):
        executor = MemoryExecutor()
        Submission(executor, [folder]).submit()
        (_, arguments, _), *_ = executor.submitted
        marks.append(arguments[arguments.index("--submission") + 1])
    assert [job_records.is_newest_submission(folder, mark) for mark in marks] == [False, True]
