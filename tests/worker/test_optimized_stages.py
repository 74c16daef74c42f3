"""A run with Lion, rates by layer, an average of weights and the best weights by several measures: what it leaves."""

from __future__ import annotations

import random
import shutil
import signal
from datetime import UTC, datetime

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from cerank.app import plans
from cerank.app.comparison.named_systems import target
from cerank.app.named_models import check_measured, trained_model
from cerank.app.plans import plan_of
from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.errors import RecipeError, UsageError
from cerank.files import journal
from cerank.inference.rerank import Scorer
from cerank.planning import base_fit
from cerank.training import stage_summary
from tests.model_fixtures import WORDS
from tests.refusals import refused
from tests.worker.test_whole_runs import forked, killed_and_finished, rows_of

from .small import STAGE, bits_of, small_plan, small_run, write_dataset

PAIRS = [(WORDS[number], f"{WORDS[number + 1]} {WORDS[number]}") for number in range(8)]
OPTIONS = {"layer_decay": 0.8, "head_rate_factor": 10.0, "ema": 0.7, "keep_best": ["RR@10", "loss"]}
STAGES = {
    "contrastive": {**STAGE, "steps": 12, "validate_every": 3, **OPTIONS},
    "distill": {
        **STAGE,
        "steps": 8,
        "validate_every": 2,
        "optimizer": "lion",
        "ema": 0.7,
        "ema_for": "validation",
        "loss": "ranknet",
        "source": "teacher",
        "teacher": "oracle",
        "keep": "last",
        "keep_best": ["nDCG@10"],
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    plan, settings = small_plan(tmp_path_factory.mktemp("optimized"), stages=STAGES)
    run = small_run(settings.lab.parent, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run, plan, settings


def validations(run, index):
    return [row for row in rows_of(run) if isinstance(row, Validation) and row.stage == index and row.step]


@pytest.mark.slow
def test_the_best_weights_by_each_measure_are_a_model_that_commands_take_by_name(finished):
    run, plan, settings = finished
    events = [event for event in journal.read(run.events, Event) if event.kind == "best weights kept"]
    assert len(events) == 3
    for index, (name, measure) in enumerate(
        (("contrastive", "RR@10"), ("contrastive", "loss"), ("distill", "nDCG@10"))
    ):
        place = plan.recipe.chain.index(name)
        values = {row.step: row.measures[measure] for row in validations(run, place)}
        best = min(values.values()) if measure == "loss" else max(values.values())
        summary = stage_summary.read(run.best_model(place, name, measure))
        assert summary.best == best
        assert summary.kept_step == next(step for step, value in values.items() if value == best)
        model = trained_model(settings.lab, f"{run.name}:{name}@best-{measure}")
        assert model.folder == run.best_model(place, name, measure)
        assert len(set(Scorer.load(model.folder).score(PAIRS))) > 4
        assert f"{name}@best-{measure}" in events[index].text
    with refused(UsageError, "best-not-ranked", "contrastive@best-loss"):
        check_measured(trained_model(settings.lab, f"{run.name}:contrastive@best-loss"), "contrastive@best-loss")
    with refused(UsageError, "best-not-ranked", "contrastive@best-RR@10"):
        target(settings.lab, f"{run.name}:contrastive@best-RR@10")
    with refused(UsageError, "best-not-kept", "AP"):
        trained_model(settings.lab, f"{run.name}:contrastive@best-AP")


@pytest.mark.slow
def test_a_stage_hands_on_the_average_or_the_weights_as_the_recipe_says(finished):
    run, _, _ = finished
    last = run.checkpoint(1, "distill", 8)
    final = load_file(run.final(1, "distill") / "model.safetensors")
    plain, average = (load_file(last / f"{kind}.safetensors") for kind in ("model", "average"))
    name = next(name for name in final if "layer.1" in name and name.endswith("weight"))
    assert torch.equal(final[name], plain[f"encoder.{name}"])
    assert not torch.equal(final[name], average[f"encoder.{name}"])
    summary = stage_summary.read(run.final(0, "contrastive"))
    at_end = stage_summary.read(run.best_model(0, "contrastive", "loss"))
    kept = max((summary, at_end), key=lambda one: one.kept_step)
    if kept.kept_step == 12:
        average = load_file(run.checkpoint(0, "contrastive", 12) / "average.safetensors")
        folder = run.final(0, "contrastive") if kept is summary else run.best_model(0, "contrastive", "loss")
        assert torch.equal(load_file(folder / "model.safetensors")[name], average[f"encoder.{name}"])


@pytest.mark.slow
def test_killed_at_random_times_it_ends_with_the_same_bits(finished):
    run, plan, settings = finished
    killed = killed_and_finished(settings.lab.parent, plan, settings, run, kills=5, seed=4)
    assert bits_of(killed) == bits_of(run)


@pytest.mark.slow
def test_a_reused_stage_has_its_best_weights_too_and_a_damaged_one_is_made_again(finished):
    run, plan, settings = finished
    shared = small_run(settings.lab, msgspec.structs.replace(plan, shares=True), settings, second=40)
    donor = small_run(settings.lab, plan, settings, second=39)
    shutil.rmtree(donor.path)
    shutil.copytree(run.path, donor.path)
    assert forked(shared) == (1, 0), shared.log.read_text()
    assert shared.reused_stage(0, "contrastive").exists()
    for measure in ("RR@10", "loss"):
        ours, theirs = (one.best_model(0, "contrastive", measure) / "model.safetensors" for one in (shared, run))
        assert ours.read_bytes() == theirs.read_bytes()
    again = small_run(settings.lab.parent, plan, settings, second=41)
    shutil.rmtree(again.path)
    shutil.copytree(run.path, again.path)
    again.done.unlink()
    damaged = again.best_model(1, "distill", "nDCG@10") / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\xff\x00\xff\x00")
    assert forked(again) == (1, 0), again.log.read_text()
    ours, theirs = (one.best_model(1, "distill", "nDCG@10") / "model.safetensors" for one in (again, run))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_an_adapters_best_weights_and_averages_are_whole_models_too(tmp_path):
    pytest.importorskip("peft")
    stage = {**STAGE, "steps": 6, "validate_every": 2, "learning_rate": 1e-2, "optimizer": "lion", **OPTIONS}
    stage |= {"adapter": {"kind": "lora", "rank": 4}}
    plan, settings = small_plan(tmp_path, chain=["contrastive"], stages={"contrastive": stage})
    run = small_run(tmp_path, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    for measure in ("RR@10", "loss"):
        folder = run.best_model(0, "contrastive", measure)
        whole = Scorer.load(folder).score(PAIRS)
        assert Scorer.load(folder / "adapter").score(PAIRS) == pytest.approx(whole, rel=1e-5, abs=1e-5)
    average = load_file(run.checkpoint(0, "contrastive", 6) / "average.safetensors")
    assert any("lora_A" in name for name in average)
    assert not any("word_embeddings" in name for name in average)


@pytest.mark.slow
def test_it_has_the_same_bits_on_any_number_of_processes(tmp_path):
    stage = {**STAGE, "steps": 6, "groups_per_step": 4, "validate_every": 2, "optimizer": "lion", **OPTIONS}
    made, settings = small_plan(tmp_path, chain=["contrastive"], stages={"contrastive": stage})
    shared = plan_of(made.recipe, msgspec.structs.replace(settings, devices="2"), now=datetime(2026, 1, 2, tzinfo=UTC))
    one, two = (small_run(tmp_path, shared, settings, second) for second in (5, 6))
    from tests.worker.test_several_devices import by_forks

    assert by_forks(one, 1) == [0]
    assert by_forks(two, 2) == [0, 0]
    assert bits_of(one) == bits_of(two)
    assert (two.best_model(0, "contrastive", "RR@10") / "model.safetensors").exists()


def planned(folder, **changes):
    stage = {**STAGE, **changes}
    return small_plan(folder, chain=["contrastive"], stages={"contrastive": stage})[0]


def test_a_plan_lists_rates_average_and_kept_weights_and_counts_their_memory(tmp_path):
    plain = planned(tmp_path / "plain")
    plan = planned(tmp_path / "all", **OPTIONS, optimizer="lion")
    work = plans.work_of(plan)
    rates, average, kept = base_fit.optimization_sentences(plan, work)
    assert [group.name for group in base_fit.rates_of(plan.recipe)["contrastive"]] == [
        "embeddings", "layer 1", "layer 2", "head",
    ]  # fmt: skip
    assert "0.01" in rates  # ten times the rate of the stage
    assert "30" in average
    assert "contrastive@best-RR@10" in kept
    assert base_fit.optimization_sentences(plain, plans.work_of(plain)) == []
    of_all, of_plain = base_fit.memory_of(plan)["contrastive"], base_fit.memory_of(plain)["contrastive"]
    assert (of_plain.moments, of_plain.average) == (2 * of_plain.gradients, 0)
    assert (of_all.moments, of_all.average) == (of_all.gradients, of_all.gradients)


def test_what_cannot_be_is_refused_when_a_run_is_planned(tmp_path):
    for changes in (
        {"keep_best": ["MRR@10", "RR@10"]},  # two spellings of one measure
        {"layer_decay": 1e-4},
    ):
        with pytest.raises(RecipeError) as caught:
            planned(tmp_path / str(len(changes)) / next(iter(changes)), **changes)
        assert f"stages.contrastive.{next(iter(changes))}" in str(caught.value)
    with refused(UsageError, "unknown-measure"):
        planned(tmp_path / "unknown", keep_best=["nonsense"])


@pytest.mark.slow
def test_set_losses_and_a_curriculum_resume_to_the_same_bits_and_have_them_on_two_processes(tmp_path):
    from tests.worker.test_several_devices import by_forks

    draw = random.Random(3)
    other = write_dataset(tmp_path / "other", seed=9)
    data = f"{tmp_path / 'data'}[:50%]"
    sets = {"name": "lce", "sets": [data]}, {"name": "bce", "weight": 0.5, "sets": [f"{other}[:50%]"]}
    short = {**STAGE, "steps": 6, "validate_every": 2, "groups_per_step": 4}
    taught = {**short, "loss": "ranknet", "source": "teacher", "teacher": str(tmp_path / "sure.run")}
    rows = [
        f"q{query} Q0 d{doc} {rank + 1} {10 - rank + draw.random():.4f} t\n"
        for query in range(40)
        for rank, doc in enumerate(draw.sample(range(60), 8))
    ]
    (tmp_path / "sure.run").write_text("".join(rows))
    made, settings = small_plan(
        tmp_path,
        chain=["mixed", "taught"],
        stages={
            "mixed": {**short, "dataset": f"{data} * 2 + {other}[:50%]", "losses": list(sets)},
            "taught": {**taught, "curriculum": {"kind": "confident-first", "share": 0.7}},
        },
    )
    shared = plan_of(made.recipe, msgspec.structs.replace(settings, devices="2"), now=datetime(2026, 1, 2, tzinfo=UTC))
    one, two = (small_run(tmp_path, shared, settings, second) for second in (5, 6))
    assert by_forks(one, 1) == [0]
    assert by_forks(two, 2, fault=(0, signal.SIGTERM)) == [75, 0]
    assert by_forks(two, 2) == [0, 0]
    assert bits_of(one) == bits_of(two)
    steps = [row for row in rows_of(one) if isinstance(row, StepMetrics)]
    of_sets = [row for row in steps if row.stage == 0]
    assert all(
        row.loss == pytest.approx(sum(w * v for w, v in zip((1.0, 0.5), row.parts.values(), strict=True)))
        for row in of_sets
    )
    assert {name for row in of_sets for name in row.sets} == {data, f"{other}[:50%]"}
    kinds = [event.kind for event in journal.read(one.events, Event)]
    assert kinds.count("curriculum") == 1
