"""The screens as pictures, at both sizes; `--snapshot-update` takes them anew, to be looked at before they are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import textual
from textual.pilot import Pilot
from textual.widgets import Input

from cerank.app.run_views.system_usage import Gpu, Machine, UsageSample, Work
from cerank.tui.app import CerankApp
from tests.tui.conftest import press, settle
from tests.tui.labs import LabFolder
from tests.tui.runs.test_run_screen import _collection

Compare = Callable[..., bool]

SIZES = [pytest.param((120, 36), id="120x36"), pytest.param((80, 24), id="80x24")]
TAKEN_WITH = "8.2"  # Textual draws differently from release to release

pytestmark = pytest.mark.skipif(
    not textual.__version__.startswith(TAKEN_WITH), reason=f"taken with Textual {TAKEN_WITH}"
)
at_both_sizes = pytest.mark.parametrize("size", SIZES)
at_the_small_size_where_time_is_left = pytest.mark.parametrize(
    "size", [SIZES[0], pytest.param((80, 24), id="80x24", marks=pytest.mark.slow)]
)


def _full(folder: LabFolder, path: Path) -> None:
    """A run in each state; the newest is finished and has its collection."""
    folder.damaged(folder.run("broken"))
    folder.started(folder.run("third try"), 30)
    folder.failed(folder.started(folder.run("large batch"), 12), "out of memory")
    folder.running(folder.started(folder.run("electra", base="electra", seed=7), 80, stage=1))
    made = folder.finished(folder.started(folder.run("baseline", test=[str(_collection(path))]), 100, stage=1))
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


CONTENT = {
    "runs": (),
    "runs-marked": ("space", "space"),
    "runs-filter": ("slash", *"state:finished OR x"),
    "runs-filter-wrong": ("slash", *"(state:"),
    "runs-help": ("question_mark",),
    "runs-delete": ("d",),
    "runs-label": ("t",),
    "curves": ("enter",),
    "curves-overlaid": ("space", "space", "enter"),
    "curves-live-log": ("down", "enter", "L", "right_square_bracket"),
    "plan-difference": ("down", "space", "enter", "2"),
    "log": ("enter", "3"),
    "log-search": ("enter", "3", "slash", *"fin", "enter", "n"),
    "results": ("enter", "4"),
    "rankings": ("enter", "5"),
    "curves-of-a-broken-run": ("G", "enter"),
    "plan-of-a-broken-run": ("G", "enter", "2"),
}


@at_both_sizes
@pytest.mark.parametrize("name", CONTENT)
def test_a_screen_with_content(
    folder: LabFolder, snap_compare: Compare, tmp_path: Path, size: tuple[int, int], name: str
) -> None:
    _full(folder, tmp_path)
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=size, run_before=_keys(*CONTENT[name]))


@at_the_small_size_where_time_is_left
@pytest.mark.parametrize("tab", ["3", "4", "5"])
def test_a_tab_of_a_broken_run(
    folder: LabFolder, snap_compare: Compare, tmp_path: Path, size: tuple[int, int], tab: str
) -> None:
    folder.damaged(folder.run("broken"))
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=size, run_before=_keys("enter", tab))


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


@at_both_sizes
@pytest.mark.parametrize("color", [True, False], ids=["colour", "without"])
def test_the_machine(
    folder: LabFolder, snap_compare: Compare, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], color: bool
) -> None:
    monkeypatch.setattr(Machine, "sample", lambda *_: MACHINE)  # whatever this machine does
    monkeypatch.setattr(Machine, "gpus", lambda _: MACHINE.gpus)
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    folder.finished(folder.started(folder.run("one"), 10))
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=size, run_before=_keys("enter", "6"))


@at_both_sizes
def test_an_empty_lab(folder: LabFolder, snap_compare: Compare, size: tuple[int, int]) -> None:
    assert snap_compare(CerankApp(folder.lab, poll_seconds=0), terminal_size=size, run_before=_keys())


@at_the_small_size_where_time_is_left
@pytest.mark.parametrize("tab", ["1", "3", "4", "5"])
def test_a_run_that_has_nothing_yet(folder: LabFolder, snap_compare: Compare, size: tuple[int, int], tab: str) -> None:
    folder.run("new")
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=size, run_before=_keys("enter", tab))


MARKED = ("space", "space")
WITHOUT = {
    "runs": MARKED,
    "runs-filter-wrong": (*MARKED, "slash", *"(state:"),
    "runs-help": (*MARKED, "question_mark"),
    "runs-label": (*MARKED, "t"),
    "delete": (*MARKED, "d"),
    "curves": (*MARKED, "enter"),
    "plan-difference": CONTENT["plan-difference"],
    "log-search": (*MARKED, "enter", "3", "slash", *"fin", "enter"),
    "results": (*MARKED, "enter", "4"),
    "rankings": (*MARKED, "enter", "5"),
}


@at_the_small_size_where_time_is_left
@pytest.mark.parametrize("name", WITHOUT)
def test_without_colour(
    folder: LabFolder,
    snap_compare: Compare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    name: str,
) -> None:
    _full(folder, tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    app = CerankApp(folder.lab, poll_seconds=0)
    assert snap_compare(app, terminal_size=size, run_before=_keys(*WITHOUT[name]))


def test_pictures_hold_no_path_of_this_machine() -> None:
    taken = Path(__file__).parent
    for path in taken.rglob("__snapshots__/**/*.svg"):
        assert not re.search(r"/tmp/|/home/|/root/", path.read_text()), path.name
