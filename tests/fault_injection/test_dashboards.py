"""Two dashboards and commands on one lab, while its run starts and stops; `CERANK_KILLS=20` for twenty rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cerank.core.metrics import Event
from cerank.files import journal, lease
from cerank.runs.layout import RunFolder
from tests.tui.conftest import folder
from tests.tui.labs import LabFolder
from tests.tui.terminal import Terminal

TIMES = int(os.environ.get("CERANK_KILLS", "1"))
ROOT = str(Path(__file__).resolve().parents[2])

assert folder  # a fixture


def _dashboard(lab: LabFolder) -> Terminal:
    return Terminal([str(lab.path)], {"PYTHONPATH": ROOT}, program="tests.tui.front")


def _command(lab: LabFolder, made: RunFolder, *words: str) -> str:
    """A command's standard output; it must not fail."""
    done = subprocess.run(
        [sys.executable, "-m", "cerank", *words, "--lab", str(lab.path)],
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{made.name}: {done.stderr}"
    return done.stdout


def _both(lab: LabFolder, made: RunFolder, screens: tuple[Terminal, Terminal], word: str) -> None:
    """Waits until it is so and both show it; who is not read stands still, so both are read all the while."""
    deadline = time.monotonic() + 600
    while lab.lab.status(made).state != word or not all(word.encode() in screen.plain() for screen in screens):
        assert time.monotonic() < deadline, [screen.plain()[-1500:] for screen in screens]
        for screen in screens:
            screen.look()


def _resume(screen: Terminal) -> None:
    screen.press("r")
    screen.until("[y]")
    screen.press("y")


@pytest.mark.slow
def test_two_dashboards_and_a_command_line_show_and_steer_one_run(folder: LabFolder) -> None:
    made = folder.run("hold")
    try:
        with _dashboard(folder) as first, _dashboard(folder) as second:
            screens = (first, second)
            _both(folder, made, screens, "waiting")
            for number in range(TIMES):
                presses, looks = screens if number % 2 else screens[::-1]
                looks.press("k")
                _resume(presses)
                _both(folder, made, screens, "running")
                (row,) = json.loads(_command(folder, made, "ps", "--json"))
                assert row["state"] == "running"
                for screen in screens:
                    screen.press("k")
                _command(folder, made, "stop", made.name)
                _both(folder, made, screens, "paused")
            (folder.path / "release").touch()
            first.press("k")
            _resume(second)
            _both(folder, made, screens, "finished")
            for screen in screens:
                screen.press("q")
                screen.end()
                assert screen.code == 0
    finally:
        (folder.path / "release").touch()
    deadline = time.monotonic() + 600
    while lease.is_held(made.lease) and time.monotonic() < deadline:
        time.sleep(0.02)
    events = [event.kind for event in journal.read(made.events, Event)]
    assert events.count("started") == TIMES + 1
    assert not made.failure.exists()
    assert made.done.exists()
