"""`cerank sweep` as a user gives it: what it shows, refuses and writes, and that a kill costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from cerank import recipes
from cerank.app import Lab, estimates
from cerank.app.sweeps import sweep_driver
from cerank.cli.commands.sweeps import sweep_command
from cerank.cli.typer_app import app
from cerank.core.metrics import Event
from cerank.errors import ExitCode
from cerank.files import journal, lease
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import QueueFolder
from tests.json_documents import document_of
from tests.scheduler.conftest import eventually
from tests.worker.small import small_plan


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two recipes, a sweep over both, and no lab yet; commands work there."""
    plan, _ = small_plan(tmp_path)
    stages = {
        name: msgspec.structs.replace(stage, steps=4, validate_every=2) for name, stage in plan.recipe.stages.items()
    }
    (tmp_path / "both.toml").write_text(recipes.render(msgspec.structs.replace(plan.recipe, stages=stages)))
    for name, chain in {"cl": '["contrastive"]', "kd": '["distill"]'}.items():
        (tmp_path / f"{name}.toml").write_text(f'extends = "./both.toml"\nname = "{name}"\nchain = {chain}\n')
    (tmp_path / "rates.toml").write_text(
        'name = "rates"\nrecipes = ["./cl.toml", "./kd.toml"]\nmethod = "grid"\n'
        '[search]\n"stages.*.learning_rate" = { log_uniform = [1e-4, 1e-3], points = 2 }\n'
    )
    for key, value in {"LAB": "lab", "CACHE": "cache", "DEVICE": "cpu", "THREADS": "1"}.items():
        monkeypatch.setenv(f"CERANK_{key}", value if value in {"cpu", "1"} else str(tmp_path / value))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimates, "measured", measured)
    return tmp_path


def measured(plan: Plan, *, anew: bool = True) -> tuple[dict[str, MeasuredSpeed], str]:
    """A machine of which everything is known: it trains on 8 pairs a second."""
    speed = MeasuredSpeed(train=8.0, score=24.0, load=3.0, time="2026-01-02T00:00:00+00:00")
    return dict.fromkeys(plan.recipe.chain, speed), "measured"


