"""The record of a matrix or a sweep follows its runs to another lab, once all of them are there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app import Lab
from cerank.app.over_ssh.copy_records import RecordsOfRuns
from cerank.app.over_ssh.lab_files import LabFiles
from cerank.app.over_ssh.lab_messages import LabCall
from cerank.app.over_ssh.lab_server import LabServer
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.recipes.matrix_schema import MatrixCell, MatrixRecord
from cerank.recipes.sweep_schema import SweepRecord, TrialRecord
from cerank.runs import run_store
from cerank.runs.declared_records import MATRICES, SWEEPS
from cerank.settings import Settings
from tests.scheduler.conftest import TOML, plan_for

SHA = "ab" * 32


@pytest.fixture
def trials(tmp_path: Path) -> list[str]:
    """The ids of two trials in a lab, whose sweep is on record there."""
    plan = plan_for(label="trial")
    runs = [run_store.create(tmp_path / "here", plan, TOML, datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2)]
    names = [run.name for run in runs]
    SWEEPS.save(tmp_path / "here", record_of(names))
    SWEEPS.save(tmp_path / "here", msgspec.structs.replace(record_of(["another-run"]), name="other"))
    return names


def record_of(runs: list[str], **changes: object) -> SweepRecord:
    found = tuple(TrialRecord(arm="a", number=number, settings={}, run=run) for number, run in enumerate(runs, 1))
    record = SweepRecord(
        name="rates", sha256=SHA, created="t", changed="t1", method="grid", measure="nDCG@10", arms=("a",), trials=found
    )
    return msgspec.structs.replace(record, **changes)


def copied(tmp_path: Path, *runs: str) -> str:
    words = ["copy", *(runs or ["--all"]), str(tmp_path / "there"), "--lab", str(tmp_path / "here")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def kept(tmp_path: Path) -> SweepRecord | None:
    return SWEEPS.load_if_there(tmp_path / "there", "rates")


def test_a_record_goes_along_with_the_last_of_its_trials(tmp_path: Path, trials: list[str]) -> None:
    assert "1 of its 2 runs" in copied(tmp_path, trials[0])
    assert kept(tmp_path) is None
    copied(tmp_path, trials[1])
    assert kept(tmp_path) == record_of(trials)
    assert not SWEEPS.path_of(tmp_path / "there", "other").exists()  # none of its trials was copied
    before = SWEEPS.path_of(tmp_path / "there", "rates").stat().st_mtime_ns
    copied(tmp_path)
    assert SWEEPS.path_of(tmp_path / "there", "rates").stat().st_mtime_ns == before


def test_a_run_that_was_deleted_where_it_comes_from_is_told_as_such(tmp_path: Path, trials: list[str]) -> None:
    third = run_store.create(tmp_path / "here", plan_for(label="trial"), TOML, datetime(2026, 1, 3, tzinfo=UTC))
    SWEEPS.save(tmp_path / "here", record_of([*trials, third.name, "long-gone"]))
    said = copied(tmp_path, *trials)
    assert said.count("1 of its 4 runs") == 2  # one was deleted, and the third was not copied yet
    assert "was deleted" in said
    shutil.rmtree(third.path)
    said = copied(tmp_path)
    assert ("2 of its 4 runs" in said, "were deleted" in said, "copy them" in said) == (True, True, False)
    assert kept(tmp_path) is None


def test_a_record_is_never_put_in_place_of_one_that_says_more_or_something_else(
    tmp_path: Path, trials: list[str]
) -> None:
    assert LabFiles(tmp_path / "there").records(trials) == RecordsOfRuns()  # a lab without sweeps has none
    for own in (record_of([*trials, "third"]), record_of(["x", "y"]), record_of(trials, sha256="cd" * 32)):
        SWEEPS.save(tmp_path / "there", own)
        said = copied(tmp_path)
        assert SWEEPS.load_if_there(tmp_path / "there", "rates") == own
        assert "rates" in said
    SWEEPS.save(tmp_path / "there", record_of(trials[:1]))
    copied(tmp_path)
    assert kept(tmp_path) == record_of(trials)
    stopped = tuple(msgspec.structs.replace(trial, stopped=3) for trial in record_of(trials).trials)
    SWEEPS.save(tmp_path / "here", record_of(trials, trials=stopped, changed="t2"))
    copied(tmp_path)
    assert kept(tmp_path) == record_of(trials, trials=stopped, changed="t2")


def test_a_damaged_record_keeps_no_run_from_being_copied(tmp_path: Path, trials: list[str]) -> None:
    SWEEPS.path_of(tmp_path / "here", "rates").write_text("{")
    copied(tmp_path)
    assert len(run_store.folders(tmp_path / "there")) == len(trials)


def test_a_lab_over_ssh_gives_and_keeps_records(tmp_path: Path, trials: list[str]) -> None:
    def server(name: str) -> LabServer:
        return LabServer(
            Lab(Settings(lab=tmp_path / name, cache=tmp_path / "cache", device="cpu", threads=1, format=""))
        )

    answer, _ = server("here").answer(LabCall(1, "records", {"runs": trials}), b"")
    records = msgspec.json.decode(answer.result, type=RecordsOfRuns)
    assert records == RecordsOfRuns(sweeps=(record_of(trials),))
    answer, _ = server("there").answer(LabCall(2, "keep_records", {"records": msgspec.to_builtins(records)}), b"")
    (told,) = msgspec.json.decode(answer.result)
    assert "2 of its 2 runs" in told


def matrix_of(runs: list[str], **changes: object) -> MatrixRecord:
    cells = tuple(MatrixCell(run=run, recipe="cl", base="minilm", seed=seed) for seed, run in enumerate(runs, 1))
    record = MatrixRecord(
        name="grid",
        sha256=SHA,
        changed="t1",
        baseline="cl",
        tests=("dl20",),
        first_stages=("bm25",),
        depth=100,
        measures={"dl20": ("nDCG@10",)},
        cells=cells,
    )
    return msgspec.structs.replace(record, **changes)


def test_the_record_of_a_matrix_goes_along_as_that_of_a_sweep(tmp_path: Path, trials: list[str]) -> None:
    MATRICES.save(tmp_path / "here", matrix_of(trials))
    assert "1 of its 2 runs" in copied(tmp_path, trials[0])
    assert MATRICES.load_if_there(tmp_path / "there", "grid") is None
    copied(tmp_path, trials[1])
    assert MATRICES.load_if_there(tmp_path / "there", "grid") == matrix_of(trials)
    assert kept(tmp_path) == record_of(trials)


@pytest.mark.parametrize(
    "change",
    [{"sha256": "cd" * 32}, {"baseline": "kd"}, {"factors": {"loss": ("lce", "hinge")}}, {"folds": "5"}],
)
def test_a_matrix_that_declares_otherwise_is_never_replaced(
    tmp_path: Path, trials: list[str], change: dict[str, object]
) -> None:
    MATRICES.save(tmp_path / "here", matrix_of(trials, changed="t2"))
    MATRICES.save(tmp_path / "there", matrix_of(trials[:1], **change))
    assert "grid" in copied(tmp_path)
    assert MATRICES.load_if_there(tmp_path / "there", "grid") == matrix_of(trials[:1], **change)


def test_a_matrix_to_which_runs_were_added_replaces_what_it_was(tmp_path: Path, trials: list[str]) -> None:
    MATRICES.save(tmp_path / "here", matrix_of(trials, changed="t2"))
    MATRICES.save(tmp_path / "there", matrix_of(trials[:1]))
    copied(tmp_path)
    assert MATRICES.load_if_there(tmp_path / "there", "grid") == matrix_of(trials, changed="t2")


def test_the_name_of_a_sweep_or_matrix_copies_its_runs_with_their_record(tmp_path: Path, trials: list[str]) -> None:
    other = run_store.create(tmp_path / "here", plan_for(label="another"), TOML, datetime(2026, 1, 3, tzinfo=UTC))
    copied(tmp_path, "rates")
    assert [folder.name for folder in run_store.folders(tmp_path / "there")] == trials
    assert kept(tmp_path) == record_of(trials)
    MATRICES.save(tmp_path / "here", matrix_of([trials[0], other.name, "deleted"]))
    assert [run.name for run in run_store.find_each(tmp_path / "here", "grid")] == [trials[0], other.name]
    assert run_store.find_each(tmp_path / "here", "another") == (other,)
    SWEEPS.save(tmp_path / "here", record_of(trials, name="another"))
    assert run_store.find_each(tmp_path / "here", "another") == (other,)  # a run that is called so goes first
    with pytest.raises(UsageError) as raised:
        run_store.find(tmp_path / "here", "rates")
    assert "ps --all" in (raised.value.hint or "")
