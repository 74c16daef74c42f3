"""stop, resume and rm act on all runs of a sweep or a matrix that they fit, and say what they did with which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from cerank.app import Lab
from cerank.app.run_views import several_runs
from cerank.cli.typer_app import app
from cerank.errors import HeldError, UsageError
from cerank.files import lease
from cerank.recipes.matrix_schema import MatrixCell, MatrixRecord
from cerank.runs import job_records, queue, run_store
from cerank.runs.declared_records import MATRICES, SWEEPS
from cerank.runs.job_records import JobRecord
from cerank.runs.layout import RunFolder
from tests.refusals import refused
from tests.tui.labs import NOW, LabFolder, keep_sweep

KINDS = ("finished", "running", "queued", "queued again", "paused", "stopped early", "failed")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabFolder]:
    monkeypatch.setenv("CERANK_LAB", str(tmp_path / "lab"))
    monkeypatch.setattr(Lab, "start_queue", lambda _self: None)
    monkeypatch.setattr(lease, "signal_owner", lambda *_: True)  # this process holds the run that is at work
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    made = LabFolder(tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture
def trials(lab: LabFolder) -> dict[str, RunFolder]:
    """A run in each state, all of them trials of the sweep `rates`, and a run that is none."""
    runs = {kind: lab.run(kind) for kind in KINDS}
    lab.finished(lab.started(runs["finished"], 5))
    lab.running(lab.started(runs["running"], 5))
    for kind in ("queued", "queued again"):
        queue.add(runs[kind], NOW)
    for kind in ("paused", "stopped early"):
        lab.event(lab.started(runs[kind], 5), "paused", "at a checkpoint")
    lab.failed(lab.started(runs["failed"], 5))
    keep_sweep(lab, [folder.name for folder in runs.values()], stopped={KINDS.index("stopped early") + 1: 3}, planned=9)
    queue.add(lab.run("another"), NOW)
    return runs


def keep_matrix(lab: LabFolder, runs: list[str], name: str = "grid") -> None:
    cells = tuple(MatrixCell(run=run, recipe="a", base="b", seed=seed) for seed, run in enumerate(runs))
    record = MatrixRecord(
        name=name,
        sha256="ab" * 32,
        baseline="a",
        tests=("t",),
        first_stages=("f",),
        depth=100,
        measures={},
        cells=cells,
    )
    MATRICES.save(lab.path, record)


def cerank(*words: str) -> None:
    app(list(words), standalone_mode=False)


def submitted(folder: RunFolder, template: str, *, is_canceled: bool = False, **options: str) -> None:
    """Record a job of the run, of an executor whose options have this template."""
    chosen = {"kind": "command", "template": template, "action": "run", **options}
    record = JobRecord(executor="box", kind="command", id="7", options=chosen, is_canceled=is_canceled)
    job_records.save(folder, record)


def queued(lab: LabFolder) -> list[str]:
    return [run_store.load_plan(RunFolder(lab.path / "runs" / entry.run)).label for entry in queue.entries(lab.path)]


def test_stopping_a_sweep_stops_what_is_at_work_and_empties_its_places_in_the_queue(
    lab: LabFolder, trials: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    stop = Lab.stop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "stop", lambda self, folder: (order.append(folder.name), stop(self, folder))[1])
        cerank("stop", "rates")
    assert order == [trials[kind].name for kind in ("queued", "queued again", "running")]  # the queue first
    assert queued(lab) == ["another"]
    assert trials["running"].stop.exists()
    said = capsys.readouterr().err
    for words in ("3 runs of sweep rates", "1 will stop", "2 are waiting", "`cerank resume rates`", "The other 4"):
        assert words in said
    assert "1 stopped early" in said
    lab.close()
    with refused(UsageError, "run-state", "rates"):
        cerank("stop", "rates")  # nothing is left to stop


def test_resuming_a_sweep_queues_all_but_what_it_has_done_with(
    lab: LabFolder, trials: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run("never queued, and no trial")
    cerank("resume", "rates")
    assert queued(lab) == ["queued", "queued again", "another", "paused", "failed"]
    shown = capsys.readouterr()
    assert "2 runs are queued" in shown.err
    assert "The other 5" in shown.err
    assert "`cerank sweep`" in shown.err  # two of its nine trials were not made yet
    assert shown.out.split() == [trials[kind].name for kind in ("paused", "failed")]
    with refused(UsageError, "run-state", "rates"):
        cerank("resume", "rates")
    for option in (("--devices", "2"), ("--detach",)):
        with refused(UsageError, "options-conflict", option[0]):
            cerank("resume", "rates", *option)


def test_a_matrix_says_which_of_its_runs_another_one_has_too(
    lab: LabFolder, trials: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    keep_matrix(lab, [trials["paused"].name, trials["stopped early"].name, trials["queued"].name, "deleted"])
    keep_matrix(lab, [trials["paused"].name], name="other")
    cerank("resume", "grid")
    said = capsys.readouterr().err
    assert "2 of these runs" in said
    assert "sweep rates, matrix other" in said
    # a matrix stops no run early, so that it resumes what a sweep has done with
    assert queued(lab)[-2:] == ["paused", "stopped early"]
    cerank("stop", "grid")
    assert queued(lab) == ["queued again", "another"]
    assert several_runs.records_of_runs(lab.path, [trials["paused"].name, "unknown"]) == {
        trials["paused"].name: ("sweep rates", "matrix grid", "matrix other")
    }


def test_a_sweep_is_deleted_whole_or_not_at_all_and_its_record_stays(
    lab: LabFolder, trials: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    keep_matrix(lab, [trials["finished"].name])
    with refused(HeldError, "run-held", 1, 7):
        cerank("rm", "rates", "--yes")
    assert all(folder.path.exists() for folder in trials.values())
    lab.close()
    with pytest.raises(UsageError):
        cerank("rm", "rates")  # nobody is there to be asked
    assert all(folder.path.exists() for folder in trials.values())
    capsys.readouterr()
    cerank("rm", "rates", "--yes")
    said = capsys.readouterr().err
    assert "1 of these runs" in said
    assert said.count("deleted ") == len(trials)
    assert [run_store.load_plan(folder).label for folder in run_store.folders(lab.path)] == ["another"]
    assert queued(lab) == ["another"]
    assert SWEEPS.load_if_there(lab.path, "rates") is not None
    for verb in ("stop", "resume"):
        with refused(UsageError, "run-not-found", "sweep", "deleted"):
            cerank(verb, "rates")


def test_each_run_is_submitted_again_with_the_options_of_its_own_job(lab: LabFolder) -> None:
    runs = [lab.run(str(number)) for number in range(3)]
    templates = ["echo small # {command}", "echo large # {command}", "echo small # {command}"]
    for run, template in zip(runs, templates, strict=True):
        lab.event(lab.started(run, 5), "paused", "at a checkpoint")
        submitted(run, template, is_canceled=True)
    keep_matrix(lab, [run.name for run in runs])
    cerank("resume", "grid")
    records = [job_records.load(run) for run in runs]
    assert [record.options["template"] for record in records if record is not None] == templates
    assert [record.id for record in records if record is not None] == ["small", "large", "small"]


def test_one_job_that_cannot_be_canceled_keeps_no_other_run_from_being_stopped(
    lab: LabFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [lab.run(str(number)) for number in range(3)]
    submitted(runs[0], "echo {command}", cancel="echo refused {id}; false")
    for run in runs[1:]:
        queue.add(run, NOW)
    keep_matrix(lab, [run.name for run in runs])
    with refused(UsageError, "executor-refused", "refused", 7):
        cerank("stop", "grid", "--wait")
    assert queued(lab) == []
    said = capsys.readouterr().err
    assert "2 are waiting" in said
    assert "1 is queued" in said
    assert f"{run_store.title(runs[0])} was not stopped" in said


def test_none_is_deleted_where_one_started_while_the_user_was_asked(
    lab: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [lab.run(str(number)) for number in range(3)]
    for run in runs:
        queue.add(run, NOW)
    keep_matrix(lab, [run.name for run in runs])

    def answer(*_words: object, **_options: object) -> bool:
        lab.running(lab.started(runs[1], 5))
        return True

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "confirm", answer)
    with refused(HeldError, "run-held", 1, 3):
        cerank("rm", "grid")
    assert all(run.path.exists() for run in runs)
    assert queued(lab) == ["0", "1", "2"]  # the others still wait


def test_a_run_that_is_called_like_a_sweep_goes_first_and_is_deleted_alone(
    lab: LabFolder, trials: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    namesake = lab.run("rates")
    assert several_runs.of_record(lab.lab, "rates") is None
    cerank("rm", "rates", "--yes")
    assert not namesake.path.exists()
    assert all(folder.path.exists() for folder in trials.values())
    capsys.readouterr()
    cerank("rm", "failed", "--yes")  # a trial by its own name: what it was of is said
    said = capsys.readouterr().err
    assert "run of sweep rates" in said
    assert "record of sweep rates" in said
