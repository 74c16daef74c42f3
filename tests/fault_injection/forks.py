"""A run small enough to be carried out a thousand times, and workers on it as forks of this process."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from cerank.files import disk, journal
from cerank.recipes.plan import Plan
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.settings import Settings
from tests import warm
from tests.worker.small import STAGE, bits_of, small_plan, small_run

FAST = {**STAGE, "steps": 4, "validate_every": 2, "validation_depth": 3, "checkpoint_every": 1}


def fast_plan(folder: Path, **changes: object) -> tuple[Plan, Settings]:
    """A plan of two stages of four steps each, and the settings of its lab."""
    stages = {
        "contrastive": FAST,
        "distill": {**FAST, "loss": "ranknet", "source": "teacher", "teacher": "oracle"},
    }
    return small_plan(folder, **{"stages": stages, **changes})


def worker(run: RunFolder, before: Callable[[], object] = lambda: None) -> int:
    """Starts a worker on the run as a fork, which calls `before` first; its process id."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            sys.argv = ["worker", str(run.path)]
            log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            before()
            import cerank.worker.__main__ as program

            code = program.main()
            sys.stdout.flush()
        except BaseException:
            os.write(2, traceback.format_exc().encode())  # an exit with 70 is a fault: its reason must not be lost
            raise
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Waits for a worker; its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def finish(run: RunFolder) -> int:
    """A worker on the run, undisturbed; its exit code."""
    return ended(worker(run))


def killed_after(run: RunFolder, seconds: float) -> int:
    """A worker on the run, killed after `seconds`; its exit code, or minus the signal."""
    return warm.ended(worker(run), seconds)


class Dies:
    """An observer of the disk that kills its own process before the `number`-th operation."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, name: str, path: Path) -> None:
        self._left -= "progress" not in path.name  # the beat's own thread
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)


def killed_at(run: RunFolder, operation: int) -> int:
    """A worker on the run, killed before that operation on the disk; its exit code, or minus the signal."""
    stack = ExitStack()
    return ended(worker(run, lambda: stack.enter_context(disk.observe(Dies(operation)))))


def operations(run: RunFolder) -> int:
    """How many operations on the disk a worker on the run needs; it is then finished."""
    out, into = os.pipe()
    count = [0]

    def counting(name: str, path: Path) -> None:
        count[0] += "progress" not in path.name
        if path == run.done and name == "rename":
            os.write(into, str(count[0]).encode())

    stack = ExitStack()
    assert ended(worker(run, lambda: stack.enter_context(disk.observe(counting)))) == 0, log_of(run)
    return int(os.read(out, 32))


def rows_of(run: RunFolder) -> list[ReadingRow]:
    """The readings without what may differ from one attempt to the next."""
    rows: list[ReadingRow] = journal.read(run.readings, ReadingRow)
    return [msgspec.structs.replace(row, seconds=0.0, attempt=0) for row in rows]


def all_bits(run: RunFolder) -> dict[str, object]:
    """Everything of a run that its plan decides: weights, optimizer, rankings, measures, readings."""
    found: dict[str, object] = {path: data for path, data in bits_of(run).items() if "adopted.json" not in path}
    found["readings"] = rows_of(run)
    return found


def difference(run: RunFolder, wanted: dict[str, object]) -> str:
    """The first file that is not as wanted; "" where none is."""
    found = all_bits(run)
    for path in sorted(found.keys() | wanted.keys()):
        if found.get(path) != wanted.get(path):
            return f"{run.name}: {path} {'differs' if path in found and path in wanted else 'is missing or too many'}"
    return ""


def copied(run: RunFolder, target: Path) -> RunFolder:
    """The run's folder under another name of the same lab, so that it can be spoilt."""
    shutil.copytree(run.path, target, symlinks=True)
    return RunFolder(target)


def log_of(run: RunFolder) -> str:
    """The end of a worker's log, for a report."""
    return run.log.read_text()[-1500:] if run.log.exists() else "no log"


__all__ = ["FAST", "all_bits", "copied", "difference", "ended", "fast_plan", "finish", "killed_after", "killed_at"]
__all__ += ["log_of", "operations", "rows_of", "small_run", "worker"]
