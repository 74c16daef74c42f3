from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from cerank.app import Lab, plans
from cerank.cli.typer_app import app
from cerank.core.metrics import Validation
from cerank.errors import ExitCode
from cerank.files.journal import Journal
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder
from tests.scheduler.conftest import TOML, plan_for


def _validated(folder: RunFolder, step: int, score: float) -> None:
    rows: Journal[ReadingRow] = Journal(folder.readings, ReadingRow)
    rows.append(Validation(0, step, {"nDCG@10": score}, 0.1))
    rows.close()


def test_a_resumed_run_tells_what_its_new_worker_does_and_not_again_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_store.create(tmp_path, plan_for(label="one"), TOML, datetime.now(UTC))
    _validated(folder, 10, 0.25)

    def resume(self: Lab, resumed: RunFolder, devices_given: str = "") -> SimpleNamespace:
        assert resumed.name == folder.name
        _validated(folder, 20, 0.5)
        return SimpleNamespace(poll=lambda: ExitCode.PAUSED, returncode=ExitCode.PAUSED)

    monkeypatch.setattr(Lab, "resume", resume)
    monkeypatch.setenv("CERANK_LAB", str(tmp_path))
    app(["resume", "one"], standalone_mode=False)
    told = capsys.readouterr().err
    assert "validation at step 20: nDCG@10 0.5000" in told
    assert "step 10" not in told


def test_a_run_like_a_finished_one_is_started_with_a_note_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CERANK_LAB", str(tmp_path))
    monkeypatch.setattr(plans, "plan_of", lambda *_args, **_options: plan_for(label="again"))
    monkeypatch.setattr(Lab, "enqueue", lambda self, plan, toml: run_store.create(tmp_path, plan, toml, plan_time))
    plan_time = datetime.now(UTC)
    first = run_store.create(tmp_path, plan_for(label="one"), TOML, plan_time)
    app(["run", "--recipe", "distill", "--queue"], standalone_mode=False)
    assert "identical" not in capsys.readouterr().err  # the first is not finished
    first.done.write_text("{}")
    app(["run", "--recipe", "distill", "--queue"], standalone_mode=False)
    told = capsys.readouterr().err
    assert "identical run" in told
    assert run_store.title(first) in told
