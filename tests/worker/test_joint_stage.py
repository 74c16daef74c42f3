"""A whole run whose stage trains two losses: what it samples, what it records, and what `cerank show` says of it."""

from __future__ import annotations

import pytest

from cerank.app.run_views import stage_losses
from cerank.core.metrics import StepMetrics, Validation
from cerank.core.rankings import Ranking
from cerank.training import stage_summary
from cerank.worker.joint_stage import ranked_by_all
from tests.worker.small import STAGE, small_plan, small_run
from tests.worker.test_whole_runs import forked, rows_of

JOINT = {
    **STAGE,
    "steps": 10,
    "validation_loss": "yes",
    "gradient_cosine_every": 5,
    "losses": [{"name": "lce"}, {"name": "listnet", "teacher": "oracle", "weight": 0.5, "temperature": 4.0}],
}


@pytest.mark.slow
def test_a_joint_stage_trains_on_labels_and_teacher_and_records_each_loss(tmp_path):
    data = str(tmp_path / "data")
    parts = {"train": f"{data}[:50%]", "validation": f"{data}[50%:70%]", "test": [f"{data}[70%:]"]}
    plan, settings = small_plan(
        tmp_path,
        chain=["joint"],
        data={**parts, "first_stages": ["bm25", "oracle"], "depth": 8},
        stages={"joint": JOINT},
    )
    run = small_run(tmp_path, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    steps = [row for row in rows_of(run) if isinstance(row, StepMetrics)]
    assert [set(row.parts) for row in steps] == [{"lce", "listnet"}] * 10
    assert [row.step for row in steps if row.cosines] == [5, 10]
    assert all(row.loss == pytest.approx(row.parts["lce"] + 0.5 * row.parts["listnet"]) for row in steps)
    validations = [row for row in rows_of(run) if isinstance(row, Validation)]
    assert all({"loss", "lce", "listnet"} <= set(row.measures) for row in validations)
    first, second = stage_losses.of_run(run, plan)
    assert (first.name, first.weight, first.learns_from) == ("lce", 1.0, "labels")
    assert (second.name, second.weight, second.learns_from) == ("listnet", 0.5, "oracle")
    assert first.first == steps[0].parts["lce"]
    assert second.last == steps[-1].parts["listnet"]
    assert second.cosine == pytest.approx((steps[4].cosines["lce, listnet"] + steps[9].cosines["lce, listnet"]) / 2)
    summary = stage_summary.read(run.final(0, "joint"))
    assert summary is not None
    assert summary.sampling.queries == 20
    assert 0 < summary.sampling.usable <= 20


def test_candidates_are_those_that_every_teacher_ranks_of_queries_that_every_teacher_ranks():
    def ranking(**lists):
        return Ranking(lists, {query: [-float(place) for place in range(len(docs))] for query, docs in lists.items()})

    first = ranking(q1=["a", "b", "c"], q2=["a"], q3=["b"])
    kept = ranked_by_all(first, [ranking(q1=["c", "b"], q2=["a"]), ranking(q1=["b", "x", "c"])])
    assert kept == {"q1": ["b", "c"]}
    assert ranked_by_all(first, []) == first
