"""The record of a sweep follows its trials to another lab, once all of them are there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app import Lab
from cerank.app.over_ssh.lab_files import LabFiles
from cerank.app.over_ssh.lab_messages import LabCall
from cerank.app.over_ssh.lab_server import LabServer
from cerank.app.sweeps import sweep_record
from cerank.cli.typer_app import app
from cerank.recipes.sweep_schema import SweepRecord, TrialRecord
from cerank.runs import run_store
from cerank.settings import Settings
from tests.scheduler.conftest import TOML, plan_for

SHA = "ab" * 32


@pytest.fixture
def trials(tmp_path: Path) -> list[str]:
    """The ids of two trials in a lab, whose sweep is on record there."""
    plan = plan_for(label="trial")
    runs = [run_store.create(tmp_path / "here", plan, TOML, datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2)]
    names = [run.name for run in runs]
    sweep_record.save(tmp_path / "here", record_of(names))
    sweep_record.save(tmp_path / "here", msgspec.structs.replace(record_of(["another-run"]), name="other"))
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
    return sweep_record.load_if_there(tmp_path / "there", "rates", SHA)


def test_a_record_goes_along_with_the_last_of_its_trials(tmp_path: Path, trials: list[str]) -> None:
    assert "1 of its 2 trials" in copied(tmp_path, trials[0])
    assert kept(tmp_path) is None
    copied(tmp_path, trials[1])
    assert kept(tmp_path) == record_of(trials)
    assert not sweep_record.path_of(tmp_path / "there", "other").exists()  # none of its trials was copied
    before = sweep_record.path_of(tmp_path / "there", "rates").stat().st_mtime_ns
    copied(tmp_path)
    assert sweep_record.path_of(tmp_path / "there", "rates").stat().st_mtime_ns == before


def test_a_record_is_never_put_in_place_of_one_that_says_more_or_something_else(
    tmp_path: Path, trials: list[str]
) -> None:
    LabFiles(tmp_path / "there").sweeps(trials)  # a lab without sweeps has none
    for own in (record_of([*trials, "third"]), record_of(["x", "y"]), record_of(trials, sha256="cd" * 32)):
        sweep_record.save(tmp_path / "there", own)
        said = copied(tmp_path)
        assert sweep_record.load_if_there(tmp_path / "there", "rates", own.sha256) == own
        assert "rates" in said
    sweep_record.save(tmp_path / "there", record_of(trials[:1]))
    copied(tmp_path)
    assert kept(tmp_path) == record_of(trials)
    stopped = tuple(msgspec.structs.replace(trial, stopped=3) for trial in record_of(trials).trials)
    sweep_record.save(tmp_path / "here", record_of(trials, trials=stopped, changed="t2"))
    copied(tmp_path)
    assert kept(tmp_path) == record_of(trials, trials=stopped, changed="t2")


def test_a_damaged_record_keeps_no_run_from_being_copied(tmp_path: Path, trials: list[str]) -> None:
    sweep_record.path_of(tmp_path / "here", "rates").write_text("{")
    copied(tmp_path)
    assert len(run_store.folders(tmp_path / "there")) == len(trials)


def test_a_lab_over_ssh_gives_and_keeps_records(tmp_path: Path, trials: list[str]) -> None:
    def server(name: str) -> LabServer:
        return LabServer(
            Lab(Settings(lab=tmp_path / name, cache=tmp_path / "cache", device="cpu", threads=1, format=""))
        )

    answer, _ = server("here").answer(LabCall(1, "sweeps", {"runs": trials}), b"")
    (record,) = msgspec.json.decode(answer.result, type=tuple[SweepRecord, ...])
    assert record == record_of(trials)
    answer, _ = server("there").answer(LabCall(2, "keep_sweep", {"record": msgspec.to_builtins(record)}), b"")
    assert "2 of its 2 trials" in msgspec.json.decode(answer.result)
