"""What a stage says of itself: its loss on validation queries, its facts, what was shared, how its rankings are."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import torch

from cerank.app import plans
from cerank.cli.tables import plan_tables, stage_tables
from cerank.core.metrics import Event, Validation
from cerank.core.rankings import Ranking
from cerank.datasets.query_overlaps import SharedQueries
from cerank.errors import UsageError
from cerank.files import journal, json_records
from cerank.inference.rerank import Scorer
from cerank.recipes.recipe_checks import recipe_from
from cerank.training import stage_summary
from cerank.training.stage_summary import RankingStats
from cerank.trec.text_io import read_run
from cerank.worker import __main__ as worker
from cerank.worker.heartbeat import Heartbeat
from cerank.worker.run_context import RunContext, StopFlag
from cerank.worker.run_inputs import RunInputs
from cerank.worker.run_log import RunLog
from cerank.worker.train_stage import StageWork
from tests.refusals import refused
from tests.worker.test_whole_runs import forked, rows_of

from .small import STAGE, small_plan, small_run

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CONTRASTIVE = {**STAGE, "validation_loss": "yes", "truncation": "longest_first", "in_batch": 2}
DISTILL = {**STAGE, "loss": "ranknet", "source": "teacher", "teacher": "oracle", "mean_over": "pairs", "keep": "last"}
DISTILL |= {"validation_measure": "loss", "max_document_length": 12, "steps": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    data = str(folder / "data")
    parts = {"train": f"{data}[:50%]", "validation": f"{data}[50%:70%]", "test": [f"{data}[70%:]"]}
    plan, settings = small_plan(
        folder,
        data={**parts, "first_stages": ["bm25", "oracle"], "depth": 8},
        stages={"contrastive": CONTRASTIVE, "distill": DISTILL},
    )
    run = small_run(folder, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run, plan


def test_a_validation_shows_the_stages_own_loss_beside_the_measures(finished):
    run, _ = finished
    rows = [row for row in rows_of(run) if isinstance(row, Validation)]
    assert [(row.stage, row.step) for row in rows] == [
        *((0, step) for step in (0, 10, 20, 30)),
        *((1, step) for step in (0, 10, 20)),
    ]
    assert all(set(row.measures) == {"nDCG@10", "RR@10", "loss"} for row in rows)
    assert all(math.isfinite(row.measures["loss"]) and row.measures["loss"] > 0 for row in rows)


def test_what_a_stage_draws_from_ends_at_its_window_however_deep_another_part_of_the_recipe_looks(tmp_path):
    contrastive = {**STAGE, "window": [1, 4], "positives": 2, "positives_by": "top", "first_stage": "oracle"}
    deeper = {**contrastive, "window": [1, 10]}
    supplies, seen = [], []
    for name, stages in (("one", {"contrastive": contrastive}), ("two", {"contrastive": contrastive, "more": deeper})):
        plan, settings = small_plan(tmp_path / name, chain=list(stages), stages=stages)
        run = small_run(settings.lab, plan, settings)
        with contextlib.closing(RunLog(run, 1, lambda: NOW)) as notes:
            beat = Heartbeat(tmp_path / "beat.json", 1, lambda: NOW)
            context = RunContext(plan, run, notes, beat, StopFlag(run.stop))
            sampler = StageWork(context, RunInputs(context), 0).make_sampler()
        supplies.append(sampler.sampling)
        seen.append([sampler.groups(step) for step in range(1, 6)])
    assert supplies[0].unretrieved_positives > 0
    assert supplies[0] == supplies[1]
    assert seen[0] == seen[1]


def test_the_checkpoint_of_the_smallest_validation_loss_is_the_best(finished):
    run, _ = finished
    losses = {row.step: row.measures["loss"] for row in rows_of(run) if isinstance(row, Validation) and row.stage == 1}
    found = stage_summary.read(run.final(1, "distill"))
    assert (found.measure, found.best, found.best_step) == ("loss", min(losses.values()), min(losses, key=losses.get))
    assert (found.kept_step, found.steps) == (20, 20)  # keep = "last"


def test_the_validation_loss_of_a_distillation_is_by_the_teachers_order_over_all_pairs(finished):
    run, plan = finished
    row = [row for row in rows_of(run) if isinstance(row, Validation)][-1]
    teacher = read_run(run.teacher("distill")).ranking
    scorer = Scorer.load(run.final(1, "distill"))
    from cerank.datasets.open_datasets import open_dataset

    data = open_dataset(plan.recipe.data.validation, run.path)
    lists = {query: teacher[query] for query in data.queries}
    terms = []
    assert len(lists) == 8
    # groups are 4 of 10 documents, drawn by seed: every pair of the list bounds them, and the mean is near
    for query, docs in lists.items():
        scores = scorer.score([(data.queries[query], data.documents.text(doc)) for doc in docs])
        terms += [
            math.log1p(math.exp(scores[j] - scores[i])) for i in range(len(docs)) for j in range(i + 1, len(docs))
        ]
    assert row.measures["loss"] == pytest.approx(sum(terms) / len(terms), rel=0.25)


def test_a_stages_facts_are_its_supply_its_repairs_and_how_far_its_weights_moved(finished):
    run, _ = finished
    first, second = (
        stage_summary.read(run.final(index, name)) for index, name in enumerate(("contrastive", "distill"))
    )
    assert (first.sampling.queries, first.sampling.usable, first.teacher_lists) == (20, 20, 0)
    assert (second.teacher_lists, second.repairs.repaired, second.validation.usable) == (40, 0, 8)
    for found in (first, second):
        assert 1e-3 < found.weight_change.norm < 1
        assert 0.5 < found.weight_change.changed <= 1
        assert not found.weight_change.is_negligible


def test_what_parts_share_is_told_once_and_kept(finished):
    run, _ = finished
    shared = json_records.load(run.overlaps, SharedQueries).overlaps
    told = [event.text for event in journal.read(run.events, Event) if event.kind == "queries shared"]
    assert told == [str(overlap) for overlap in shared]
    assert all(overlap.by_id == 0 for overlap in shared)


def test_first_stage_and_models_are_measured_at_one_depth_and_ties_are_on_record(finished):
    run, plan = finished
    (test,) = plan.recipe.data.test
    for first in plan.recipe.data.first_stages:
        found = [
            json_records.load(run.ranking_stats_file(system, test, first), RankingStats)
            for system in ("first-stage", "contrastive", "distill")
        ]
        assert len({(one.queries, one.min_depth, one.max_depth) for one in found}) == 1
        assert found[0].max_depth <= plan.recipe.data.depth
        assert all(0 <= one.tied <= 1 for one in found)


def test_show_tells_stages_rankings_and_shared_queries(finished):
    run, plan = finished
    assert [row[0] for row in stage_tables.stage_table(run, plan).rows] == ["contrastive", "distill"]
    assert len(stage_tables.ranking_table(run, plan).rows) == 6
    assert (
        plan_tables.shared_query_table(json_records.load(run.overlaps, SharedQueries).overlaps).name == "shared_queries"
    )


def test_a_checkpoint_scores_with_the_lengths_its_stage_had(finished):
    run, _ = finished
    from cerank.models.cross_encoder import CheckpointConfig

    limits = [
        CheckpointConfig.read(run.final(0, "contrastive")).limits,
        CheckpointConfig.read(run.final(1, "distill")).limits,
    ]
    assert [(one.truncation, one.max_document_length) for one in limits] == [("longest_first", 0), ("document", 12)]


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A run at the paper's rate of its second stage, forced."""
    folder = tmp_path_factory.mktemp("still")
    plan, settings = small_plan(
        folder,
        chain=["contrastive"],
        force=["learning_rate", "shared_queries"],
        stages={"contrastive": {**STAGE, "steps": 3, "validate_every": 0, "learning_rate": 6e-12}},
    )
    run = small_run(folder, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run, plan


def test_a_stage_that_moved_nothing_is_warned_of_and_shown(still):
    run, plan = still
    (text,) = [event.text for event in journal.read(run.events, Event) if event.kind == "stage moved nothing"]
    assert text.startswith("contrastive: the weights moved by ")
    assert "6e-12 over 3 steps" in text
    assert stage_summary.read(run.final(0, "contrastive")).weight_change.is_negligible
    assert any("contrastive" in note for note in stage_tables.stage_table(run, plan).notes)


def test_a_validation_loss_that_a_teacher_cannot_give_is_refused_when_a_run_is_planned(tmp_path):
    with refused(UsageError, "teacher-of-other-documents"):  # small runs validate on another collection
        small_plan(tmp_path / "one", chain=["distill"], stages={"distill": DISTILL})
    data, some = str(tmp_path / "two" / "data"), tmp_path / "some.run"
    some.write_text("".join(f"q0 Q0 d{at} {at} {9 - at} t\n" for at in range(9)))
    parts = {"train": f"{data}[:50%]", "validation": f"{data}[50%:70%]", "test": [f"{data}[70%:]"]}
    stage = {**DISTILL, "teacher": str(some)}
    with refused(UsageError, "teacher-without-queries", 8):
        small_plan(tmp_path / "two", chain=["distill"], data=parts, stages={"distill": stage})


def test_the_work_counts_in_batch_negatives_and_the_groups_of_a_validation_loss(finished):
    _, plan = finished
    work = {part.part: part.pairs for part in plans.work_of(plan)}
    assert work["train contrastive"] == 30 * 2 * (4 + 2)
    assert work["validate contrastive"] == (1 + 3) * 8 * (5 + 4)  # before the first step, and three after it


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "too little free memory"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "nvidia-smi"),
        (KeyError("x"), "internal error"),
    ],
)
def test_a_crash_says_whether_memory_the_gpu_or_the_program_is_the_cause(error, hint):
    failure = worker.failure_of_crash(error)
    assert failure.kind == "crash"
    assert hint in failure.hint


