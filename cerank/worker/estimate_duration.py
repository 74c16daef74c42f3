"""Estimates how long a run will take, from a measurement of this machine of a second or two.

Invariant: the estimate is a hint: if nothing can be measured the run continues, and no result depends on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.bench.text_samples import TextSample, dataset_sample
from cerank.core.metrics import StepMetrics
from cerank.core.progress import ProgressEstimator, ProgressPart
from cerank.datasets.dataset import Dataset
from cerank.errors import CerankError
from cerank.files import journal, json_records
from cerank.machine import measured_speed
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.models.bases import locate
from cerank.planning import inputs
from cerank.planning.shared_speed import LEAST_STEPS, Rate, rate_of_rows, shared_work
from cerank.planning.workload import WorkItem, count_work, estimate_minutes, format_minutes, sizes_of
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Stage
from cerank.runs.layout import ReadingRow
from cerank.worker.run_context import RunContext

_SCORED = 24  # pairs that scoring is timed with


def announce_estimate(context: RunContext, datasets: Mapping[str, Dataset]) -> None:
    """Measure this machine, write the event "estimated", and let the progress cover the whole run from here on."""
    plan, folder = context.plan, context.folder
    try:
        speeds = measure_speeds(plan, datasets)
    except (CerankError, RuntimeError, ValueError, OSError) as error:
        context.log.event("not estimated", f"how long the run takes: {error}")
        return
    count = context.ranks.count
    together = _speeds_together(plan, count)
    work = shared_work(estimate_work(plan, datasets, speeds), count, together)
    course = ProgressEstimator(list(progress_parts(work)), time.monotonic())
    for index, name in enumerate(plan.recipe.chain):
        if folder.final(index, name).is_dir():
            course.mark_done(f"train {name}", f"validate {name}", f"teacher {name}")
        for test in plan.recipe.data.test:
            if all(folder.measures(name, test, first).exists() for first in plan.recipe.data.first_stages):
                course.mark_done(f"re-rank {name} on {test}")
    for system in plan.recipe.baseline_models():
        for test in plan.recipe.data.test:
            if all(folder.measures(system, test, first).exists() for first in plan.recipe.data.first_stages):
                course.mark_done(f"re-rank {system} on {test}")
    context.heartbeat.estimate_with(course)
    first_speed = next(iter(speeds.values()))
    parts = ", ".join(f"{part.part} {format_minutes(part.minutes)}" for part in work if part.minutes)
    context.log.event(
        "estimated",
        f"about {format_minutes(course.left / 60)} from here on; {parts}; measured now: "
        f"{first_speed.train:.0f} pairs/s trained, {first_speed.score:.0f} scored, "
        f"in {first_speed.precision} with {plan.threads} threads"
        f"{_shared_in_words(count, together, plan)}",
    )


def _speeds_together(plan: Plan, count: int) -> dict[str, Rate]:
    """Return stage -> speed of so many devices together, where an earlier run on this machine was timed."""
    speeds = {
        name: measured_speed.load_speed(Path(plan.cache), measured_speed.shared_speed_key(plan, stage, count))
        for name, stage in (plan.recipe.chained() if count > 1 else ())
    }
    return {name: Rate(speed.train, speed.score) for name, speed in speeds.items() if speed is not None}


def _shared_in_words(count: int, together: Mapping[str, Rate], plan: Plan) -> str:
    if count < 2:
        return ""
    if len(together) == len(plan.recipe.chain):
        return f"; times by an earlier run of {count} devices on this machine"
    return f"; {count} devices share the work evenly at best, which was not measured here yet"


def keep_shared_speed(context: RunContext, index: int) -> None:
    """Keep in the cache how fast several devices trained a stage together, for the prediction of later runs."""
    plan, count = context.plan, context.ranks.count
    if count < 2:
        return
    name = plan.recipe.chain[index]
    stage = plan.recipe.stages[name]
    rows: list[ReadingRow]
    rows, _ = journal.read_valid_rows(context.folder.readings, ReadingRow)
    own = [row for row in rows if (row.stage, row.attempt) == (index, context.log.attempt)]
    rate = rate_of_rows(own, stage)
    if rate is None or sum(isinstance(row, StepMetrics) for row in own) < LEAST_STEPS:
        return
    time_now = json_records.timestamp(datetime.now(UTC))
    speed = MeasuredSpeed(rate.train, rate.score, load=0.0, precision=stage.precision or "fp32", time=time_now)
    measured_speed.save_speed(Path(plan.cache), measured_speed.shared_speed_key(plan, stage, count), speed)


def measure_speeds(plan: Plan, datasets: Mapping[str, Dataset]) -> dict[str, MeasuredSpeed]:
    """Return stage -> its measured speed; stages with equal settings are measured once, and results are cached."""
    from cerank.bench import stage_speed

    recipe = plan.recipe
    files = locate(recipe.base, fetch=False, pooling=recipe.pooling)
    busy = measured_speed.load_per_core()
    known: dict[str, MeasuredSpeed] = {}
    out: dict[str, MeasuredSpeed] = {}
    for name, stage in recipe.chained():
        key = measured_speed.speed_key(plan, stage)
        if key not in known:
            train = inputs.training_dataset(recipe, stage)
            first = inputs.training_first_stage(recipe, stage)
            size = stage.groups_per_step * (stage.group_size + stage.in_batch)
            training_sample = _sample(
                plan, datasets[train], first, max(size, 40), max(stage.window[1], stage.group_size)
            )
            scored = _scored_sample(plan, datasets)
            measured = _measured_alike(plan, stage, known) or stage_speed.measure_stage_speed(
                files, stage, training_sample, scored, plan.device
            )
            if any(part.teacher == inputs.EMBEDDING for part in stage.parts):
                teacher = locate(inputs.EMBEDDING_BASE, fetch=False)
                rate = stage_speed.measure_embedding_speed(
                    teacher, training_sample, inputs.embedding_length(stage), plan.device
                )
                measured = msgspec.structs.replace(measured, embed=rate)
            measured = msgspec.structs.replace(measured, time=json_records.timestamp(datetime.now(UTC)), busy=busy)
            known[key] = measured
            measured_speed.save_speed(Path(plan.cache), key, measured)
        out[name] = known[key]
    scored = _scored_sample(plan, datasets)
    for name, model in recipe.baseline_models().items():
        precision = recipe.stages[recipe.chain[-1]].precision
        speed = stage_speed.measure_scoring_speed(model, precision, scored, plan.device)
        out[name] = msgspec.structs.replace(speed, time=json_records.timestamp(datetime.now(UTC)), busy=busy)
        measured_speed.save_speed(
            Path(plan.cache), measured_speed.baseline_speed_key(plan, model, precision), out[name]
        )
    return out


def _measured_alike(plan: Plan, stage: Stage, known: Mapping[str, MeasuredSpeed]) -> MeasuredSpeed | None:
    """Return a measurement of the same settings without the teacher, which does not affect a step's speed."""
    labels = measured_speed.speed_key(plan, msgspec.structs.replace(stage, source="labels"))
    return known.get(labels)


