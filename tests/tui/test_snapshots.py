"""The screens as pictures, one each at the size that matters.

`--snapshot-update` takes them anew, to be looked at before they are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import textual
from textual.pilot import Pilot
from textual.widgets import Input

from cerank.machine.system_usage import Gpu, Machine, UsageSample, Work
from cerank.tui.app import CerankApp
from tests.tui.conftest import press, settle
from tests.tui.labs import LabFolder, made_collection

Compare = Callable[..., bool]

WIDE, SLIM = (120, 36), (80, 24)
TAKEN_WITH = "8.2"  # Textual draws differently from release to release

pytestmark = pytest.mark.skipif(
    not textual.__version__.startswith(TAKEN_WITH), reason=f"taken with Textual {TAKEN_WITH}"
)


def _full(folder: LabFolder, path: Path) -> None:
    """A run in each state; the newest is finished and has its collection."""
    folder.damaged(folder.run("broken"))
    folder.started(folder.run("third try"), 30)
    folder.failed(folder.started(folder.run("large batch"), 12), "out of memory")
    folder.running(folder.started(folder.run("electra", base="electra", seed=7), 80, stage=1))
    made = folder.finished(folder.started(folder.run("baseline", test=[str(made_collection(path))]), 100, stage=1))
    made.log.write_text("2026-11-23T10:01:00+00:00 finished\n")


def _keys(*keys: str) -> Callable[[Pilot[str]], object]:
    async def run(pilot: Pilot[str]) -> None:
        await settle(pilot)
        await press(pilot, *keys)
        pilot.app.clear_notifications()
        for blinking in pilot.app.screen.query(Input):
            blinking.cursor_blink = False
        await settle(pilot)

    return run


CONTENT: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "runs-wide": (WIDE, ("space", "space")),
    "runs-slim": (SLIM, ()),
    "runs-filter-wrong": (SLIM, ("slash", *"(state:")),
    "runs-help": (WIDE, ("question_mark",)),
    "runs-delete": (SLIM, ("d",)),
    "runs-label": (SLIM, ("t",)),
    "curves-wide": (WIDE, ("enter",)),
    "curves-slim": (SLIM, ("enter",)),
    "curves-overlaid": (WIDE, ("space", "space", "enter")),
    "plan-difference": (WIDE, ("down", "space", "enter", "2")),
    "log-search": (SLIM, ("enter", "3", "slash", *"fin", "enter", "n")),
    "results-wide": (WIDE, ("enter", "4")),
    "results-slim": (SLIM, ("enter", "4")),
    "rankings-wide": (WIDE, ("enter", "5")),
    "rankings-slim": (SLIM, ("enter", "5")),
    "curves-of-a-broken-run": (WIDE, ("G", "enter")),
}


@pytest.mark.parametrize("name", CONTENT)
def test_a_screen_with_content(folder: LabFolder, snap_compare: Compare, tmp_path: Path, name: str) -> None:
    size, keys = CONTENT[name]
    _full(folder, tmp_path)
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=size, run_before=_keys(*keys))


MACHINE = UsageSample(
    cpu=0.62,
    cores=16,
    load=9.5,
    memory=41 * 2**30,
    memory_total=128 * 2**30,
    disk_free=512 * 2**30,
    gpus=(Gpu(0, "NVIDIA H100", 0.92, 61 * 2**30, 80 * 2**30, 540.0, 61.0),),
    work=Work(4711, 1.2, 3 * 2**30),
)


def test_the_machine(folder: LabFolder, snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "sample", lambda *_: MACHINE)  # whatever this machine does
    monkeypatch.setattr(Machine, "gpus", lambda _: MACHINE.gpus)
    folder.finished(folder.started(folder.run("one"), 10))
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=WIDE, run_before=_keys("enter", "6"))


def test_an_empty_lab(folder: LabFolder, snap_compare: Compare) -> None:
    assert snap_compare(CerankApp(folder.lab, poll_seconds=0), terminal_size=SLIM, run_before=_keys())


WITHOUT_COLOR = {
    "runs": ("space", "space"),
    "curves": ("space", "space", "enter"),
    "results": ("enter", "4"),
}


@pytest.mark.parametrize("name", WITHOUT_COLOR)
def test_without_color(
    folder: LabFolder, snap_compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _full(folder, tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=WIDE, run_before=_keys(*WITHOUT_COLOR[name]))


def test_pictures_hold_no_path_of_this_machine() -> None:
    taken = Path(__file__).parent
    for path in taken.rglob("__snapshots__/**/*.svg"):
        assert not re.search(r"/tmp/|/home/|/root/", path.read_text()), path.name
