"""Whole runs with mixed and filtered negatives: what is kept of them, and the same bits again."""

from __future__ import annotations

import msgspec
import pytest

from cerank.app.mining import planned_negatives
from cerank.app.mining.mine_candidates import MiningRequest, mine
from cerank.app.mining.negative_samples import SampleRequest, sample
from cerank.core.metrics import Event
from cerank.errors import RunFailedError, UsageError
from cerank.files import disk, journal, json_records
from cerank.files.hashing import sha256_file
from cerank.planning.stage_keys import stage_keys
from cerank.retrieval import false_negatives
from cerank.retrieval.mined_files import provenance_of
from cerank.runs.records import Failure
from tests.plan_fixtures import NOW
from tests.refusals import refused
from tests.worker.test_whole_runs import forked, killed_and_finished

from .small import STAGE, bits_of, small_plan, small_run

pytestmark = pytest.mark.slow


def mixed(folder, losses=(), **filters):
    """A plan of one stage that mixes four sources and filters by the scores of a run of the dataset."""
    chosen = {"scores": "oracle", "absolute_margin": 0.5, "positive": "highest", "near_duplicates": 0.9, **filters}
    stage = {
        **STAGE,
        "group_size": 6,
        "negative_sources": [
            {"source": "first-stage", "share": 2, "ranks": [2, 10]},
            {"source": "first-stage", "run": "oracle"},
            {"source": "collection"},
            {"source": "in-batch"},
        ],
        "false_negatives": chosen,
        **({"losses": losses} if losses else {}),
    }
    return small_plan(folder, chain=["contrastive"], stages={"contrastive": stage})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    plan, settings = mixed(folder)
    run = small_run(folder, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return folder, plan, settings, run


def test_the_run_keeps_what_was_dropped_and_counts_it(finished):
    _, _, _, run = finished
    dropped = false_negatives.read_list(run.dropped_negatives("contrastive"))
    counts = json_records.load(run.filter_counts("contrastive"), false_negatives.FilterCounts)
    assert dropped
    assert counts.dropped == false_negatives.count_dropped(dropped)
    assert counts.queries == 20
    assert any(event.kind == "negatives filtered" for event in journal.read_valid_rows(run.events, Event)[0])


def test_a_joint_stage_with_a_teacher_mixes_and_filters_negatives_to_the_same_bits_again(tmp_path):
    losses = [{"name": "lce"}, {"name": "ranknet", "teacher": "oracle"}]
    plans = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        plan, settings = mixed(folder, losses=losses)
        run = small_run(folder, plan, settings)
        assert forked(run) == (1, 0), run.log.read_text()
        plans.append(run)
    first, second = (false_negatives.read_list(run.dropped_negatives("contrastive")) for run in plans)
    assert first
    assert first == second
    models = [{name: bits for name, bits in bits_of(run).items() if name.startswith("stages/")} for run in plans]
    assert models[0]
    assert models[0] == models[1]


def test_a_run_that_was_killed_again_and_again_ends_with_the_same_bits(finished):
    folder, plan, settings, run = finished
    again = killed_and_finished(folder, plan, settings, run, kills=4, seed=3)
    assert bits_of(again) == bits_of(run)
    for name in ("contrastive.dropped.tsv.gz", "contrastive.json"):
        assert (again.path / "negatives" / name).read_bytes() == (run.path / "negatives" / name).read_bytes()


def test_a_look_at_the_run_shows_what_it_samples_and_what_it_dropped(finished):
    _, _, settings, run = finished
    shown = sample(settings, SampleRequest(what=run.name, queries=8, per_query=9))
    assert {row.source.partition(" ")[0] for row in shown.rows} == {"first-stage", "collection", "in-batch"}
    dropped = {
        (entry.query, entry.document) for entry in false_negatives.read_list(run.dropped_negatives("contrastive"))
    }
    for row in shown.rows:
        assert ((row.query, row.negative) in dropped) == bool(row.dropped_by)
        assert row.positive_text
        assert row.negative_text
    only = sample(settings, SampleRequest(what=f"{run.name}:contrastive", only_dropped=True))
    assert only.rows
    assert all(row.dropped_by for row in only.rows)
    with refused(UsageError, "stage-not-found", "distill"):
        sample(settings, SampleRequest(what=f"{run.name}:distill"))


def test_a_dry_run_shows_sources_shares_and_counts(finished):
    _, plan, _, _ = finished
    table = planned_negatives.table(plan)
    rows = [dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows]
    assert [row["share"] for row in rows] == [0.4, 0.2, 0.2, 0.2]
    assert [row["per_group"] for row in rows] == pytest.approx([2, 1, 1, 1])
    assert [(row["queries"], row["candidates"]) for row in rows] == [
        (None, None),
        (20, 200),
        (None, None),
        (None, None),
    ]


def test_filters_that_leave_nothing_end_the_run_before_it_trains(tmp_path):
    plan, settings = mixed(tmp_path, unscored="drop", max_score=-1.0)
    stage = plan.recipe.stages["contrastive"]
    only_first = msgspec.structs.replace(stage, negative_sources=stage.negative_sources[:2])
    recipe = msgspec.structs.replace(plan.recipe, stages={"contrastive": only_first})
    run = small_run(tmp_path, msgspec.structs.replace(plan, recipe=recipe), settings)
    assert forked(run)[1] == RunFailedError.exit_code
    assert json_records.load(run.failure, Failure)
    assert "no-negative-left" in run.failure.read_text() or "false_negatives" in run.failure.read_text()
    assert not (run.path / "stages").exists()


def test_a_reranker_of_a_run_mines_candidates_for_another_with_their_provenance(finished, tmp_path):
    folder, plan, settings, run = finished
    train = plan.recipe.data.train
    request = MiningRequest(dataset=train, by=run.name, output=tmp_path / "self.run.gz", depth=5, now=NOW)
    mined = mine(settings, request, lambda *_: None)
    found = provenance_of(mined.path)
    assert found == mined.provenance
    assert (found.by, found.depth, found.queries) == ("re-ranker", 5, 20)
    assert found.sha256 == sha256_file(mined.path)
    again = mine(settings, MiningRequest(**{**_fields(request), "output": tmp_path / "b.run.gz"}), lambda *_: None)
    assert again.path.read_bytes() == mined.path.read_bytes()
    shown = sample(settings, SampleRequest(what=str(mined.path), queries=3, per_query=2))
    assert {row.source for row in shown.rows} == {"mined"}
    stage = {**STAGE, "negative_sources": [{"source": "mined", "run": str(mined.path)}]}
    of_mined, _ = small_plan(tmp_path / "next", chain=["contrastive"], stages={"contrastive": {**STAGE, "steps": 2}})
    values = {"train": train, "validation": plan.recipe.data.validation, "test": list(plan.recipe.data.test)}
    planned, _ = small_plan(
        tmp_path / "mined", chain=["contrastive"], stages={"contrastive": stage}, data={**values, "depth": 8}
    )
    assert f"{mined.path} on {train}" in {entry.name for entry in planned.inputs}
    assert len(set(stage_keys(planned) + stage_keys(of_mined))) == 2
    with refused(UsageError, "mined-from-other-documents"):
        small_plan(tmp_path / "other", chain=["contrastive"], stages={"contrastive": stage}, data={
            **values, "train": f"{folder / 'apart'}[:50%]", "depth": 8
        })  # fmt: skip


def _fields(request):
    return {name: getattr(request, name) for name in request.__struct_fields__}


def test_mining_writes_nothing_over_a_file_and_needs_a_model(finished, tmp_path):
    _, plan, settings, _ = finished
    path = tmp_path / "there.run"
    disk.write(path, b"")
    with refused(UsageError, "file-exists", "there"):
        mine(settings, MiningRequest(dataset=plan.recipe.data.train, by="bm25", output=path, now=NOW), lambda *_: None)
    with pytest.raises(UsageError):
        mine(
            settings,
            MiningRequest(dataset=plan.recipe.data.train, by="nothing", output=tmp_path / "b.run", now=NOW),
            lambda *_: None,
        )
    assert not (tmp_path / "b.run").exists()
