"""What is wrong with a lab, its cache, its runs and this machine, and what to do about each.

Invariant: without `fix` nothing is changed but the marks on damaged runs; with it, nothing but leftovers of killed
processes is deleted: damaged files are renamed to *.bad.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import msgspec

from cerank import recipes
from cerank.app import estimates, plans
from cerank.errors import CerankError, HeldError
from cerank.files import disk, json_records, lease
from cerank.files.disk import DamagedError
from cerank.files.lease import Lease
from cerank.machine import device_locks, devices, process_environment
from cerank.models.bases import BASES, is_on_this_machine
from cerank.runs import queue, run_store
from cerank.runs.layout import QueueFolder, RunFolder, runs_folder
from cerank.runs.records import Attempt
from cerank.settings import Settings
from cerank.text.safe_text import counted

MAIN_JOB = "contrastive-then-distill"  # the recipe that the README begins with
_PATIENCE = 60.0  # seconds for the measurement of the processor
LEAST = 1 << 30  # bytes; a small base's checkpoints and models take some 500 MB
State = Literal["good", "note", "wrong", "fixed"]


class Finding(msgspec.Struct, frozen=True):
    """One check of the lab or the machine, with what it found."""

    state: State
    where: str
    what: str
    hint: str = ""  # what to do
    is_told: bool = False  # shown where only what is not good is asked for, too


class _Processor(msgspec.Struct, frozen=True):
    """As `cerank.kernels.processor` prints it; rates in operations a second."""

    instructions: str
    bf16: bool
    fp32: float
    bf16_rate: float


def examine(settings: Settings, *, fix: bool = False, with_speed: bool = False) -> list[Finding]:
    """Check everything; the worst state is "wrong", which stays so until the user or `fix` has done something.

    Args:
        settings: settings in force; they name the lab and the cache to check.
        fix: rename damaged files that can be regenerated, and delete temporary files of killed processes.
        with_speed: measure the processor and the speed of the main job, which takes some seconds and leaves the
            embedded dataset, its index and the measurement in the cache.
    """
    now = datetime.now(UTC)
    findings = [*_place(settings.lab, "lab"), *_place(settings.cache, "cache"), *_packages(), *_devices()]
    findings += [*processor_findings(), *_main_job(settings, now)] if with_speed else []
    findings += [*_queue(settings.lab, fix), *_leftovers(settings.lab, fix)]
    try:
        folders = run_store.folders(settings.lab)
    except CerankError as error:
        return [*findings, Finding("wrong", str(settings.lab), str(error))]
    for folder in folders:
        findings += _run(folder, fix, now)
    return findings


def _place(path: Path, what: str) -> Iterator[Finding]:
    """Yield whether a folder can be written to, has room, and has locks."""
    if not path.exists():
        yield Finding("note", str(path), f"there is no {what} yet", "it is created when it is first needed")
        return
    probe = path / f".doctor-{os.getpid()}"
    try:
        disk.write(probe, b"x")
        disk.remove(probe)
    except CerankError as error:
        yield Finding("wrong", str(path), error.what, error.hint)
        return
    yield Finding("good", str(path), f"the {what} can be written to")
    free = shutil.disk_usage(path).free
    hint = "free some space; a run that cannot save a checkpoint fails and can be resumed"
    state: State = "good" if free >= LEAST else "wrong"
    yield Finding(state, str(path), f"{free / 1e9:.1f} GB free", "" if free >= LEAST else hint)
    if what == "lab":
        if lease.has_locks(path):
            yield Finding("good", str(path), "its file system has locks")
        else:
            text = "its file system does not support locks, so cerank uses lock files with heartbeats"
            yield Finding("note", str(path), text, "if a worker dies on another host, its run is free only after 60 s")


def _packages() -> Iterator[Finding]:
    """Yield the packages that cerank asks for, at the versions it asks for."""
    from packaging.requirements import Requirement

    wrong = 0
    for text in requires("cerank") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            wrong += 1
            yield Finding("wrong", requirement.name, "is not installed", f"pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            wrong += 1
            yield Finding(
                "wrong",
                requirement.name,
                f"is {have}, asked for is {requirement.specifier}",
                f"pip install '{requirement}'",
            )
    if not wrong:
        yield Finding("good", "packages", "all are installed in supported versions")


def _devices() -> Iterator[Finding]:
    detected = devices.detect_devices(os.environ)
    yield Finding("good", "devices", ", ".join(f"{device.name} {device.model}".strip() for device in detected))
    device, reason = devices.explain_device("auto")
    yield Finding("good", "devices", f"--device auto is {device}: {reason}")
    wrong = device_locks.lock_problem()
    if wrong:
        text = f"device locks do not cover your other labs on this machine: {wrong}"
        hint = f"set {device_locks.FOLDER} to a folder of yours on a disk that supports locks"
        yield Finding("note", "devices", text, hint)
        return
    in_use = [(device.name, user) for device in detected if (user := device_locks.current_owner(device.key))]
    text = "; ".join(f"{name} is used by {user}" for name, user in in_use) or "no run is using one"
    yield Finding("good", "devices", f"device locks cover all your labs on this machine: {text}")


def processor_findings() -> Iterator[Finding]:
    """Yield what the processor multiplies fast, measured in a process of its own, as torch takes seconds to import."""
    threads = devices.physical_cores()
    command = [sys.executable, "-P", "-m", "cerank.kernels.processor", str(threads)]
    environment = process_environment.inherited_environment(os.environ) | process_environment.pinned_environment(
        threads
    )
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_PATIENCE, check=True)
        processor = json_records.decode(done.stdout, _Processor)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        yield Finding("note", "processor", f"its speed could not be measured: {type(error).__name__}")
        return
    by = "by hardware" if processor.bf16 else "emulated, so float32 is used"
    text = f"{processor.instructions}; bf16 {by}; {processor.fp32 / 1e9:.0f} GFLOP/s of float32 products"
    text += f", {processor.bf16_rate / 1e9:.0f} of bf16" if processor.bf16 else ""
    yield Finding("good", "processor", f"{text}, with {counted(threads, 'thread')}", is_told=True)


def _main_job(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Yield how long the recipe of the first-run guide takes on this machine.

    From what was measured before, or measured now.
    """
    where = f"recipe {MAIN_JOB}"
    try:
        recipe = recipes.load(MAIN_JOB).recipe
        known = BASES.get(recipe.base)
        if known is None or not is_on_this_machine(known):
            text = f"the time is unknown until its base model {recipe.base} is on this machine"
            yield Finding("note", where, text, f"cerank run --recipe {MAIN_JOB} fetches it")
            return
        plan = plans.plan_of(recipe, settings, now=now)
        speeds, source = estimates.measured(plan)
        minutes = estimates.total(estimates.of_plan(plan, speeds)) if speeds else None
    except CerankError as error:
        yield Finding("note", where, f"the time could not be estimated: {error.what}", error.hint)
        return
    if minutes is None:
        yield Finding("note", where, f"the time could not be estimated: {source}")
        return
    text = f"takes about {estimates.format_minutes(minutes)} on {plan.device} ({source})"
    yield Finding("good", where, text, f"cerank run --recipe {MAIN_JOB}", is_told=True)


