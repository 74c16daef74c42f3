"""How long work takes is said where something like it was timed, and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from cerank.app import estimates
from cerank.app.plans import WorkItem, work_of
from cerank.core.metrics import StepMetrics, Validation
from cerank.files.journal import Journal
from cerank.machine import measured_speed
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.planning.workload import estimate_minutes
from cerank.recipes.schema import Compute
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow
from tests.worker.small import small_plan


def timed_run(plan, settings, second, seconds=1.0):
    """A run whose stages learned 8 pairs a step, and a validation of 10 queries to depth 5 in 2.5 seconds."""
    folder = run_store.create(settings.lab, plan, b"", datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC))
    rows: Journal[ReadingRow] = Journal(folder.readings, ReadingRow)
    for stage in range(len(plan.recipe.chain)):
        for step in range(1, 4):
            rows.append(StepMetrics(stage, step, 0.5, 1e-3, 1.0, 2, 8, seconds * (stage + 1)))
        rows.append(Validation(stage, 3, {"nDCG@10": 0.5}, 2.5))
    rows.close()
    return folder


@pytest.fixture
def made(tmp_path):
    plan, settings = small_plan(tmp_path)
    stages = {
        name: msgspec.structs.replace(stage, validation_queries=10, max_length=24 + index)
        for index, (name, stage) in enumerate(plan.recipe.stages.items())
    }
    return msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, stages=stages)), settings


def rates_of(plan, settings):
    return estimates.rates(settings.lab, plan.recipe, plan.device, plan.threads)


def test_nothing_is_known_in_an_empty_lab_and_of_what_never_ran_there(made):
    plan, settings = made
    assert rates_of(plan, settings) == {}
    timed_run(plan, settings, 1)
    other = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, base="another"))
    assert rates_of(other, settings) == {}
    assert rates_of(msgspec.structs.replace(plan, threads=plan.threads + 1), settings) == {}
    assert rates_of(msgspec.structs.replace(plan, device="cuda:0"), settings) == {}


def test_pairs_a_second_come_from_the_newest_run_of_that_base_device_and_length(made):
    plan, settings = made
    timed_run(plan, settings, 1, seconds=9.0)
    timed_run(plan, settings, 2)
    found = rates_of(plan, settings)
    assert found["contrastive"] == estimates.Rate(8.0, 10 * 5 / 2.5)
    assert found["distill"] == estimates.Rate(4.0, 3 * 4.0)  # not 20: forward alone is a third of the work


def on_two(plan, groups=2):
    stages = {
        name: msgspec.structs.replace(stage, groups_per_step=groups) for name, stage in plan.recipe.stages.items()
    }
    recipe = msgspec.structs.replace(plan.recipe, stages=stages)
    return msgspec.structs.replace(plan, recipe=recipe, devices=("cpu", "cpu"), step_shards=8)


def test_two_devices_are_as_fast_as_two_were_at_steps_of_that_size(made):
    plan, settings = made
    two = on_two(plan)
    timed_run(plan, settings, 1)
    assert estimates.of_devices(two, settings.lab) == ({}, "")
    timed_run(two, settings, 2, seconds=4.0)
    assert rates_of(plan, settings)["contrastive"].train == 8.0
    rates, where = estimates.of_devices(two, settings.lab)
    assert (rates["contrastive"].train, rates["distill"].train) == (2.0, 1.0)
    assert where
    assert estimates.of_devices(on_two(plan, groups=4), settings.lab) == ({}, "")
    four = msgspec.structs.replace(two, devices=("cpu",) * 4)
    assert estimates.of_devices(four, settings.lab) == ({}, "")


def test_divided_weights_are_not_as_fast_as_whole_ones(made):
    plan, settings = made
    whole = on_two(plan)
    recipe = msgspec.structs.replace(whole.recipe, compute=Compute(shard_parameters=True))
    divided = msgspec.structs.replace(whole, recipe=recipe)
    timed_run(whole, settings, 1)
    assert estimates.of_devices(whole, settings.lab)[0]
    assert estimates.of_devices(divided, settings.lab) == ({}, "")
    stage = recipe.stages["distill"]
    assert measured_speed.shared_speed_key(whole, stage, 2) != measured_speed.shared_speed_key(divided, stage, 2)


def test_what_the_machine_did_before_counts_more_than_runs_of_the_lab(made):
    plan, settings = made
    two = on_two(plan)
    timed_run(two, settings, 1)
    for name, stage in two.recipe.chained():
        key = measured_speed.shared_speed_key(two, stage, 2)
        speed = MeasuredSpeed(train=3.0 if name == "distill" else 5.0, score=9.0, load=0.0, time="2026-01-02")
        measured_speed.save_speed(settings.cache, key, speed)
    rates, where = estimates.of_devices(two, settings.lab)
    assert rates == {"contrastive": estimates.Rate(5.0, 9.0), "distill": estimates.Rate(3.0, 9.0)}
    assert "2026-01-02" in where


def test_a_damaged_run_says_nothing_and_stops_nothing(made):
    plan, settings = made
    timed_run(plan, settings, 1)
    timed_run(plan, settings, 2).plan.write_text("{")
    assert rates_of(plan, settings)["contrastive"].train == 8.0


def test_work_has_its_minutes_part_by_part_and_a_sum_where_all_of_them_are_known(made):
    plan, settings = made
    timed_run(plan, settings, 1)
    work = estimates.timed(work_of(plan), rates_of(plan, settings))
    parts = {part.part: part for part in work}
    assert parts["train contrastive"].minutes == pytest.approx(240 / 8 / 60)
    assert parts["validate distill"].minutes == pytest.approx(parts["validate distill"].pairs / 12 / 60)
    assert estimates.total(work) == pytest.approx(sum(part.minutes or 0 for part in work))
    known = {"contrastive": estimates.Rate(1.0, 1.0)}
    assert estimates.total(estimates.timed(work_of(plan), known)) is None
    assert estimates.total(()) is None


def test_where_no_validation_was_timed_scoring_is_three_times_as_fast_as_learning(made):
    plan, settings = made
    folder = run_store.create(settings.lab, plan, b"", datetime(2026, 1, 1, tzinfo=UTC))
    rows: Journal[ReadingRow] = Journal(folder.readings, ReadingRow)
    rows.append(StepMetrics(0, 1, 0.5, 1e-3, 1.0, 2, 8, 2.0))
    rows.close()
    assert rates_of(plan, settings) == {"contrastive": estimates.Rate(4.0, 12.0)}
    assert estimates.told(plan.recipe, 4.0)["distill"] == estimates.Rate(4.0, 12.0)


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(None, "unknown"), (0.5, "30 s"), (12.2, "12 min"), (200.0, "3 h 20 min"), (3120.0, "2 d 4 h")],
)
def test_times_are_said_as_people_say_them(minutes, words):
    assert estimates.format_minutes(minutes) == words


def test_a_part_without_a_stage_of_its_own_is_a_sum(made):
    assert estimates.timed([WorkItem("train a", 1, 8)], {"a": estimates.Rate(1.0, 1.0)})[0].minutes is None


def test_an_embedding_teacher_is_a_part_of_its_own_before_its_stage_trains(made):
    plan, _ = made
    speeds = {name: MeasuredSpeed(train=10.0, score=20.0, load=0.0, embed=5.0) for name in plan.recipe.chain}
    parts = [part.part for part in estimate_minutes(work_of(plan), speeds, {"distill": 300})]
    assert parts.index("teacher distill") == parts.index("train distill") - 1
    assert parts.index("teacher distill") > max(parts.index(part) for part in parts if part.endswith("contrastive"))
    timed = {part.part: part for part in estimate_minutes(work_of(plan), speeds, {"distill": 300})}
    assert timed["teacher distill"].minutes == pytest.approx(1.0)
    assert timed["train distill"].minutes > timed["train distill"].pairs / 10 / 60
    assert "teacher contrastive" not in timed
