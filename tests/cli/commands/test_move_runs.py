"""`cerank copy` and `cerank pull` by their words, and what they refuse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for


def cerank(*words: str) -> None:
    app(list(words), standalone_mode=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("CERANK_LAB", str(tmp_path / "lab"))
    monkeypatch.chdir(tmp_path)
    return run_store.create(tmp_path / "lab", plan_for(label="first try"), TOML, datetime.now(UTC))


def test_a_run_goes_to_another_lab_and_all_come_back(
    tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    cerank("copy", "first try", "other", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["outcome"]) == (run.name, "copied")
    cerank("pull", "other", "--all", "--json")
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "there already"
    (tmp_path / "other" / "runs" / run.name / "recipe.toml").write_bytes(b"another")
    with refused(UsageError, "run-differs", run.name, tmp_path / "other", tmp_path / "lab"):
        cerank("copy", "--all", "other")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("copy", "other"), "no-run-named", "LAB"),
        (("copy", "first try", "other", "--all"), "no-run-named", "--all"),
        (("copy", "first try", "other", "--checkpoints", "lst"), "unknown-checkpoints", "last"),
        (("copy", "second", "other"), "run-not-found", "second"),
        (("copy", "--all", "lab"), "same-lab", "lab"),
        (("pull", "nowhere", "--all"), "lab-not-found", "nowhere"),
        (("pull", "ssh://node", "--all"), "remote-lab", "ssh://node"),
        (("run", "--nodes", "8"), "option-needs-dry-run", "--nodes"),
        (("run", "--nodes", "-1", "--dry-run"), "nodes-out-of-range", "-1"),
    ],
)
def test_what_cannot_be_copied_or_predicted_is_refused(
    run: RunFolder, words: tuple[str, ...], code: str, named: str
) -> None:
    with refused(UsageError, code, named):
        cerank(*words)
