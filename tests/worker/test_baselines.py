"""Finished re-rankers beside the stages of a run: ranked untrained, compared, and scored once for all runs."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from cerank.app import plans
from cerank.app.checks import verify_run
from cerank.app.comparison import comparisons, named_systems, stage_costs
from cerank.app.report.report_scope import report_scope, unnamed_baselines
from cerank.core.metrics import Event, Scoring
from cerank.errors import UsageError
from cerank.files import journal
from cerank.planning.workload import count_work
from cerank.training.stage_guard import COLLAPSED
from tests.model_fixtures import write_tiny
from tests.models.family_fixtures import write_encoder
from tests.refusals import refused
from tests.worker.test_whole_runs import forked

from .small import STAGE, small_plan, small_run

NOW = datetime(2026, 1, 3, tzinfo=UTC)
SHORT = {**STAGE, "steps": 12, "validate_every": 0, "least_spread": 1000.0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one stage with one baseline, and a limit that every stage falls below."""
    folder = tmp_path_factory.mktemp("baselines")
    model = write_encoder(folder / "reranker", "BertForSequenceClassification", num_labels=1)
    changes = {"chain": ["contrastive"], "stages": {"contrastive": SHORT}, "baselines": [str(model)]}
    plan, settings = small_plan(folder, **changes)
    run = small_run(settings.lab, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run, plan, settings


def test_a_baseline_is_pinned_in_the_plan_and_counted_in_its_work(finished):
    _, plan, _ = finished
    (entry,) = (entry for entry in plan.inputs if entry.role == "baseline")
    assert entry.location.endswith("/reranker")
    work = {part.part: part.pairs for part in count_work(plan.recipe, dict.fromkeys(queries_of(plan), 10))}
    assert work[f"re-rank {plan.recipe.data.test[0]} by reranker"] == 10 * 8 * 2


def queries_of(plan):
    return {plan.recipe.data.train, plan.recipe.data.validation, *plan.recipe.data.test}


def test_its_rows_are_described_and_do_not_widen_the_family(finished):
    run, _, _ = finished
    table = comparisons.of_run(run)
    rows = {(row.right, row.left): row.is_primary for row in table.rows}
    expected = {("contrastive", "first-stage"): True, ("reranker", "first-stage"): False}
    assert rows == {**expected, ("contrastive", "reranker"): False}
    assert table.family == sum(row.is_primary for row in table.rows)


def test_it_is_a_system_of_the_run_by_name_and_is_verified_with_it(finished):
    run, _, settings = finished
    target = named_systems.target(settings.lab, f"{run.name}:reranker")
    assert target.system == "reranker"
    assert verify_run.verify(run, NOW).problems == ()


def test_a_report_names_it_and_shows_it_as_what_it_is_where_it_is_asked_for(finished):
    run, _, settings = finished
    plain = report_scope(settings.lab, [run.name])
    (name,) = unnamed_baselines(plain)
    both = report_scope(settings.lab, [run.name, name])
    model = both.rows[1].model
    assert (model.label, model.base, model.recipe, model.seeds) == ("reranker", "", "", ())
    assert unnamed_baselines(both) == ()


def test_another_run_takes_its_scores_from_the_cache(finished):
    run, plan, settings = finished
    first = [row for row in journal.read(run.scorings, Scoring) if row.system == "reranker"]
    assert sum(row.pairs for row in first) > 0
    assert [cost.stage for cost in stage_costs.of_run(run, plan)] == ["contrastive", "reranker"]
    again = small_run(settings.lab, plan, settings, second=9)
    assert forked(again) == (1, 0)
    assert [row for row in journal.read(again.scorings, Scoring) if row.system == "reranker"] == []
    key = ("reranker", plan.recipe.data.test[0], "bm25")
    assert again.ranking(*key).read_bytes() == run.ranking(*key).read_bytes()


def test_scores_below_the_recipes_limit_are_warned_of_early_and_again_at_the_end(finished):
    run, _, _ = finished
    events = [event for event in journal.read(run.events, Event) if event.kind == COLLAPSED]
    assert [event.position.step for event in events] == [8, 12]
    assert "at the end, too" in events[1].text


def test_a_model_without_a_trained_head_is_refused_before_a_run_exists(finished, tmp_path):
    _, plan, settings = finished
    bare = write_tiny(tmp_path / "bare").folder
    recipe = msgspec.structs.replace(plan.recipe, baselines=(str(bare),))
    with refused(UsageError, "head-untrained", bare) as error:
        plans.plan_of(recipe, settings, now=NOW)
    assert error.value.where.startswith("baselines: ")


def test_a_baseline_that_does_not_exist_is_refused_by_its_key(finished):
    _, plan, settings = finished
    recipe = msgspec.structs.replace(plan.recipe, baselines=("nosuch",))
    with refused(UsageError, "unknown-base", "nosuch") as error:
        plans.plan_of(recipe, settings, now=NOW)
    assert error.value.where == "baselines"


def test_two_folders_of_one_name_are_told_apart(finished):
    _, plan, _ = finished
    recipe = msgspec.structs.replace(plan.recipe, baselines=("/a/final", "/b/final", "owner/model"))
    assert recipe.baseline_models() == {
        "/a/final": "/a/final",
        "/b/final": "/b/final",
        "owner/model": "owner/model",
    }