def asked(*words: str) -> str:
    done = CliRunner().invoke(app, ["sweep", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_dry_run_counts_what_teachers_are_asked_once_for_all_trials(place: Path) -> None:
    (place / "prices.toml").write_text("[models.m]\ninput = 1000.0\noutput = 1000.0\ndate = 2026-11-01\n")
    teacher = f'kind = "graded"\nmodel = "m"\nserver = "http://127.0.0.1:9/v1"\nprices = "{place}/prices.toml"\n'
    (place / "judged.toml").write_text(
        'extends = "./kd.toml"\nname = "judged"\n[stages.distill]\nteacher = "judge"\n'
        f"[teachers.judge]\n{teacher}depth = 6\n"
    )
    text = (place / "rates.toml").read_text()
    (place / "rates.toml").write_text(text.replace("./kd.toml", "./judged.toml"))
    (row,) = document_of(asked("rates.toml", "--dry-run", "--json"), "teaching")["teaching"]
    assert row["teacher"] == "judge"
    assert row["use"] == "judged"  # under the name of its arm, for both of its trials
    assert row["calls"] == row["queries"] * 6 + 1 <= 8 * 6 + 1  # 4 steps of 2 queries; the two trials train on the same
    assert not (place / "lab").exists()


def test_a_dry_run_shows_what_the_sweep_is_for(place: Path) -> None:
    (place / "rates.toml").write_text('description = "Is the rate too low?"\n' + (place / "rates.toml").read_text())
    done = CliRunner().invoke(app, ["sweep", "rates.toml", "--dry-run"], catch_exceptions=False)
    assert "Is the rate too low?" in done.stderr


def test_a_dry_run_shows_trials_and_cost_of_each_arm_and_makes_nothing(place: Path) -> None:
    tables = json.loads(asked("rates.toml", "--dry-run", "--json"))
    arms = {row["arm"]: row for row in tables["arms"]}
    assert {name: row["trials"] for name, row in arms.items()} == {"cl": 2, "kd": 2}
    assert arms["cl"]["pairs"] == 4 * 2 * 4  # steps x groups x candidates
    assert not any("re-rank" in row["part"] for row in tables["work"])
    assert [(row["arm"], row["trial"], row["stages.*.learning_rate"]) for row in tables["trials"]] == [
        *(("cl", 1, "0.0001"), ("kd", 1, "0.0001"), ("cl", 2, "0.001"), ("kd", 2, "0.001"))
    ]
    assert {row["pairs"] for row in tables["trials"]} == {4 * 2 * 4}
    assert all(row["seconds"] > 0 for row in tables["trials"] + tables["arms"])
    assert all(row["seconds"] > 0 for row in tables["work"])
    assert not (place / "lab").exists()


def test_very_many_trials_are_listed_whole_for_programs_and_cut_with_their_number_for_people(place: Path) -> None:
    text = (place / "rates.toml").read_text().replace("points = 2", "points = 40")
    (place / "rates.toml").write_text(text)
    assert len(json.loads(asked("rates.toml", "--dry-run", "--json"))["trials"]) == 80
    shown = asked("rates.toml", "--dry-run", "--format", "table")
    _, _, listed = shown.partition("Trials")
    rows = [line.split() for line in listed.splitlines()]
    numbers = [int(words[1]) for words in rows if words[:1] in (["cl"], ["kd"])]
    assert numbers == [number for number in range(1, 25) for _ in range(2)]
    assert "and 32 more" in shown


@pytest.mark.parametrize(
    "words",
    [
        ("--dry-run", "--detach"),
        ("--results", "--dry-run"),
        ("--replace",),
        ("--pairs-per-second", "9"),
        ("--method", "bayes"),
        ("--trials", "5"),
        ("--trials", "0"),
        ("--seed", "3"),
        ("--method", ""),
        ("--name", ""),
        ("--results", "--write", ""),
        ("--results", "--device", "cpu"),
        ("--write", "x", "--threads", "1"),
        ("--write", "x"),
    ],
)
def test_options_that_contradict_each_other_or_the_sweep_are_refused(place: Path, words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["sweep", "rates.toml", *words])
    assert done.exit_code != 0
    assert not (place / "lab" / "runs").exists()


def test_a_sweep_that_waits_says_once_that_nothing_serves_its_queue(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, calls = sweep_driver.advance, []

    def advance_twice(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 3:  # that of the start, and two looks at the trials
            raise KeyboardInterrupt
        return advance(*arguments)

    monkeypatch.setattr(sweep_driver, "advance", advance_twice)
    monkeypatch.setattr(sweep_command, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(Lab, "start_queue", lambda _: None)
    done = CliRunner().invoke(app, ["sweep", "rates.toml"])
    assert done.exit_code == ExitCode.INTERRUPTED, done.output
    assert done.output.count("queue start") == 1


def cerank_sweep(place: Path) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "cerank", "sweep", "rates.toml"]
    return subprocess.Popen(words, cwd=place, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(path: Path) -> bool:
    """Kill who holds a lease; return whether somebody did."""
    holder = lease.owner(path) if path.exists() and lease.is_held(path) else None
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)
    return holder is not None


@pytest.mark.slow
def test_a_sweep_whose_processes_are_all_killed_is_finished_by_the_same_command(place: Path) -> None:
    lab = place / "lab"
    first = cerank_sweep(place)

    def has_one_finished_and_one_at_work() -> bool:
        folders = run_store.folders(lab) if lab.exists() else []
        return any(folder.done.exists() for folder in folders) and any(
            not folder.done.exists() and folder.readings.exists() and lease.is_held(folder.lease) for folder in folders
        )

    eventually(has_one_finished_and_one_at_work, 400)
    first.kill()
    first.wait()
    killed(QueueFolder(lab).lease)
    assert any(killed(folder.lease) for folder in run_store.folders(lab))
    before = {folder.name for folder in run_store.folders(lab)}
    done = {folder.name for folder in run_store.folders(lab) if folder.done.exists()}
    assert 0 < len(done) < 4
    assert cerank_sweep(place).wait(400) == 0
    assert {folder.name for folder in run_store.folders(lab)} == before
    starts = {}
    for folder in run_store.folders(lab):
        events, _ = journal.read_valid_rows(folder.events, Event)
        assert folder.done.exists()
        assert not any(event.kind == "replay mismatch" for event in events)
        starts[folder.name] = sum(event.kind == "started" for event in events)
    assert all(starts[name] == 1 for name in done)
    assert sorted(starts.values()) == [1, 1, 1, 2]
    tables = json.loads(asked("rates.toml", "--results", "--write", "found", "--json"))
    assert [Path(row["file"]).name for row in tables["written"]] == ["cl-tuned.toml", "kd-tuned.toml"]
    assert [row["finished"] for row in tables["best"]] == [2, 2]
    assert sorted(path.name for path in (place / "found").iterdir()) == ["cl-tuned.toml", "kd-tuned.toml"]
