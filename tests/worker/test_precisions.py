"""What "auto" came to is written down once, and a resumed run computes in it whatever the machine is by then."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec
import torch

from cerank.kernels import processor
from cerank.planning.inputs import open_datasets
from cerank.planning.workload import count_work
from cerank.worker import estimate_duration, pipeline
from cerank.worker.run_context import RunContext
from cerank.worker.run_log import RunLog
from tests.worker.small import small_plan, small_run


def automatic(tmp_path):
    plan, settings = small_plan(tmp_path)
    stages = {name: msgspec.structs.replace(stage, precision="auto") for name, stage in plan.recipe.stages.items()}
    plan = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, stages=stages))
    return plan, small_run(tmp_path, plan, settings)


def test_a_resumed_run_keeps_the_precision_it_began_in(tmp_path, monkeypatch):
    plan, run = automatic(tmp_path)
    notes = RunLog(run, 1, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    context = RunContext(plan, run, notes, None, None)
    monkeypatch.setattr("cerank.models.forward_pass.bf16_is_faster", lambda: True)
    assert set(pipeline.choose_precisions(context).values()) == {"bf16"}
    monkeypatch.setattr("cerank.models.forward_pass.bf16_is_faster", lambda: False)
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: False)
    assert set(pipeline.choose_precisions(context).values()) == {"bf16"}
    notes.close()
    events = run.events.read_text()
    assert events.count("precision chosen") == 2
    assert "emulates bf16" in events


def test_what_comes_later_in_a_run_is_not_taken_for_done_when_something_before_it_begins(tmp_path):
    plan, _ = automatic(tmp_path)
    work = count_work(plan.recipe, dict.fromkeys(open_datasets(plan.recipe, tmp_path / "cache"), 10))
    parts = estimate_duration.progress_parts(tuple(msgspec.structs.replace(part, minutes=1.0) for part in work))
    assert [part.order for part in parts] == sorted(part.order for part in parts)
    (last,) = [part for part in parts if part.phase == "re-rank" and part.detail.startswith("contrastive")]
    later = [part for part in parts if part.detail.startswith("distill")]
    assert all(part.order > last.order for part in later)


def test_measuring_the_machine_leaves_random_states_as_they_were(tmp_path):
    plan, _ = automatic(tmp_path)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    found = estimate_duration.measure_speeds(plan, open_datasets(plan.recipe, tmp_path / "cache"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert set(found) == {"contrastive", "distill"}
    assert all(pace.train > 0 and pace.score > 0 for pace in found.values())


def test_on_a_gpu_without_bf16_the_run_keeps_float32_for_training_and_fp16_for_re_ranking(
    tmp_path, monkeypatch, fake_gpu
):
    plan, run = automatic(tmp_path)
    fake_gpu((7, 5), "Tesla T4")
    log = RunLog(run, 1, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    context = RunContext(msgspec.structs.replace(plan, device="cuda"), run, log, None, None)
    chosen = pipeline.choose_precisions(context)
    assert set(chosen.values()) == {"fp32"}
    assert pipeline.precisions_of_reranking(run) == dict.fromkeys(chosen, "fp16")
    fake_gpu((9, 0))  # resumed on another card
    assert pipeline.choose_precisions(context) == chosen
    assert set(pipeline.precisions_of_reranking(run).values()) == {"fp16"}
    log.close()
    assert re.search("fp32, .*fp16, .*Tesla T4", run.events.read_text())