def _queue(lab: Path, fix: bool) -> Iterator[Finding]:
    files = QueueFolder(lab)
    try:
        waiting = queue.entries(lab)
    except DamagedError as error:
        if not fix:
            yield Finding("wrong", error.where, error.what, f"{error.hint}, or cerank doctor --fix")
            return
        disk.quarantine(files.entries)
        yield Finding(
            "fixed", error.where, f"{error.what}; renamed to *.bad", "add the waiting runs again: cerank queue add RUN"
        )
        return
    names = {folder.name for folder in run_store.folders(lab)}
    gone = [entry.run for entry in waiting if entry.run not in names]
    if gone and fix:
        queue.remove(lab, gone)
    if gone:
        state: State = "fixed" if fix else "note"
        yield Finding(state, str(files.entries), f"the queue contains deleted runs: {', '.join(gone[:5])}")


def _leftovers(lab: Path, fix: bool) -> Iterator[Finding]:
    """Yield half-made runs and half-removed ones, of processes that were killed."""
    where = runs_folder(lab)
    if not where.is_dir():
        return
    for path in sorted(where.glob(".*")):
        if path.name.endswith((".tmp", ".removed")):
            yield from _leftover(path, fix, "left behind by a killed process")


def _leftover(path: Path, fix: bool, what: str) -> Iterator[Finding]:
    if not fix:
        yield Finding("note", str(path), what, "cerank doctor --fix removes it")
        return
    try:
        disk.remove_tree(path)
    except CerankError as error:
        yield Finding("wrong", str(path), error.what, error.hint)
    else:
        yield Finding("fixed", str(path), f"{what}; removed")