def _scored_sample(plan: Plan, datasets: Mapping[str, Dataset]) -> TextSample:
    """Return pairs like those that are re-ranked: of the first test dataset; of validation in a trial without tests."""
    recipe = plan.recipe
    name, first = (*recipe.data.test, recipe.data.validation)[0], recipe.data.first_stages[0]
    if not recipe.data.test:
        first = inputs.validation_first_stage(recipe)
    return _sample(plan, datasets[name], first, _SCORED, recipe.data.depth)


def _sample(plan: Plan, dataset: Dataset, first: str, pairs: int, depth: int) -> TextSample:
    return dataset_sample(dataset, first, pairs=pairs, depth=depth, cache=Path(plan.cache))


def estimate_work(
    plan: Plan, datasets: Mapping[str, Dataset], speeds: Mapping[str, MeasuredSpeed]
) -> tuple[WorkItem, ...]:
    """Return the plan's work with the expected minutes of each part."""
    texts = inputs.texts_to_embed(plan.recipe, datasets, Path(plan.cache))
    return estimate_minutes(count_work(plan.recipe, *sizes_of(datasets)), speeds, texts)


def progress_parts(work: tuple[WorkItem, ...]) -> list[ProgressPart]:
    """Return the work as parts of the progress in the order they come; validations run during training."""
    out: list[ProgressPart] = []
    stages = {part.stage for part in work if part.part.startswith("train ")}
    baselines = [part for part in work if part.stage not in stages]
    choosing = {part.stage: part.minutes or 0.0 for part in work if part.part.startswith("choose ")}
    for part in [*baselines, *(part for part in work if part.stage in stages)]:
        verb, _, rest = part.part.partition(" ")
        if verb == "choose":
            continue  # goes on within the steps of training
        seconds = 60 * ((part.minutes or 0.0) + (choosing.get(part.stage, 0.0) if verb == "train" else 0.0))
        order, detail = len(out), part.stage
        kind = {"teacher": "embed", "train": "train"}.get(verb, "score")
        if verb == "validate":
            order = out[-1].order
        elif verb == "re-rank":
            detail = f"{part.stage} on {rest.removesuffix(f' by {part.stage}')}"
        times = part.units if verb == "validate" else 1
        out.append(ProgressPart(verb, detail, order, kind, seconds, times))
    return out


def main() -> int:
    """Read a plan as JSON, measure this machine with its settings, and store the result in the plan's cache."""
    from cerank.kernels import determinism

    plan = json_records.decode(sys.stdin.buffer.read(), Plan)
    determinism.make_deterministic(plan.device, plan.threads)
    measure_speeds(plan, inputs.open_datasets(plan.recipe, Path(plan.cache)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
