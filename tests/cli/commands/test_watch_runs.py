"""`cerank ps` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cerank.cli.typer_app import app
from cerank.errors import UsageError
from tests.refusals import refused
from tests.tui.labs import LabFolder, keep_sweep


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabFolder]:
    """A lab with a sweep of two trials and one other run."""
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    made = LabFolder(tmp_path / "lab")
    for key, value in {"LAB": "lab", "CACHE": "cache"}.items():
        monkeypatch.setenv(f"CERANK_{key}", str(tmp_path / value))
    trials = [made.finished(made.started(made.run(f"rates cl {number}/2"), 5)) for number in (1, 2)]
    made.run("alone")
    keep_sweep(made, [trial.name for trial in trials], planned=2)
    yield made
    made.close()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    app(["ps", *words], standalone_mode=False)
    return capsys.readouterr().out


def test_a_sweep_is_one_row_and_all_shows_its_trials(
    lab: LabFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folded = printed(capsys, "--format", "table")
    assert "rates" in folded
    assert "alone" in folded
    assert "1e-05" not in folded
    single = printed(capsys, "--format", "table", "--all")
    for rate in ("1e-05", "0.0001"):  # at 80 columns, too
        assert rate in single


def test_programs_get_every_run(lab: LabFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(json.loads(printed(capsys, "--json"))) == 3
    assert len(printed(capsys, "--quiet").splitlines()) == 3


@pytest.mark.parametrize("words", [["--quiet"], ["--watch"], ["--json"], ["--format", "csv"]])
def test_asking_for_all_where_all_are_given_anyway_is_refused(lab: LabFolder, words: list[str]) -> None:
    with refused(UsageError, "options-conflict", "--all"):
        app(["ps", "--all", *words], standalone_mode=False)


def test_a_score_of_zero_beside_a_sweep_is_shown(lab: LabFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0.0000" not in printed(capsys, "--format", "table")
    lab.finished(lab.started(lab.run("nothing learned"), 5), after=0.0)
    assert "0.0000" in printed(capsys, "--format", "table")
