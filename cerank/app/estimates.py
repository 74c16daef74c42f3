"""How long a plan's work will take, from what former runs of the lab did on the same device.

Invariant: a time is given only where something like it was measured here, or where the user says how fast; else None.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.errors import CerankError
from cerank.files import journal
from cerank.machine import measured_speed
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.planning.shared_speed import SCORING, Rate, rate_of_rows
from cerank.planning.workload import WorkItem, count_work, estimate_minutes, format_minutes, seconds_of, sizes_of
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe, Stage
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.scheduler import local_launcher

__all__ = ["Rate", "format_minutes", "seconds_of"]

NEWEST = 100  # runs looked at, the newest first
_PATIENCE = 120.0  # seconds that a measurement may take, indexes that it builds included


def rates(lab: Path, recipe: Recipe, device: str, threads: int, count: int = 1) -> dict[str, Rate]:
    """Return stage -> how fast it goes, for the stages of the chain of which something like was trained before.

    Like is: the same base and pooling, kind of device, threads (on a CPU), longest pair and precision, and for several
    devices their number, the pairs of a step and whether they divide the weights; the newest such stage of the lab's
    newest 100 runs counts.

    Args:
        lab: folder of the runs from which speeds are read.
        recipe: complete recipe, with its base as a plan names it.
        device: name of the device as a plan has it, such as "cpu" or "cuda:0".
        threads: number of CPU threads that the run will use; it does not matter on a GPU.
        count: devices that share a run, whose speed together is asked for.
    """
    kinds = {name: _like(recipe, stage, device, threads, count) for name, stage in recipe.chained()}
    rate_of: dict[tuple[object, ...], Rate] = {}
    for folder in run_store.folders(lab)[: -NEWEST - 1 : -1]:
        if all(like in rate_of for like in kinds.values()):
            break
        try:
            plan = run_store.load_plan(folder)
            _enter_rates(folder, plan, set(kinds.values()), rate_of)
        except CerankError:
            continue  # a damaged run says nothing
    return {name: rate_of[like] for name, like in kinds.items() if like in rate_of}


def of_devices(plan: Plan, lab: Path) -> tuple[dict[str, Rate], str]:
    """Return stage -> speed of the plan's devices together, and where it is from.

    Empty where not every stage was trained by so many devices, on this machine or in this lab.
    """
    count, cache = len(plan.devices), Path(plan.cache)
    stored = {
        name: measured_speed.load_speed(cache, measured_speed.shared_speed_key(plan, stage, count))
        for name, stage in plan.recipe.chained()
    }
    known = {name: speed for name, speed in stored.items() if speed is not None}
    if len(known) == len(stored):
        times = min(speed.time for speed in known.values())
        return {name: Rate(speed.train, speed.score) for name, speed in known.items()}, f"on this machine, {times}"
    earlier = rates(lab, plan.recipe, plan.device, plan.threads, count)
    return (earlier, "by earlier runs of this lab") if len(earlier) == len(stored) else ({}, "")


def measured(plan: Plan, *, anew: bool = True) -> tuple[dict[str, MeasuredSpeed], str]:
    """Return stage -> how fast this machine was when last measured at its settings, and where that is from.

    Args:
        plan: plan of the run whose stages are to be timed.
        anew: whether to measure now, in a separate process, what no stored measurement covers.
    """
    cache = Path(plan.cache)

    def known() -> dict[str, MeasuredSpeed]:
        speeds = {
            name: measured_speed.load_speed(cache, measured_speed.speed_key(plan, stage))
            for name, stage in plan.recipe.chained()
        }
        last = plan.recipe.stages[plan.recipe.chain[-1]].precision
        for name, model in plan.recipe.baseline_models().items():
            speeds[name] = measured_speed.load_speed(cache, measured_speed.baseline_speed_key(plan, model, last))
        return {name: pace for name, pace in speeds.items() if pace is not None}

    scored_models = len(plan.recipe.chain) + len(plan.recipe.baselines)
    speeds, is_new = known(), False
    is_known = len(speeds) == scored_models and all(speed.is_quiet for speed in speeds.values())
    if not is_known and anew:
        environment = local_launcher.environment(plan, os.environ)
        command = [sys.executable, "-P", "-m", "cerank.worker.estimate_duration"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command,
                input=msgspec.json.encode(plan),
                env=environment,
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
        speeds, is_new = known(), True
    if len(speeds) < scored_models:
        return {}, "nothing like it was measured on this machine"
    return speeds, source_of(tuple(speeds.values()), is_new=is_new)


def source_of(speeds: Sequence[MeasuredSpeed], *, is_new: bool) -> str:
    """Return where speeds are from, in words.

    Args:
        speeds: at least one.
        is_new: whether one of them was measured just now.
    """
    beside = "" if all(speed.is_quiet for speed in speeds) else ", while other programs kept the machine busy"
    return f"measured here {'just now' if is_new else 'before'}, {min(speed.time for speed in speeds)}{beside}"


def of_plan(plan: Plan, speeds: Mapping[str, MeasuredSpeed]) -> tuple[WorkItem, ...]:
    """Return the plan's work with the minutes of each part by what was measured; opens its datasets."""
    from cerank.planning import inputs

    cache = Path(plan.cache)
    datasets = inputs.open_datasets(plan.recipe, cache)
    return estimate_minutes(
        count_work(plan.recipe, *sizes_of(datasets)), speeds, inputs.texts_to_embed(plan.recipe, datasets, cache)
    )


