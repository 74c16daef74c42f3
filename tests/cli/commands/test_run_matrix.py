"""`cerank run --matrix` at the command line: what it shows, what it refuses, and what it puts in the queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cerank import recipes
from cerank.app import Lab
from cerank.cli import live_status
from cerank.cli.commands.start_run import settings_of
from cerank.cli.typer_app import app
from cerank.errors import CerankError
from cerank.files.lease import Lease
from cerank.runs import queue, run_store
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import QueueFolder
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for
from tests.worker.small import small_plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two recipes over one small dataset; its lab's queue is served by nobody."""
    plan, settings = small_plan(tmp_path)
    (tmp_path / "both.toml").write_text(recipes.render(plan.recipe))
    (tmp_path / "one.toml").write_text('extends = "both.toml"\nname = "one"\nchain = ["contrastive"]\n')
    for key, value in (("LAB", settings.lab), ("CACHE", settings.cache), ("DEVICE", "cpu"), ("THREADS", "1")):
        monkeypatch.setenv(f"CERANK_{key}", str(value))
    monkeypatch.chdir(tmp_path)
    QueueFolder(settings.lab).path.mkdir(parents=True)
    return tmp_path


def ran(*words: str) -> Result:
    found = CliRunner().invoke(app, ["run", *words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


MATRIX = ("-r", "one.toml", "-r", "both.toml", "--seeds", "1,2", "--name", "mine", "--device", "cpu", "--threads", "1")


def test_recipes_and_seeds_on_the_command_line_are_a_matrix_shown_whole(folder: Path) -> None:
    found = ran(*MATRIX, "--dry-run", "--pairs-per-second", "10", "--json")
    shown = json.loads(found.stdout)
    assert [(row["recipe"], row["seed"], row["takes_over"]) for row in shown["runs"]] == [
        ("one", 1, ""),
        ("small", 1, "contrastive"),
        ("one", 2, ""),
        ("small", 2, "contrastive"),
    ]
    assert next(row for row in shown["work"] if row["part"] == "train contrastive")["pairs"] == 2 * 240
    assert shown["needs"] == []
    assert "4 runs, 6 stages: 4 to train, 2 reused" in found.stderr
    assert "held" not in found.stderr
    assert not run_store.folders(folder / "lab")


def test_a_matrix_is_queued_whole_and_asked_again_adds_nothing(folder: Path) -> None:
    with Lease.take(QueueFolder(folder / "lab").lease):
        first = ran(*MATRIX)
        assert len(first.stdout.split()) == 4
        assert "4 runs queued; 0 were already" in first.stderr
        again = ran(*MATRIX)
    assert again.stdout == ""
    assert "0 runs queued; 4 were already" in again.stderr
    record = MATRICES.load_if_there(folder / "lab", "mine")
    assert (record.name, record.baseline, len(record.cells)) == ("mine", "one", 4)
    assert all(run_store.load_plan(run).shares for run in run_store.folders(folder / "lab"))


def test_the_runs_of_folds_are_told_by_short_names_with_what_the_first_waits_for(folder: Path) -> None:
    lab = folder / "lab"
    busy = run_store.create(lab, plan_for(label="busy"), TOML, datetime.now(UTC))
    words = ("-r", "one.toml", "--dataset", str(folder / "apart"), "--folds", "3")
    with Lease.take(QueueFolder(lab).lease):
        with Lease.take(busy.lease):
            told = ran(*words, "--format", "table")
        behind = ran(*words, "--json")
    names = told.stdout.split()
    assert [run_store.find(lab, name).name for name in names] == queued_in(lab)[:3]
    assert not set(names) & set(queued_in(lab))  # short names, no ids
    assert "3 runs are queued" in told.stderr
    assert run_store.short_name(busy) in told.stderr
    assert f"{names[0]}@folds" in told.stderr
    assert behind.stdout.split() == queued_in(lab)[3:]  # a program gets ids
    assert names[0] in behind.stderr.partition("starts after")[2]


def test_a_run_that_began_at_once_is_not_said_to_wait_for_the_device_that_it_has(folder: Path) -> None:
    home = Lab(settings_of(None))
    begun = run_store.create(home.folder, plan_for(label="begun"), TOML, datetime.now(UTC))
    with Lease.take(begun.lease):
        told = live_status.wait_in_words(home, [begun], run_store.load_plan(begun))
    assert run_store.short_name(begun) not in told


def queued_in(lab: Path) -> list[str]:
    """The ids of the queued runs, in order."""
    return [entry.run for entry in queue.entries(lab)]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "recipe-missing"),
        (("--matrix", "ecir2052"), "matrix-not-found ecir2052"),
        (("--seeds", "1,2"), "recipe-missing"),
        ((*MATRIX[:4], "--seeds", "2-1"), "range-reversed"),
        ((*MATRIX[:4], "--label", "x"), "matrix-option --label"),
        ((*MATRIX, "--seed", "3"), "options-conflict --seed --seeds"),
        ((*MATRIX, "--detach"), "matrix-option --detach --print-command"),
        ((*MATRIX, "--pairs-per-second", "10"), "option-needs-dry-run --dry-run"),
        ((*MATRIX[:4], "--baseline", "three.toml"), "recipe three.toml"),
    ],
)
def test_what_is_no_matrix_is_refused(folder: Path, words: tuple[str, ...], match: str) -> None:
    with refused(CerankError, *match.split()):
        ran(*words)


def test_tests_and_first_stages_of_options_replace_those_of_the_matrix(folder: Path) -> None:
    words = ("--matrix", "ecir2025", "--recipe", "ecir2025-cl", "--base", "electra", "--seeds", "7")
    found = ran(*words, "--test", "dl19", "--first-stage", "contriever", "--depth", "10", "--dry-run", "--json")
    shown = json.loads(found.stdout)
    assert [(row["recipe"], row["base"], row["seed"]) for row in shown["runs"]] == [("ecir2025-cl", "electra", 7)]
    parts = {row["part"]: row for row in shown["work"]}
    assert parts["re-rank dl19 by cl"]["pairs"] == 43 * 10
    named = {row["name"] for row in shown["needs"]}
    assert {"electra", "dl19", "contriever on dl19", "msmarco-train", "colbertv2 on msmarco-train"} <= named
