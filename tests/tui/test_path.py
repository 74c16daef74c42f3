"""A person's path through the real program in a real terminal: no mocks, no files laid by a test, keys alone.

`CERANK_FULL_PATH=1` takes the shipped recipes as they are (20 minutes on two cores), and `CERANK_PATH_FRAMES=FOLDER`
keeps the screens as a terminal held them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cerank.app import Lab
from cerank.files import lease
from cerank.models.bases import BaseFiles
from cerank.settings import Settings
from tests.tui import tmux
from tests.tui.tmux import Tmux

IS_FULL = "CERANK_FULL_PATH" in os.environ
PATIENCE = 3600.0 if IS_FULL else 240.0  # seconds for a stage on a busy machine

SHORT = """\
extends = "{extends}"
name = "short-{extends}"

[data]
train = "pydocs/train[:30]"
validation = "pydocs/validation[:16]"
test = ["pydocs/test[:30]"]
depth = 5
"""
STAGE = """
[stages.{stage}]
steps = {steps}
group_size = {group_size}
validate_every = 10
validation_queries = 8
validation_depth = 5
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not tmux.is_here(), reason="tmux is not installed")]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for lab and cache; whatever runs in it is stopped in the end."""
    for extends, stages in (
        ("contrastive-then-distill", ("contrastive", "distill")),
        ("contrastive", ("contrastive",)),
    ):
        text = SHORT.format(extends=extends)
        for name in stages:  # the second of two must last until the terminal has been closed and opened again
            text += STAGE.format(stage=name, steps=20, group_size=8 if name == "distill" else 4)
        (tmp_path / f"{extends}.toml").write_text(text)
    yield tmp_path
    lab = _lab(tmp_path)
    for row in lab.listed():
        if row.status.state in {"running", "stopping", "queued"}:
            lab.stop(row.folder)


def _lab(home: Path) -> Lab:
    return Lab(Settings(lab=home / "lab", cache=home / "cache", device="cpu", threads=1, format=""))


def _terminal(home: Path) -> Tmux:
    frames = os.environ.get("CERANK_PATH_FRAMES")
    environ = {"CERANK_LAB": str(home / "lab"), "CERANK_CACHE": str(home / "cache"), "CERANK_DEVICE": "cpu"}
    environ["XDG_STATE_HOME"] = str(home / "state")
    return Tmux(environ, home, frames=Path(frames) if frames else None)


def _choose(terminal: Tmux, recipe: str) -> None:
    """Chooses one recipe alone: the shipped one, or the short one of the same name from its file."""
    terminal.press("n")
    terminal.until("Base models")
    terminal.press("2")
    seen = terminal.until("[x] contrastive-then-distill")
    marks = [line for line in seen.splitlines() if re.search(r"\[[x ]\] ", line)]
    if IS_FULL and recipe == "contrastive-then-distill":
        return
    here = next(place for place, line in enumerate(marks) if "[x]" in line)
    terminal.press(*["Down"] * here, "Space")
    terminal.until("[ ] contrastive-then-distill")
    if IS_FULL:
        there = next(place for place, line in enumerate(marks) if line.rstrip().endswith(f"] {recipe}"))
        terminal.press(*["Up"] * (here - there), *["Down"] * (there - here), "Space")
    else:
        terminal.press("Tab")
        terminal.until("path of a .toml file; press")
        terminal.type(f"{recipe}.toml")
        terminal.press("Enter")
    terminal.until(f"[x] {'' if IS_FULL else 'short-'}{recipe}"[:24])
    terminal.press("Escape")
    terminal.until("? help")  # the field is left; an escape and a letter at once are alt and that letter


def _written(home: Path) -> list[Path]:
    """The papers in a folder, once there is one."""
    deadline = time.monotonic() + 600
    while not (found := list(home.glob("*.tex"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _launch(terminal: Tmux) -> None:
    """Goes to the work of what was chosen, and puts it in the queue."""
    terminal.press("4")
    terminal.until("✔ ready", seconds=PATIENCE)
    terminal.keep("2-new-run")
    terminal.press("l")
    terminal.until("[y]")
    terminal.press("y")
    terminal.until("1 run queued")


def test_from_an_empty_lab_to_a_comparison_on_paper(home: Path, minilm: BaseFiles) -> None:
    first = "contrastive-then-distill" if IS_FULL else "short-contrastive-then-distill"
    with _terminal(home) as terminal:
        terminal.until("No runs yet")
        terminal.keep("1-empty")
        _choose(terminal, "contrastive-then-distill")
        _launch(terminal)
        terminal.until("1 running", seconds=PATIENCE)
        terminal.press("Enter")
        terminal.until("1 Curves", "1/2 contrastive", "smoothed", seconds=PATIENCE)
        (run,) = _lab(home).listed()
        terminal.press("3")
        terminal.until("lines; / searches", "started")
        terminal.press("1")
        terminal.until("2/2 distill", "┊", seconds=PATIENCE)
        terminal.keep("3-second-stage")
        terminal.kill()
    assert lease.is_held(run.folder.lease), "the job died with its terminal"

    with _terminal(home) as terminal:
        terminal.until(first[:20], "1 running")
        terminal.press("Enter")
        terminal.until("contrastive", "distill", "┊")  # no gap: both stages, with what came while nobody looked
        terminal.press("Escape")
        terminal.until("✔ finished", seconds=PATIENCE)
        steps = [line for line in run.folder.readings.read_text().splitlines() if '"type":"step"' in line]
        assert len(steps) == (116 if IS_FULL else 40)
        assert len(list((run.folder.path / "attempts").iterdir())) == 1, "it was started twice"

        _choose(terminal, "contrastive")
        _launch(terminal)
        terminal.until("1 running", "1 finished", seconds=PATIENCE)
        terminal.until("2 finished", seconds=PATIENCE)
        terminal.keep("4-finished")
        terminal.press("g", "Space", "Space")
        terminal.until("2 marked")
        terminal.press("m")
        seen = terminal.until("against", "verdict", "baseline", " gain · ")
        assert re.search(r"better|worse|equivalent|cannot tell|negligible", seen)
        terminal.keep("5-comparison")
        terminal.press("e")
        terminal.until("Export the comparison", ".tex")
        terminal.press("Enter")
        (paper,) = _written(home)
        text = paper.read_text()
        assert "\\begin{tabular}" in text
        assert "\\toprule" in text
        assert re.search(r"(?m)^[a-z]+-[a-z]+ & nDCG@10 & 0\.", text)  # runs by their short names
        terminal.press("Escape")
        terminal.until("✔ finished")
        terminal.press("q")
        terminal.until("code 0")
