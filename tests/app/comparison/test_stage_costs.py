"""What a stage cost comes from journals: each step once, and a reused stage's from where it was trained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cerank.app import next_steps
from cerank.app.comparison import run_answer, stage_costs
from cerank.core.metrics import Scoring, StepMetrics, Validation
from cerank.files import json_records
from cerank.files.journal import Journal
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import ReusedStage
from tests.app.made_runs import changed, made_run
from tests.worker.small import small_plan


def written(folder: RunFolder, stage: int, seconds: list[float], attempt: int = 1) -> None:
    """Steps of a stage from 1, and a validation of half a second after the last."""
    with Journal(folder.readings, ReadingRow) as out:
        for step, each in enumerate(seconds, 1):
            row = StepMetrics(stage, step, 0.5, 1e-3, 1.0, 2, 8, seconds=each, attempt=attempt)
            out.append(row)
        out.append(Validation(stage, len(seconds), {"nDCG@10": 0.5}, seconds=0.5, attempt=attempt))


def scored(folder: RunFolder, system: str, pairs: int, seconds: float) -> None:
    with Journal(folder.scorings, Scoring) as out:
        out.append(Scoring(system, "data", pairs, seconds))


@pytest.fixture
def lab(tmp_path):
    plan, settings = small_plan(tmp_path)
    plan = changed(plan, margins={"nDCG@10": 0.05})
    folder = made_run(settings, plan, "one")
    return SimpleNamespace(plan=plan, settings=settings, folder=folder)


def test_steps_and_pairs_are_summed_over_attempts_and_a_step_done_again_counts_once(lab):
    written(lab.folder, 0, [1.0, 2.0])
    written(lab.folder, 0, [7.0, 7.0, 4.0], attempt=2)
    for pairs, seconds in ((90, 1.0), (30, 2.0)):
        scored(lab.folder, "contrastive", pairs, seconds)
    (cost,) = stage_costs.of_run(lab.folder, lab.plan)
    assert (cost.stage, cost.steps, cost.pairs) == ("contrastive", 3, 24)
    assert cost.seconds == pytest.approx(1.0 + 2.0 + 4.0 + 0.5 + 0.5)
    assert cost.validation_seconds == pytest.approx(1.0)
    assert cost.pairs_per_second == pytest.approx(40.0)


def test_a_stage_of_another_run_is_said_to_be_and_costs_what_it_did_there(lab):
    other = made_run(lab.settings, changed(lab.plan, seed=5), "two")
    written(other, 0, [3.0])
    scored(lab.folder, "contrastive", 100, 2.0)
    adopted = ReusedStage(run=lab.folder.name, plan="p", identity="i", sha256="s", time="2026-01-01T00:00:00+00:00")
    other.reused_stage(0, "contrastive").parent.mkdir(parents=True, exist_ok=True)
    json_records.save(other.reused_stage(0, "contrastive"), adopted)
    (cost,) = stage_costs.of_run(other, lab.plan)
    assert cost.reused_from
    assert cost.pairs_per_second == pytest.approx(50.0)
    table = stage_costs.table((cost,))
    assert dict(zip([column.key for column in table.columns], table.rows[0], strict=True))["reused_from"]


def test_a_run_of_a_release_without_costs_has_none_and_its_answer_all_the_same(lab):
    assert stage_costs.of_run(lab.folder, lab.plan) == ()
    told = run_answer.of_run(lab.folder)
    assert len(told.paragraphs) == 2 * 2  # first stages x measures
    assert all(text.startswith("Was the second stage worth it?") for text in told.paragraphs)
    assert not any("more of training" in text for text in told.paragraphs)


def test_the_answer_of_a_run_holds_what_the_second_stage_took(lab):
    written(lab.folder, 1, [4.0, 5.0])
    assert all(" 9.5 s " in text for text in run_answer.of_run(lab.folder).paragraphs)


def test_a_runs_family_holds_each_stage_against_the_one_before_and_the_first_stage(lab):
    found = run_answer.of_run(lab.folder).comparison
    pairs = list(dict.fromkeys((row.right, row.left) for row in found.rows))
    assert pairs == [("contrastive", "first-stage"), ("distill", "contrastive"), ("distill", "first-stage")]
    assert found.family == 3 * 2 * 2
    assert found.family_equivalence == 3 * 2


def test_the_answer_of_a_run_that_is_not_finished_says_what_is_not_measured_yet(lab):
    whole = run_answer.of_run(lab.folder)
    assert whole.unmeasured == ()
    test, first = lab.plan.recipe.data.test[0], lab.plan.recipe.data.first_stages[0]
    lab.folder.measures("distill", test, first).unlink()
    told = run_answer.of_run(lab.folder)
    assert told.unmeasured == ("distill",)
    assert told.comparison.family < whole.comparison.family
    assert "distill" in told.paragraphs[0]
    assert all("distill" not in text for text in told.paragraphs[1:])


@pytest.mark.parametrize("has_own_lab", [True, False])
def test_every_next_step_is_read_by_the_real_command_line(lab, monkeypatch, has_own_lab):
    import shlex

    import typer

    from cerank.cli.typer_app import app

    if not has_own_lab:
        monkeypatch.setenv("CERANK_LAB", str(lab.settings.lab))
    lines = next_steps.commands(lab.settings.lab, lab.folder, lab.plan)
    assert len(lines) == 3
    root = typer.main.get_command(app)
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "cerank"
        assert ("--lab" in words) is has_own_lab
        command = root.commands[words[1]]
        command.make_context(words[1], words[2:])  # raises what a person would be told
