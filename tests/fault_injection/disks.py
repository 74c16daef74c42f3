"""Disks that are full, read-only, or lose the run's folder while it is open."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import CerankError, ExitCode
from cerank.files import disk, journal
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder

from .forks import difference, ended, finish, log_of, small_run, worker
from .kills import prepared, result


@contextmanager
def mounted(path: Path, options: str) -> Iterator[bool]:
    """A small memory disk at `path`; False where this user may not mount one."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    is_mounted = (
        shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


def full(folder: str, levels: int = 20) -> dict[str, Any]:
    """A disk that fills at `levels` different places: a failure that says so, no damage, and the same bits after.

    Where nothing can be mounted, a limit on the size of a file stands for the full disk.
    """
    plan, settings, calm, wanted = prepared(folder)
    needed = sum(path.stat().st_blocks * 512 for path in calm.path.rglob("*")) // 1024
    bad, failed = [], 0
    small = Path(folder) / "small"
    for level in range(levels):
        size = 48 + (needed * 1 - 48) * level // levels
        with mounted(small, f"size={size}k") as is_mounted:
            shutil.rmtree(Path(plan.cache) / "scores", ignore_errors=True)
            lab = small if is_mounted else Path(folder) / f"limited-{level}"
            try:
                run = small_run(lab, plan, msgspec.structs.replace(settings, lab=lab))
            except CerankError as error:  # not even a plan fits
                bad += [] if error.code == "disk-full" else [f"{size} k: {error}"]
                continue
            limit = 2000 + level * 700
            code = ended(worker(run, lambda limit=limit, now=is_mounted: None if now else _limit(limit)))
            failed += code != 0
            wrong = _says_so(run, code)
            if is_mounted:
                subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            wrong = wrong or (log_of(run) if finish(run) else difference(run, wanted))
            bad += [f"{size} k: {wrong}"] if wrong else []
    return result(levels, bad, failed=failed)


def _limit(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _says_so(run: RunFolder, code: int) -> str:
    """ "" where a run on a full disk ended as it should."""
    status = run_store.status(run, datetime.now(UTC))
    if code == 0:
        return "" if status.state == "finished" else f"exit 0, {status.state}"
    told = status.text + log_of(run) if run.log.exists() else status.text
    if code != ExitCode.FAILED or status.state not in {"failed", "lost", "waiting"}:
        return f"exit {code}, {status.state}: {told}"
    if "no space" not in told and run.log.stat().st_size:  # an empty log: not even a line of it fits
        return f"no reason is given: {status.state}: {told}"
    return ""


def read_only(folder: str) -> dict[str, Any]:
    """A lab on a read-only disk: refused, with the place and a hint; a run there is not begun."""
    plan, settings, calm, _ = prepared(folder)
    bad, tried = [], 0
    where = Path(folder) / "fixed"
    with mounted(where, "size=16m") as is_mounted:
        if not is_mounted:
            return result(0, [])
        run = small_run(where, plan, msgspec.structs.replace(settings, lab=where))
        subprocess.run(["mount", "-o", "remount,ro", str(where)], check=True)
        before = sorted(run.path.rglob("*"))
        for act in (lambda: run_store.create(where, plan, b"", datetime.now(UTC)), lambda: disk.touch(run.stop)):
            tried += 1
            try:
                act()
                bad.append("it was not refused")
            except disk.NotWritableError as error:
                if not (error.where and error.hint and error.exit_code == ExitCode.USAGE):
                    bad.append(f"no place or hint: {error}")
        tried += 1
        status = run_store.status(run, datetime.now(UTC))
        if status.state != "waiting" or sorted(run.path.rglob("*")) != before:
            bad.append(f"it was begun: {status}")
        assert calm.done.exists()
    return result(tried, bad)


def lost_folder(folder: str, count: int = 6) -> dict[str, Any]:
    """The run's folder moved or deleted, or its disk made read-only, while a worker writes there: a clean end.

    Nothing is written where it was; the lab's list goes on; what was moved goes on where it is to the same bits.
    """
    plan, settings, _, wanted = prepared(folder)
    bad, kinds = [], ("moved", "deleted", "forbidden")
    for number in range(count):
        kind = kinds[number % len(kinds)]
        lab = Path(folder) / f"lab-{number}"
        with mounted(lab, "size=64m") as is_mounted:
            if kind == "forbidden" and not is_mounted:
                continue
            run = small_run(lab, plan, msgspec.structs.replace(settings, lab=lab))
            child = worker(run)
            while not _rows(run):
                time.sleep(0.002)
            moved = RunFolder(run.path.with_name("moved"))
            if kind == "moved":
                run.path.rename(moved.path)
            elif kind == "deleted":
                shutil.rmtree(run.path, ignore_errors=True)
                shutil.rmtree(run.path, ignore_errors=True)
            else:
                subprocess.run(["mount", "-o", "remount,ro", str(lab)], capture_output=True, check=False)
            code = ended(child)
            states = [row.status.state for row in run_store.list_runs(lab, datetime.now(UTC))]
            if code not in {0, 1, 2, 3} or (kind == "deleted" and run.plan.exists()):
                bad.append(f"{kind}: exit {code}, {states}")
            if kind == "moved":
                wrong = f"exit {code}" if finish(moved) else difference(moved, wanted)
                bad += [f"{kind}: {wrong}"] if wrong else []
    return result(count, bad)


def _rows(run: RunFolder) -> list[ReadingRow]:
    return journal.read_valid_rows(run.readings, ReadingRow)[0]
