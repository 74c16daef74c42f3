"""kill -9 of a worker while it is shown, and of the dashboard that shows it; `CERANK_KILLS=20` for twenty of each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cerank.files import lease
from cerank.runs.layout import RunFolder
from tests.tui.labs import LabFolder
from tests.tui.terminal import Terminal

TIMES = int(os.environ.get("CERANK_KILLS", "2"))


def _until(holds: Callable[[], bool], wait: Callable[[], None], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        wait()


def _worker(folder: RunFolder) -> int:
    """The process that holds the run; 0 for none."""
    owner = lease.owner(folder.lease) if lease.is_held(folder.lease) else None
    return owner.pid if owner and lease.is_same_process(owner) else 0


def _started(folder: RunFolder, terminal: Terminal, before: int = 0) -> int:
    """The process that holds the run, as soon as it is another than `before`."""
    found = [0]

    def holds() -> bool:
        found.append(_worker(folder))
        return found[-1] > 1 and found[-1] != before

    _until(holds, terminal.look)
    return found[-1]


def _dashboard(folder: LabFolder) -> Terminal:
    root = str(Path(__file__).resolve().parents[2])
    return Terminal([str(folder.path)], {"PYTHONPATH": root}, program="tests.tui.front")


def _resume(terminal: Terminal) -> None:
    """Resumes the run under the cursor."""
    terminal.press("r")
    terminal.until("[y]")
    terminal.press("y")


def _end(folder: LabFolder, made: RunFolder) -> None:
    """Lets the worker finish; the supervisor ends by itself once nothing is left to do."""
    (folder.path / "release").touch()
    _until(lambda: not _worker(made), lambda: time.sleep(0.02))


@pytest.mark.slow
def test_a_killed_worker_is_shown_as_lost_and_resumed_by_a_key_and_a_yes(folder: LabFolder) -> None:
    made = folder.run("hold")
    took = []
    try:
        with _dashboard(folder) as terminal:
            terminal.until("waiting")
            worker = 0
            for _ in range(TIMES):
                _resume(terminal)
                worker = _started(made, terminal, worker)
                terminal.until("running")
                terminal.press("k")  # what is looked for now was written after this key
                begin = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                terminal.until("? lost")  # in its row; a toast of before may be drawn again
                took.append(time.monotonic() - begin)
            _resume(terminal)
            _started(made, terminal, worker)
            terminal.press("k")
            (folder.path / "release").touch()
            terminal.until("finished")
            terminal.press("q")
            terminal.end()
    finally:
        _end(folder, made)
    print(f"{len(took)} of {TIMES} seen as lost, after {min(took):.1f} to {max(took):.1f} s, each resumed")
    assert len(took) == TIMES
    assert made.done.exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_a_killed_dashboard_leaves_the_job_alone(folder: LabFolder, how: signal.Signals) -> None:
    made = folder.run("hold")
    try:
        with _dashboard(folder) as terminal:
            terminal.until("waiting")
            _resume(terminal)
            worker = _started(made, terminal)
            terminal.until("running")
            os.kill(terminal.pid, how)
            terminal.end()
        for _ in range(TIMES - 1):
            with _dashboard(folder) as terminal:
                terminal.until("running")
                os.kill(terminal.pid, how)
                terminal.end()
            assert _worker(made) == worker
        with _dashboard(folder) as terminal:
            terminal.until("running")
            terminal.press("q")
            terminal.end()
        assert b"1 job keeps running" in terminal.output
        assert _worker(made) == worker
    finally:
        _end(folder, made)
    assert made.done.exists()
    assert len(made.attempt_numbers()) == 1