def test_a_model_is_asked_for_labels_of_the_queries_that_the_shares_of_a_mixture_give():
    stage = {"steps": 4, "groups_per_step": 2, "group_size": 2, "labels_by": "judge"}
    teachers = {"judge": {"kind": "graded", "model": "m"}}
    values = {"name": "r", "chain": ["a"], "data": {"train": "./a * 1000 + ./b"}, "stages": {"a": stage}}
    recipe = recipe_from({**values, "teachers": teachers}, "test")
    queries = [*(f"1:q{place}" for place in range(2)), *(f"2:q{place}" for place in range(20))]
    ranking = Ranking(
        {query: [f"{query[:2]}d{place}" for place in range(4)] for query in queries},
        {query: [4.0, 3.0, 2.0, 1.0] for query in queries},
    )
    members = {number: SimpleNamespace(queries=[q for q in queries if q[0] == number]) for number in ("1", "2")}
    dataset = SimpleNamespace(
        query_ids=queries, qrels={}, documents=set(), members=members, weights={"1": 1000.0, "2": 1.0}
    )
    asked: list[str] = []

    def answer(_name, _stage, sampled):
        asked.extend(sampled)
        raise InterruptedError

    run_inputs = SimpleNamespace(datasets={recipe.data.train: dataset}, candidates=lambda *_: ranking, teacher=answer)
    context = SimpleNamespace(
        plan=SimpleNamespace(recipe=recipe),
        folder=SimpleNamespace(final=lambda *_: None),
        heartbeat=SimpleNamespace(enter=lambda *_, **__: None),
    )
    with pytest.raises(InterruptedError):
        StageWork(context, run_inputs, 0).make_sampler()
    assert asked == ["1:q0", "1:q1"]
