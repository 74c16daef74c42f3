"""`python -m cerank.worker RUN_DIR`: one attempt at a run, from taking its lease to recording how it ended.

A run on several devices starts itself again under torchrun, once on each; `torchrun -m cerank.worker RUN_DIR` does the
same by hand. The first process then does what the only one does else, and the others follow it (`worker/ranks`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import cerank
from cerank.errors import CerankError, ExitCode, HeldError, RunFailedError, os_reason
from cerank.files import journal, json_records, manifests
from cerank.files.disk import DamagedError
from cerank.files.hashing import sha256_file
from cerank.files.lease import Lease
from cerank.files.source_hash import COMPUTATION, COMPUTING_PACKAGES, code_sha256
from cerank.machine.devices import cpu_model, device_of_process
from cerank.registry import check_extensions
from cerank.runs import checksums, run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import Attempt, Done, Failure
from cerank.text.safe_text import counted, redacted
from cerank.worker import captured_output, repair
from cerank.worker.heartbeat import Heartbeat
from cerank.worker.run_context import RunContext, StopFlag, hold_devices
from cerank.worker.run_log import RunLog
from cerank.worker.usage_recorder import UsageRecorder

if TYPE_CHECKING:
    from cerank.kernels.rank_group import RankGroup  # imports torch
    from cerank.recipes.plan import Plan

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "ir-measures",
    "ir-datasets",
    "bm25s",
    "peft",
    "bitsandbytes",
)


def now() -> datetime:
    """Return the current time; every timestamp of the worker comes from here."""
    return datetime.now(UTC)


def versions() -> dict[str, str]:
    """Return the versions that results may depend on: Python, cerank, its code, and its packages."""
    installed = {"python": platform.python_version(), "cerank": cerank.__version__}
    installed[COMPUTATION] = code_sha256(*COMPUTING_PACKAGES)[:12]
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def main() -> int:
    """Carry out the run that the argument names; the exit code says how it ended."""
    parser = argparse.ArgumentParser(prog="python -m cerank.worker")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--devices", metavar="NAME,NAME", help="a process on each, instead of on those of the plan")
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run.resolve())
    named = tuple(arguments.devices.split(",")) if arguments.devices else ()
    stop = StopFlag(folder.stop)
    is_started_by_torchrun = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys()
    rank, count = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE")) if is_started_by_torchrun else (0, 0)
    if rank == 0:
        stop.install()  # before anything slow, so that an early signal is heard
    with captured_output.redact_output():
        try:
            if rank:
                return _follow(folder, stop, named)
            if not count and len(devices := named or run_store.load_plan(folder).devices) > 1:
                return _launch(folder, devices, stop)
        except CerankError as error:
            _log(str(error))
            return error.exit_code
        return _run_attempt(folder, stop, named, count)


def _launch(folder: RunFolder, devices: Sequence[str], stop: StopFlag) -> ExitCode:
    """Start a process on each device, and return how the run ended.

    Raises:
        UsageError: so many devices cannot share the steps of the run.
        RunFailedError: torchrun itself failed; the run says so.
    """
    from cerank.planning import several_devices
    from cerank.worker.ranks import launch_ranks

    plan = run_store.load_plan(folder)
    several_devices.check_division(plan.recipe, plan.step_shards, len(devices))
    try:
        return launch_ranks.launch_ranks(folder, devices, stop)
    except CerankError:
        raise
    except Exception as error:  # the processes could not meet, or this one was told to hang up
        _log(traceback.format_exc())
        failure = failure_of_crash(error)
        with contextlib.suppress(CerankError):  # on a full disk only the log remains
            launch_ranks.save_failure(folder, failure)
        raise RunFailedError(failure.what, where=folder.name, hint=failure.hint) from error


def _follow(folder: RunFolder, stop: StopFlag, named: Sequence[str]) -> ExitCode:
    """Share in the work of a run as a process other than the first."""
    from cerank.worker.ranks import follow_ranks

    plan = run_store.load_plan(folder)
    check_extensions(plan.extensions)
    device = device_of_process(named or plan.devices or (plan.device,), int(os.environ["LOCAL_RANK"]))
    return follow_ranks.follow(plan, folder, stop, device, _log)


def _run_attempt(folder: RunFolder, stop: StopFlag, named: Sequence[str], count: int) -> ExitCode:
    """Run one attempt under the run's lease and return how it ended.

    Args:
        folder: folder of the run.
        stop: heeded between two steps.
        named: devices that take the place of the plan's; () for the plan's.
        count: processes that torchrun started; 0 without torchrun, and then there is this one alone.
    """
    try:
        with Lease.take(folder.lease, now(), _end_without_lease), _startup_errors_recorded(folder):
            return run_attempt(folder, stop, named, count)
    except HeldError as error:
        if sys.stdout.isatty():  # otherwise stdout may be the run's log, which belongs to the other worker
            _log(str(error))
        return ExitCode.HELD
    except CerankError as error:
        _log(str(error))
        return error.exit_code


def _end_without_lease() -> None:
    """End at once, without writing to the run: it was silent for a minute, and another machine continues it."""
    _log("another machine has taken the run over")
    os._exit(ExitCode.HELD)


@contextlib.contextmanager
def _startup_errors_recorded(folder: RunFolder) -> Iterator[None]:
    """Record an error that comes before the attempt has its event log; name a file that cannot be read."""
    try:
        yield
    except OSError as error:
        _log(traceback.format_exc())
        what = f"cannot read the file: {os_reason(error)}"
        raise DamagedError(what, where=str(error.filename or folder.path), hint="`cerank doctor` checks it") from error
    except CerankError:
        raise
    except Exception as error:  # the top level of the worker must record every error
        _log(traceback.format_exc())
        failure = failure_of_crash(error)
        with contextlib.suppress(CerankError):
            json_records.save(folder.failure, msgspec.structs.replace(failure, time=json_records.timestamp(now())))
        raise RunFailedError(failure.what, where=folder.name, hint=failure.hint) from error


def run_attempt(folder: RunFolder, stop: StopFlag, named: Sequence[str] = (), count: int = 0) -> ExitCode:
    """Carry out what is left of a run whose lease this process holds, and return the exit code."""
    plan = run_store.load_plan(folder)
    devices = named or plan.devices or (plan.device,)
    repaired = repair.repair_run(folder)
    if folder.done.exists():
        _log("the run is already finished")
        if count > 1:  # the others wait for an order, and hold their devices meanwhile
            with _first_of_several(plan, devices):
                pass
        return ExitCode.OK
    check_extensions(plan.extensions)
    repair.remove_leftovers(folder, plan)
    run_store.clear_failure(folder)
    number = max(folder.attempt_numbers(), default=0) + 1
    log = RunLog(folder, number, now)
    log.event("started", f"attempt {number} by pid {os.getpid()} on {socket.gethostname()}")
    for problem in repaired:
        log.event("rejected", problem)
    usage = UsageRecorder(folder, number, plan.device, now)

    def at_each_heartbeat() -> None:
        log.sync_if_due()
        usage.record_if_due()

    heartbeat = Heartbeat(folder.progress, number, now, also=at_each_heartbeat)
    heartbeat.start()
    ended = ExitCode.FAILED
    context = RunContext(plan, folder, log, heartbeat, stop, own_device=devices[0])
    try:
        with _failure_recorded(folder, number, log):
            ended = _carry_out(context, number, devices, count)
    finally:
        heartbeat.stop()
        usage.close()
        log.close()
    return ended


def _carry_out(context: RunContext, number: int, devices: Sequence[str], count: int) -> ExitCode:
    """Carry out the run in one process, or as the first of several, and record how it ended unless it failed."""
    from cerank.training.trainer import PausedError

    try:
        if count > 1:
            _carry_out_as_first(context, number, devices)
        else:
            _carry_out_to_end(context, number, devices[:1])
    except PausedError as pause:
        where = f" after step {pause.step}" if pause.step else ""
        context.log.event("paused", f"by {context.stop.reason}{where}")
        run_store.clear_stop(context.folder)  # the request is fulfilled
        _log(f"paused by {context.stop.reason}{where}")
        return ExitCode.PAUSED
    _log("finished")
    return ExitCode.OK


def _carry_out_as_first(context: RunContext, number: int, devices: Sequence[str]) -> None:
    """Carry out the run as the first of several processes; the others end with it.

    Raises:
        PausedError: this process was asked to stop.
    """
    from cerank.planning import several_devices

    with _first_of_several(context.plan, devices) as (group, places):
        several_devices.check_division(context.plan.recipe, context.plan.step_shards, group.count)
        context.log.event("ranks joined", f"{group.count} processes: {', '.join(places)}")
        shared = msgspec.structs.replace(context, ranks=group, own_device=places[0])
        _carry_out_to_end(shared, number, places)


@contextlib.contextmanager
def _first_of_several(plan: Plan, devices: Sequence[str]) -> Iterator[tuple[RankGroup, list[str]]]:
    """Join the other processes for the time of the `with` block; yields their group, and the device of each.

    They are told at its end that there is no more to do.
    """
    from cerank.kernels import determinism
    from cerank.worker import orders
    from cerank.worker.ranks import join_ranks

    device = device_of_process(devices, int(os.environ["LOCAL_RANK"]))
    determinism.make_deterministic(device, plan.threads)
    with join_ranks.joined_ranks(device) as (group, places):
        try:
            yield group, places
        finally:
            with contextlib.suppress(RuntimeError):  # the store is gone, and with it the others
                group.tell(orders.encode(orders.EndOrder()))


def _carry_out_to_end(context: RunContext, number: int, devices: Sequence[str]) -> None:
    """Carry out the run, and record that it is done.

    Raises:
        PausedError: this process was asked to stop.
    """
    from cerank.kernels import determinism
    from cerank.worker.pipeline import carry_out

    plan, folder, log = context.plan, context.folder, context.log
    context.heartbeat.enter("start", "", total=0)
    promise = determinism.make_deterministic(context.device, plan.threads)
    attempt = Attempt(
        number=number,
        started=json_records.timestamp(now()),
        versions=versions() | determinism.gpu_environment(context.device),
        hostname=socket.gethostname(),
        cpu=cpu_model() or platform.processor() or platform.machine(),
        threads=plan.threads,
        device=", ".join(devices),
        determinism=promise,
        plan=plan.fingerprint,
        code=code_sha256(),
    )
    checksums.save(folder, folder.attempt(number), attempt)
    _note_changes(folder, attempt, log)

    with hold_devices(context, devices):
        carry_out(context)
    rows: list[ReadingRow] = journal.read(folder.readings, ReadingRow)
    seconds = sum(row.seconds for row in rows)
    replayed = f"; {counted(log.replayed, 'step')} replayed, {log.mismatches} of them differently"
    log.event("finished", f"attempt {number}{replayed if log.replayed else ''}")
    log.sync()
    checksums.record_damage(folder, repair.find_missing_metrics(folder, plan), json_records.timestamp(now()))
    lists = [
        path
        for kind in ("final", "best-*")
        for path in sorted(folder.path.glob(f"stages/*/{kind}/{manifests.MANIFEST}"))
    ]
    checksums.record(folder, [folder.readings, folder.events, *lists])
    done = Done(
        time=json_records.timestamp(now()), attempt=number, seconds=seconds, seals=sha256_file(folder.checksums)
    )
    json_records.save(folder.done, done)


def _note_changes(folder: RunFolder, attempt: Attempt, log: RunLog) -> None:
    """Log an event if this attempt runs in another environment than the one before: results may differ in bits."""
    earlier = [number for number in folder.attempt_numbers() if number < attempt.number]
    if not earlier:
        return
    before = json_records.load(folder.attempt(earlier[-1]), Attempt)
    pairs = [(key, before.versions.get(key, "-"), value) for key, value in attempt.versions.items()]
    pairs += [("cpu", before.cpu, attempt.cpu), ("device", before.device, attempt.device)]
    pairs += [("cerank's code", before.code[:12], attempt.code[:12])]
    changed = [f"{key} {old} -> {new}" for key, old, new in pairs if old != new]
    if changed:
        log.event("environment changed", "; ".join(changed))


@contextlib.contextmanager
def _failure_recorded(folder: RunFolder, number: int, log: RunLog) -> Iterator[None]:
    """Record an error as failure.json; the traceback of an internal error goes to the log."""
    try:
        yield
    except CerankError as error:
        what, where, hint = map(redacted, (error.what, error.where, error.hint))
        failure = Failure(kind=type(error).__name__, what=what, where=where, hint=hint)
        _record_failure(folder, number, log, failure)
    except Exception as error:  # noqa: BLE001 - the top of the worker: whatever it was, the run must say so
        _log(traceback.format_exc())
        _record_failure(folder, number, log, failure_of_crash(error))


def failure_of_crash(error: Exception) -> Failure:
    """Return what the run records of an error that nobody expected."""
    what = redacted(f"{type(error).__name__}: {error}")[:2000]
    hint = "an internal error of cerank or of a library; log.txt has the traceback"
    if type(error).__name__ == "AcceleratorError":  # torch's; its import takes seconds, and may be what failed
        hint = "the GPU failed; `nvidia-smi` and the system's log say more, and `cerank resume` continues the run"
    elif (
        type(error).__name__ == "OutOfMemoryError"
    ):  # where fewer tokens at once would not help, as for the model itself
        hint = (
            "the device has too little free memory; see what else uses it, or take a smaller base; then `cerank resume`"
        )
    return Failure(kind="crash", what=what, hint=hint, traceback="log.txt")


def _record_failure(folder: RunFolder, number: int, log: RunLog, failure: Failure) -> None:
    _log(f"failed: {failure.where + ': ' if failure.where else ''}{failure.what}")
    with contextlib.suppress(CerankError):  # on a full disk only the log remains
        log.event("failed", failure.what)
        stamped = msgspec.structs.replace(failure, time=json_records.timestamp(now()), attempt=number)
        json_records.save(folder.failure, stamped)


def _log(text: str) -> None:
    """Write a line to standard output, which the launcher redirects to log.txt."""
    line = (f"{json_records.timestamp(now())} {redacted(text)}") + "\n"
    with contextlib.suppress(OSError):  # a full disk: the failure's record, or nothing, says why
        os.write(1, line.encode("utf-8", "backslashreplace"))  # unbuffered: no second try at the exit, which would fail


if __name__ == "__main__":
    sys.exit(main())
