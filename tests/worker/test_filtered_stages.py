"""A run whose stages have filters: what it keeps and says of them."""

from __future__ import annotations

import pytest

from cerank.app.comparison import run_answer, stage_costs
from cerank.core.metrics import Event, StepMetrics
from cerank.files import journal
from cerank.training import stage_summary
from cerank.worker.repair import find_missing_metrics
from tests.worker.test_whole_runs import forked, killed_and_finished, rows_of

from .small import STAGE, bits_of, small_plan, small_run

pytestmark = pytest.mark.slow  # 3 s each

STAGES = {
    "contrastive": {
        **STAGE,
        "filter": {"kind": "multistage", "plain": 0.2, "window": 8, "predictor_loss": 9.0, "predictor_window": 16},
    },
    "distill": {**STAGE, "loss": "ranknet", "source": "teacher", "teacher": "oracle", "filter": {"kind": "random"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    plan, settings = small_plan(tmp_path_factory.mktemp("filtered"), stages=STAGES)
    run = small_run(settings.lab.parent, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run, plan, settings


def test_it_keeps_a_reading_of_each_step_and_what_each_filter_came_to(finished):
    run, plan, _ = finished
    assert find_missing_metrics(run, plan) == []
    rows = [row for row in rows_of(run) if isinstance(row, StepMetrics)]
    for index, name in enumerate(plan.recipe.chain):
        summary = stage_summary.read(run.final(index, name))
        counts = summary.filter.counts
        assert counts.seen == 60
        assert counts.trained == sum(row.groups for row in rows if row.stage == index)
        assert counts.trained == counts.chosen
    assert summary.filter.kind == "random"
    assert counts.trained == 30


def test_its_answer_says_what_each_filter_saved_and_its_costs_count_forward_passes_apart(finished):
    run, plan, _ = finished
    said = run_answer.of_run(run).filters
    assert [sentence.partition(":")[0] for sentence in said] == ["contrastive", "distill"]
    first, second = stage_costs.of_run(run, plan)
    rows = [row for row in rows_of(run) if isinstance(row, StepMetrics) and row.stage == 0]
    assert first.forward_pairs == sum(row.forward_pairs for row in rows) > 0
    assert second.forward_pairs == 0
    table = stage_costs.table((first, second))
    place = [column.key for column in table.columns].index("forward_pairs")
    assert [row[place] for row in table.rows] == [first.forward_pairs, 0]


def test_its_log_says_when_the_choice_changed(finished):
    run, _, _ = finished
    events = journal.read(run.events, Event)
    kinds = [event.kind for event in events if event.text.startswith("contrastive")]
    assert kinds.count("filter changed") == 2
    assert kinds.count("groups filtered") == 1


def test_a_run_that_is_killed_again_and_again_has_the_same_bits(finished):
    run, plan, settings = finished
    killed = killed_and_finished(settings.lab.parent, plan, settings, run, kills=3, seed=4)
    assert bits_of(killed) == bits_of(run)