def _run(folder: RunFolder, fix: bool, now: datetime) -> Iterator[Finding]:
    """Yield one run: its bytes, its state, and whether it could be resumed on this machine."""
    from cerank.app.checks.verify_run import verify

    if lease.is_held(folder.lease):
        yield Finding("good", folder.name, "a worker is running it; it is checked after that has ended")
        return
    problems = verify(folder, now).problems
    status = run_store.status(folder, now)
    if problems:
        yield from _damaged(folder, list(problems), fix, now)
    elif status.state in {"lost", "failed", "paused"}:
        text = f"it is {status.state}" + (f": {status.text}" if status.text else "")
        yield Finding("note", folder.name, text, f"cerank resume {run_store.short_name(folder)}")
    else:
        yield Finding("good", folder.name, f"it is {status.state}, and every checksum and measure is correct")
    if not folder.done.exists():
        yield from _can_go_on(folder)
    for path in sorted(folder.path.rglob(".*.tmp")):
        yield from _leftover(path, fix, "left behind by a killed worker")


def _damaged(folder: RunFolder, problems: list[str], fix: bool, now: datetime) -> Iterator[Finding]:
    from cerank.worker import repair

    hint = f"cerank resume {run_store.short_name(folder)} regenerates it, or cerank doctor --fix now and resume later"
    if not fix:
        for problem in problems:
            yield Finding("wrong", folder.name, problem, hint)
        return
    try:
        with Lease.take(folder.lease, now):
            repaired = repair.repair_run(folder)
    except HeldError as error:
        yield Finding("wrong", folder.name, error.what, error.hint)
        return
    except CerankError as error:
        yield Finding("wrong", folder.name, str(error), error.hint or "start a new run of its recipe")
        return
    for problem in problems:
        is_repaired = problem in repaired and not problem.startswith(str(folder.recipe))
        hint = (
            f"cerank resume {run_store.short_name(folder)} regenerates it"
            if is_repaired
            else "it cannot be regenerated; the rest is intact"
        )
        yield Finding("fixed" if is_repaired else "wrong", folder.name, problem, hint)


def _can_go_on(folder: RunFolder) -> Iterator[Finding]:
    """Yield whether this machine has the device and versions of an unfinished run."""
    with contextlib.suppress(CerankError):
        plan = run_store.load_plan(folder)
        have = devices.detect_devices(os.environ)
        if not any(devices.fits(plan.device, device) for device in have):
            yield Finding("note", folder.name, f"it needs the device {plan.device}, which this machine does not have")
        numbers = folder.attempt_numbers()
        if not numbers:
            return
        before = json_records.load(folder.attempt(numbers[-1]), Attempt).versions
        changed = []
        for name, old in before.items():
            with contextlib.suppress(PackageNotFoundError):
                if name != "python" and version(name) != old:
                    changed.append(f"{name} {old} -> {version(name)}")
        if changed:
            hint = "it can be resumed, but the result may not be bit-identical; the run records this"
            yield Finding(
                "note", run_store.short_name(folder), f"it was started with other versions: {'; '.join(changed)}", hint
            )
