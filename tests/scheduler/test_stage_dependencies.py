"""Queued runs that share a stage: one trains it, the others wait for that, and none waits for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.recipes.plan import Input, Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.scheduler.supervisor import StageDependencies
from tests.scheduler.conftest import GPUS, TOML, Bench, eventually

STAGES = {"cl": {"steps": 1}, "kd": {"steps": 2}}


def plan_of(*chain: str, shares: bool = True, label: str = "quick", device: str = "cuda") -> Plan:
    values = {"name": "-".join(chain), "chain": list(chain), "stages": STAGES}
    values |= {"data": {"train": "t", "validation": "v", "test": ["e"], "first_stages": ["f"]}}
    inputs = [
        ("base", "minilm"),
        ("dataset", "t"),
        ("dataset", "v"),
        ("first_stage", "f on t"),
        ("first_stage", "f on v"),
    ]
    return Plan(
        recipe=recipe_from(values, "test"),
        inputs=tuple(Input(role, name, "0" * 64) for role, name in inputs),
        device=device,
        threads=1,
        cache="/c",
        label=label,
        shares=shares,
    )


def made(lab: Path, *chain: str, shares: bool = True) -> RunFolder:
    return run_store.create(lab, plan_of(*chain, shares=shares), TOML, datetime.now(UTC))


def finish(folder: RunFolder, index: int, name: str) -> None:
    folder.final(index, name).mkdir(parents=True)


def test_a_run_waits_for_the_one_ahead_that_trains_its_first_stage_and_for_no_other(tmp_path: Path) -> None:
    first = made(tmp_path, "cl")
    both, other, alone = made(tmp_path, "cl", "kd"), made(tmp_path, "kd"), made(tmp_path, "cl", shares=False)
    line = StageDependencies(tmp_path, [first.name])
    assert not line.can_start(both.name)
    assert line.can_start(other.name)
    assert line.can_start(alone.name)
    line.add(other.name)
    assert not line.can_start(made(tmp_path, "kd", "cl").name)


def test_once_the_stages_that_are_on_their_way_stand_the_run_starts(tmp_path: Path) -> None:
    first, both = made(tmp_path, "cl", "kd"), made(tmp_path, "cl", "kd")
    turned = made(tmp_path, "cl")
    finish(first, 0, "cl")
    line = StageDependencies(tmp_path, [first.name])
    assert line.can_start(turned.name)
    assert not line.can_start(both.name)  # it lacks kd as well, which is on its way
    finish(first, 1, "kd")
    assert StageDependencies(tmp_path, [first.name]).can_start(both.name)


def test_a_run_that_cannot_be_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    first, both = made(tmp_path, "cl"), made(tmp_path, "cl", "kd")
    first.plan.write_text("{")
    line = StageDependencies(tmp_path, [first.name, "gone"])
    assert line.can_start(both.name)
    assert line.can_start(first.name)


def test_with_two_free_devices_a_shared_stage_is_trained_on_one_and_the_next_run_goes_ahead(bench: Bench) -> None:
    bench.lab = bench.opened(GPUS)
    plans = [plan_of("cl", label="hold"), plan_of("cl", "kd", label="hold"), plan_of("kd", label="hold")]
    first, both, other = (bench.lab.enqueue(plan, TOML) for plan in plans)
    eventually(lambda: bench.is_at_work(first) and bench.is_at_work(other))
    assert bench.state(both) == "queued"
    assert bench.starts(both) == []
    bench.release()
    eventually(lambda: bench.lab.queue_state().state == "idle")
    assert bench.states([first, both, other]) == ["finished"] * 3
    assert bench.starts(both)[0].time >= bench.starts(first)[0].time


def test_a_run_that_waits_for_a_device_that_is_not_here_holds_up_no_other(bench: Bench) -> None:
    bench.lab = bench.opened(GPUS)
    absent = run_store.create(bench.folder, plan_of("cl", device="cuda:7"), TOML, datetime.now(UTC))
    bench.written(absent.name)
    both = bench.lab.enqueue(msgspec.structs.replace(plan_of("cl", "kd")), TOML)
    eventually(lambda: bench.state(both) == "finished")
    assert bench.state(absent) == "queued"
