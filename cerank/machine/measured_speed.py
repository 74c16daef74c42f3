"""Keep in the cache how fast this machine was at a stage's settings when it was last measured.

Invariant: advice for people, never evidence; a file that cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from cerank.errors import CerankError
from cerank.files import disk, json_records
from cerank.machine.devices import cpu_model
from cerank.recipes.plan import Plan, without_defaults
from cerank.recipes.schema import Stage
from cerank.recipes.sections.adapter_specs import AdapterSpec

STEP_PAIRS = 8  # pairs of a step that is timed, or one whole group: rates of larger steps were the same
_BUSY = 0.5  # load of each core from which a measurement holds for its own moment alone
_INSTRUCTION_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


class MeasuredSpeed(msgspec.Struct, frozen=True):
    """Speeds that were measured with the settings of one stage."""

    train: float  # pairs a second in training, update included
    score: float  # pairs a second in scoring
    load: float  # seconds to load the model
    embed: float = 0.0  # texts a second through the embedding teacher; 0 if the stage has no such teacher
    precision: str = ""  # precision of the measurement
    time: str = ""  # UTC, ISO 8601
    busy: float = 0.0  # load of each processor core in the minute before the measurement: what other programs took

    @property
    def is_quiet(self) -> bool:
        """Return whether the machine had little else to do, so that the speeds hold for other times, too."""
        return self.busy < _BUSY


def load_per_core() -> float:
    """Return the load average of the last minute for each core; 0 where the system keeps none."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def speed_key(plan: Plan, stage: Stage) -> str:
    """Return a measurement's key: processor and its limits, threads, torch, device, base, stage settings."""
    precision = stage.precision or "fp32"
    shape = (
        stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation, precision,
        max(STEP_PAIRS, stage.group_size + stage.in_batch), stage.tokens_at_once, stage.freeze, stage.freeze_layers,
        stage.dropout, any(part.teacher == "embedding" for part in stage.parts),
    )  # fmt: skip
    more = (stage.adapter, stage.gradient_checkpointing)
    settings = (
        *_machine(plan),
        plan.input("base", plan.recipe.base).sha256,
        plan.recipe.pooling,
        without_defaults(shape),
        *([without_defaults(part) for part in more] if more != (AdapterSpec(), False) else []),
    )
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def shared_speed_key(plan: Plan, stage: Stage, devices: int) -> str:
    """Return the key of what several devices of this machine did together.

    That is a stage's key, their number, the step's size, and whether they divide the weights, which takes longer.
    """
    size = (devices, stage.groups_per_step, stage.group_size, plan.recipe.compute.shard_parameters)
    return hashlib.sha256(repr((speed_key(plan, stage), size)).encode()).hexdigest()


def baseline_speed_key(plan: Plan, model: str, precision: str | None) -> str:
    """Return the key of a measurement of a baseline that scores: the machine, the model and its precision."""
    settings = (*_machine(plan), plan.input("baseline", model).sha256, precision)
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def _machine(plan: Plan) -> tuple[object, ...]:
    """Return what decides how fast any model is here: processor and its limits, device, threads, torch."""
    cpu = cpu_model() or platform.processor() or platform.machine()
    limits = [os.environ.get(name, "") for name in _INSTRUCTION_LIMITS]
    return cpu, limits, plan.device, plan.threads, version("torch")


def load_speed(cache: Path, key: str) -> MeasuredSpeed | None:
    """Return the last measurement; None if there is none."""
    try:
        return json_records.load_if_there(_file(cache, key), MeasuredSpeed)
    except CerankError:
        return None


def save_speed(cache: Path, key: str, speed: MeasuredSpeed) -> None:
    """Save a measurement, unless a quiet one is there and this one is not.

    Where the disk cannot be written to, the next run measures again.
    """
    earlier = load_speed(cache, key)
    if earlier and earlier.is_quiet and not speed.is_quiet:
        return
    with contextlib.suppress(CerankError):
        disk.make_folder(_file(cache, key).parent)
        json_records.save(_file(cache, key), speed)


def _file(cache: Path, key: str) -> Path:
    return cache / "paces" / f"{key}.json"
