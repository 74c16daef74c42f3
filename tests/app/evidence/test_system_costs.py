"""What compared runs cost: the difference of both chains, in time, pairs and money."""

from __future__ import annotations

import msgspec
import pytest

from cerank.app.comparison.comparisons import ComparisonRequest, compare
from cerank.app.comparison.named_systems import RunTarget
from cerank.app.evidence import system_costs
from cerank.core.metrics import StepMetrics
from cerank.evaluation.answers import answers, break_even, cost_of
from cerank.files import json_records
from cerank.files.journal import Journal
from cerank.runs.layout import ReadingRow
from cerank.runs.records import ReusedStage
from tests.app.made_runs import changed, made_run
from tests.worker.small import small_plan


@pytest.fixture
def lab(tmp_path):
    plan, settings = small_plan(tmp_path)
    cheap, dear = (
        made_run(settings, changed(plan, seed=seed), label, skill=skill)
        for seed, label, skill in ((1, "cheap", 0.3), (2, "dear", 0.9))
    )
    for folder, seconds in ((cheap, 1800.0), (dear, 5400.0)):
        with Journal(folder.readings, ReadingRow) as out:
            for stage in range(len(plan.recipe.chain)):
                row = StepMetrics(stage, 1, 0.5, 1e-3, 1.0, 2, 8, seconds=seconds / len(plan.recipe.chain), attempt=1)
                out.append(row)
    return settings, plan


def costs_of(lab, *names, price=2.0):
    settings, _ = lab
    comparison = compare(settings, ComparisonRequest(targets=names, measures=("nDCG@10",)))
    return comparison, system_costs.of_comparison(settings, names, comparison, price)


def test_a_row_costs_what_its_system_took_more_than_its_baseline(lab):
    comparison, costs = costs_of(lab, "cheap", "dear")
    stages = len(lab[1].recipe.chain)
    assert {label: (cost.seconds, cost.pairs, cost.money) for label, cost in costs.items()} == {
        "cheap": (1800.0, 8 * stages, pytest.approx(1.0)),
        "dear": (5400.0, 8 * stages, pytest.approx(3.0)),
    }
    row = comparison.rows[0]
    cost = cost_of(comparison, row, costs)
    assert (cost.seconds, cost.pairs, cost.money) == (3600.0, 0, pytest.approx(2.0))
    assert break_even(row, cost)[0] == pytest.approx(0.01 * 3600 / row.paired.difference)
    assert " 1 h more" in answers(comparison, costs)[0].text
    assert [row[0] for row in system_costs.table(costs).rows] == ["cheap", "dear"]


def test_what_is_cheaper_or_unknown_has_no_price(lab):
    comparison, costs = costs_of(lab, "dear", "cheap")
    assert cost_of(comparison, comparison.rows[0], costs) is None
    comparison, costs = costs_of(lab, "cheap:first-stage", "dear", price=0.0)
    first = costs["cheap:first-stage"]
    assert (first.seconds, first.pairs, first.money) == (0.0, 0, None)
    assert cost_of(comparison, comparison.rows[0], costs).seconds == 5400.0
    made_run(lab[0], changed(lab[1], seed=3), "unknown")
    comparison, costs = costs_of(lab, "unknown", "dear")
    assert "unknown" not in costs
    assert cost_of(comparison, comparison.rows[0], costs) is None


def test_folds_cost_what_all_of_them_took_and_a_stage_that_they_share_counts_once(tmp_path):
    """Two folds of two stages: the first stage, of 100 s, of the first fold serves the second; the last is its own."""
    plan, settings = small_plan(tmp_path)
    whole, names = plan.recipe.data.test[0].partition("[")[0], plan.recipe.chain
    members = []
    for number, seconds in ((1, (100.0, 30.0)), (2, (100.0, 50.0))):
        data = msgspec.structs.replace(plan.recipe.data, test=(f"{whole}[fold={number}/2]",))
        fold = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, data=data))
        folder = made_run(settings, fold, f"fold-{number}")
        with Journal(folder.readings, ReadingRow) as out:
            for stage, took in enumerate(seconds):
                out.append(StepMetrics(stage, 1, 0.5, 1e-3, 1.0, 2, 8, seconds=took, attempt=1))
        members.append(RunTarget(f"fold-{number}", folder, fold, names[-1]))
    apart = system_costs.of_runs({"folds": members}, 3600.0)["folds"]
    assert (apart.seconds, apart.pairs, apart.money) == (280.0, 32, pytest.approx(280.0))
    members[1].folder.stage(0, names[0]).mkdir(parents=True)
    reused = ReusedStage(run=members[0].folder.name, plan="", identity="", sha256="", time="")
    json_records.save(members[1].folder.reused_stage(0, names[0]), reused)
    shared = system_costs.of_runs({"folds": members, "one": members[:1]}, 0.0)
    assert (shared["folds"].seconds, shared["folds"].pairs) == (180.0, 24)
    assert shared["one"].seconds == 130.0