def told(recipe: Recipe, pairs_per_second: float) -> dict[str, Rate]:
    """Return the rates of a recipe's stages where the user says how many pairs are trained a second.

    Its baselines count as if they were as fast.
    """
    return dict.fromkeys((*recipe.chain, *recipe.baseline_models()), Rate(pairs_per_second, SCORING * pairs_per_second))


def timed(work: Sequence[WorkItem], known: Mapping[str, Rate]) -> tuple[WorkItem, ...]:
    """Return the work with the minutes of each part whose stage's rate is known."""
    out = []
    for part in work:
        rate = known.get(part.stage)
        speed = (rate.train if part.part.startswith("train ") else rate.score) if rate else 0.0
        out.append(msgspec.structs.replace(part, minutes=part.pairs / speed / 60 if speed else None))
    return tuple(out)


def total(work: Sequence[WorkItem]) -> float | None:
    """Return the minutes of all parts together; None if those of any part are unknown."""
    minutes = [part.minutes for part in work]
    return None if not minutes or None in minutes else sum(minute for minute in minutes if minute is not None)


def _like(recipe: Recipe, stage: Stage, device: str, threads: int, count: int) -> tuple[object, ...]:
    kind = device.partition(":")[0]
    step = stage.groups_per_step * stage.group_size  # pairs, beside which an exchange of gradients is short or long
    together = (count, step, recipe.compute.shard_parameters) if count > 1 else ()
    return (
        *together,
        recipe.base,
        recipe.pooling,
        kind,
        threads if kind == "cpu" else 0,
        stage.max_length,
        stage.precision or ("fp32" if kind == "cpu" else "auto"),  # as a plan fills it in
    )


def _enter_rates(
    folder: RunFolder, plan: Plan, kinds: set[tuple[object, ...]], rate_of: dict[tuple[object, ...], Rate]
) -> None:
    """Enter the rates of the run's stages that are of one of the kinds and have no rate yet."""
    count = max(1, len(plan.devices))
    rows: list[ReadingRow] | None = None
    for index, (_, stage) in enumerate(plan.recipe.chained()):
        like = _like(plan.recipe, stage, plan.device, plan.threads, count)
        if like not in kinds or like in rate_of:
            continue
        rows = journal.read(folder.readings, ReadingRow) if rows is None else rows
        rate = rate_of_rows([row for row in rows if row.stage == index], stage)
        if rate is not None:
            rate_of[like] = rate
