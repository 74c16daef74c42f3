"""How fast this machine was at a stage's settings when it was last measured, kept in the cache.

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
from cerank.recipes.plan import Plan, without_defaults
from cerank.recipes.schema import Stage

_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


class Pace(msgspec.Struct, frozen=True):
    """What was measured with the settings of one stage."""

    train: float  # pairs a second, forward, backward and update
    score: float  # pairs a second
    load: float  # seconds that loading the model takes
    embed: float = 0.0  # texts a second through the embedding teacher; 0 where none was asked for
    precision: str = ""  # that was measured
    time: str = ""  # UTC, ISO 8601


def key_of(plan: Plan, stage: Stage) -> str:
    """What a pace depends on: processor and its limits, threads, torch, device, base, and the stage's settings."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        names = [
            line for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    limits = [os.environ.get(name, "") for name in _LIMITS]
    base = plan.input("base", plan.recipe.base).sha256
    shape = (
        stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation, stage.precision,
        stage.group_size + stage.in_batch, stage.groups_per_step, stage.microbatch, stage.freeze, stage.freeze_layers,
        stage.dropout, stage.source == "teacher" and stage.teacher == "embedding",
    )  # fmt: skip
    whole = (
        cpu,
        limits,
        plan.device,
        plan.threads,
        version("torch"),
        base,
        plan.recipe.pooling,
        without_defaults(shape),
    )
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def newest(cache: Path, key: str) -> Pace | None:
    """What was measured last; None where nothing was."""
    try:
        return json_records.load_if_there(_file(cache, key), Pace)
    except CerankError:
        return None


def keep(cache: Path, key: str, pace: Pace) -> None:
    """Keeps a measurement; where the disk refuses, the next run measures again."""
    with contextlib.suppress(CerankError):
        disk.make_folder(_file(cache, key).parent)
        json_records.save(_file(cache, key), pace)


def _file(cache: Path, key: str) -> Path:
    return cache / "paces" / f"{key}.json"
