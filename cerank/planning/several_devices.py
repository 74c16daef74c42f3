"""What several devices mean for a plan: which devices they are, and how the steps of its stages are divided.

Invariant: nothing here asks torch; the front plans without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cerank.core.ranks import MOST_SHARDS, shard_count
from cerank.errors import UsageError
from cerank.machine.devices import Device
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown


def parse_devices(text: str, device: str, present: Sequence[Device] | None) -> tuple[str, ...]:
    """Return the device of each process of a run.

    Args:
        text: "all", how many, or which: "2", "0,1", "cuda:0,cuda:1", "cpu,cpu"; "" for a run on one device.
        device: the setting `device`, resolved: the kind of device that a number means.
        present: devices of the machine that the run is for; None where that is another one, which "all" does not know.

    Raises:
        UsageError: the machine does not have these, or no run can use them together.

    >>> parse_devices("2", "cpu", [Device("cpu")])
    ('cpu', 'cpu')
    """
    gpus = [gpu for gpu in present or () if gpu.kind == "cuda"]
    words = [word.strip() for word in text.split(",")]
    if not text:
        return ()
    if text == "all":
        if not gpus:
            hint = "on a CPU, say how many processes: --device cpu --devices 2"
            raise UsageError("this machine has no GPU", where="devices", hint=hint, code="device-not-found")
        names = tuple(gpu.name for gpu in gpus)
    elif re.fullmatch(r"[0-9]{1,4}", text):
        if ":" in device:
            what = f"{counted(int(text), 'device')} and the one device {device} contradict each other"
            hint = f"name them, as in --devices {device},cuda:{int(device.partition(':')[2] or 0) + 1}"
            raise UsageError(what, where="devices", hint=hint, code="options-conflict")
        names = (device,) * int(text)
    else:
        names = tuple(f"cuda:{int(word)}" if re.fullmatch(r"[0-9]{1,3}", word) else word for word in words if word)
    _check_names(text, names)
    if present is not None and names[0] != "cpu":
        _check_present(names, gpus)
    return names


def _check_names(text: str, names: Sequence[str]) -> None:
    """Check that the processes of a run can use such devices together.

    Raises:
        UsageError: they cannot.
    """
    wrong = next((name for name in names if not re.fullmatch(r"cpu|cuda|cuda:[0-9]{1,3}", name)), None)
    if not names or wrong is not None:
        what = f"'{shown(wrong or text, 40)}' is not a device that several processes can share the work on"
        hint = 'give "all", how many (2), or which (0,1)'
        raise UsageError(what, where="devices", hint=hint, code="device-not-found")
    if len({name.partition(":")[0] for name in names}) > 1:
        hint = "the slowest would hold up all others, and they round differently"
        raise UsageError("CPU and GPU cannot share a run", where="devices", hint=hint, code="devices-differ")
    if len(names) > MOST_SHARDS:
        what = f"{len(names)} devices were asked for; at most {MOST_SHARDS} can share the steps of a run"
        hint = "take 2, 4 or 8; the runs of a matrix use further devices side by side"
        raise UsageError(what, where="devices", hint=hint, code="batch-not-divisible")
    repeated = next((name for name in names if ":" in name and names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"{repeated} is named twice", where="devices", hint="each process needs a GPU of its own")


def _check_present(names: Sequence[str], gpus: Sequence[Device]) -> None:
    """Check that a machine has the GPUs of a run, and that they are of one kind.

    Raises:
        UsageError: it does not, or they are not.
    """
    here = {gpu.name for gpu in gpus}
    missing = [name for name in names if ":" in name and name not in here]
    if missing or len(names) > len(gpus):
        has = f"this machine has {counted(len(gpus), 'GPU')}{': ' if gpus else ''}{', '.join(sorted(here))}"
        what = f"there is no {missing[0]}" if missing else f"{len(names)} GPUs were asked for"
        raise UsageError(f"{what}; {has}", where="devices", hint="`nvidia-smi` lists them", code="device-not-found")
    models = {gpu.model for gpu in gpus if gpu.name in names} if ":" in names[0] else {gpu.model for gpu in gpus}
    if len(models) > 1:
        what = f"the GPUs are of different kinds: {', '.join(sorted(models))}"
        hint = "name GPUs of one kind, as in --devices 0,1: others round differently, and wait for the slowest"
        raise UsageError(what, where="devices", hint=hint, code="devices-differ")


def device_count(settings: Settings) -> int:
    """Return how many devices share a run by the settings, where they say a number; else 1."""
    text = settings.devices
    return int(text) if text.isdecimal() and int(text) else max(1, len(text.split(",")))


def check_division(recipe: Recipe, step_shards: int, count: int) -> None:
    """Check that a number of processes can share the steps of each stage.

    Args:
        recipe: recipe whose stages are trained.
        step_shards: shards of a step at most, as the plan has it; 0 where steps are not divided.
        count: processes.

    Raises:
        UsageError: they cannot.
    """
    if not step_shards and count > 1:
        raise UsageError(
            "the run was made for one device: its steps are not divided",
            where="devices",
            hint="make a new run with --devices; it may go on with 1, 2, 4 or 8 of them",
            code="run-not-divided",
        )
    asked = "compute.shard_parameters" if recipe.compute.shard_parameters else "--devices"
    for name, stage in recipe.chained() if step_shards else ():
        if stage.filter.is_on:
            raise UsageError(
                "a stage whose groups are chosen by their losses is trained on one device: its updates are not divided",
                where=f"stages.{name}.filter",
                hint=f'leave out {asked}, or set filter.kind = "none"',
                code="filter-not-divided",
            )
        shards = shard_count(stage.groups_per_step, step_shards)
        if shards % count:
            *others, most = (str(1 << power) for power in range(shards.bit_length()))
            fitting = f"take {', '.join(others)} or {most} devices" if others else "take 1 device"
            if shards < MOST_SHARDS:
                fitting += f", or set groups_per_step to {MOST_SHARDS} or more and take up to {MOST_SHARDS}"
            raise UsageError(
                f"{count} devices cannot share a step of {counted(stage.groups_per_step, 'group')} evenly",
                where=f"stages.{name}.groups_per_step",
                hint=fitting,
                code="batch-not-divisible",
            )


def check_sharding(recipe: Recipe) -> None:
    """Check that the stages of a recipe can be trained with divided weights, where it asks for that.

    Raises:
        UsageError: one cannot.
    """
    for name, stage in recipe.chained() if recipe.compute.shard_parameters else ():
        refused = {
            "adapter.quantize": stage.adapter.quantize != "none",
            "ema": stage.ema > 0,  # with 0.5 its last digits differed on 4 processes
            "gradient_cosine_every": stage.gradient_cosine_every > 0,
            "token_types": stage.has_one_token_type,
        }
        key = next((key for key, is_set in refused.items() if is_set), "")
        if key:
            raise UsageError(
                f"{key} does not work with divided weights: that needs the whole of each",
                where=f"stages.{name}.{key}",
                hint=f"leave out {key}, or compute.shard_parameters",
                code="sharding-not-supported",
            )


def time_in_words(count: int, time: str, measured: str) -> str:
    """Return how long several devices take together, in a sentence.

    Args:
        count: devices that share the run.
        time: the time, in words.
        measured: where their speed together is from; "" where it was not measured.
    """
    if measured:
        return f"{count} devices together: about {time}, as measured with {count} devices {measured}"
    return (
        f"{count} devices together: at least {time}, the time of one device divided by {count}; how fast {count} are "
        "was not measured here, and with short steps they may be slower than one"
    )


def in_words(plan: Plan) -> list[str]:
    """Return what the devices of a plan mean, a sentence each; [] for a run on one device as ever."""
    if not plan.step_shards:
        return []
    count = max(1, len(plan.devices))
    sentences = [
        f"{counted(count, 'device')}, a process on each: {', '.join(plan.devices or (plan.device,))}; the run may go "
        "on with another number of them, and has the same results",
    ]
    if plan.recipe.compute.shard_parameters:
        sentences.append(
            f"each device holds 1/{count} of weights, gradients and optimizer while it trains, and all weights while "
            "it re-ranks with the finished model"
        )
    for name, stage in plan.recipe.chained():
        shards = shard_count(stage.groups_per_step, plan.step_shards)
        sentences.append(
            f"{name}: a step of {counted(stage.groups_per_step, 'group')} has {counted(shards, 'shard')}, "
            f"{shards // count} a device; at most {counted(shards, 'device')}"
        )
    return sentences
