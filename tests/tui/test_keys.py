"""Every key that a footer names does something that can be seen, and help names every key of the screen at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Footer

from cerank.tui.app import CerankApp
from cerank.tui.common.help_screen import HelpScreen, bindings_of
from cerank.tui.comparison.compare_screen import CompareScreen
from cerank.tui.comparison.query_list import QueryListScreen
from cerank.tui.comparison.query_screen import QueryScreen
from cerank.tui.new_run.new_run_screen import NewRunScreen
from cerank.tui.runs.run_list_screen import RunsScreen
from cerank.tui.runs.run_screen import RunScreen
from tests.tui.conftest import drawn, press, settle, text_of
from tests.tui.labs import LabFolder, made_collection, recipe

WAYS: dict[str, tuple[type[Screen[object]], tuple[str, ...]]] = {
    "runs": (RunsScreen, ()),
    **{f"run-{tab}": (RunScreen, ("enter", tab)) for tab in "123456"},
    **{f"new-{step}": (NewRunScreen, (step,)) for step in "1234"},
    "compare": (CompareScreen, ("space", "space", "m")),
    "queries": (QueryListScreen, ("space", "space", "m", "l")),
    "query": (QueryScreen, ("space", "space", "m", "enter", "enter")),
}
LEAVES = {"q", "escape"}  # pressed last; what quitting says is tested with the list of runs


@pytest.fixture
def full(folder: LabFolder, tmp_path: Path) -> LabFolder:
    """Two finished runs that can be compared, and a collection with their texts."""
    where = str(made_collection(tmp_path))
    for label, after in (("one", 0.6), ("two", 0.7)):
        folder.finished(folder.started(folder.run(label, test=[where]), 20, stage=1), after).log.write_text("said\n")
    return folder


def footer_keys(screen: Screen[object]) -> list[tuple[str, Binding]]:
    """The keys that stand in the footer now."""
    shown = [one for one in screen.active_bindings.values() if one.binding.show]
    return [(one.binding.key, one.binding) for one in shown if one.enabled]


async def opened(pilot: Pilot[str], way: str) -> Screen[object]:
    kind, keys = WAYS[way]
    await settle(pilot)
    if kind is NewRunScreen:  # over data that is planned at once
        where = next(pilot.app.files.glob("collection"))  # type: ignore[attr-defined]
        (where.parent / "tiny").mkdir()
        (where.parent / "tiny" / "config.json").write_text('{"model_type": "bert"}')
        (where.parent / "tiny" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (where.parent / "tiny" / "tokenizer.json").write_text("{}")
        data = {"train": str(where), "validation": str(where), "test": [str(where)]}
        pilot.app.push_screen(NewRunScreen(pilot.app.lab, recipe("two", base="./tiny", **data)))  # type: ignore[attr-defined]
        await settle(pilot)
    await press(pilot, *keys)
    assert isinstance(pilot.app.screen, kind)
    return pilot.app.screen


def state(app: CerankApp) -> tuple[object, ...]:
    """All that a person would notice."""
    toasts = [toast.message for toast in app._notifications]
    return (
        app.screen,
        drawn(app),
        app.clipboard,
        toasts,
        tuple(app.marked),
        sorted(path.name for path in app.files.iterdir()),
    )


def ways(*quick: str) -> list[object]:
    """All ways; those that are not quick are marked slow, for every key of every screen takes minutes."""
    return [way if way in quick else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]


@pytest.mark.parametrize("way", ways("runs", "new-4"))
async def test_every_key_in_the_footer_does_something_and_no_key_is_a_fault(full: LabFolder, way: str) -> None:
    app = CerankApp(full.lab, poll_seconds=0)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, way)
        assert screen.query(Footer)
        keys = footer_keys(screen)
        assert "q" in {key for key, _ in keys}
        at_home = app.focused
        for key, binding in sorted(keys, key=lambda one: one[0] in LEAVES):
            if key == "q" or binding.id == "app.quit":
                continue
            app.clear_notifications()
            app._clipboard = ""
            await settle(pilot)
            before = state(app)
            await press(pilot, key)
            assert state(app) != before, f"{key} ({binding.description}) did nothing"
            assert not any("Internal error" in toast.message for toast in app._notifications), key
            while screen in app.screen_stack and app.screen is not screen:
                app.pop_screen()
            if app.screen is screen and way.startswith("new"):  # a key may have gone to another step
                await press(pilot, WAYS[way][1][-1])
            if app.screen is screen and at_home is not None and at_home.is_attached:
                screen.set_focus(at_home)
            await settle(pilot)
        assert app.is_running


@pytest.mark.parametrize("way", ways("runs", "run-1", "new-4", "compare", "query"))
async def test_help_names_every_key_of_the_screen_with_what_it_does(full: LabFolder, way: str) -> None:
    app = CerankApp(full.lab, poll_seconds=0)
    async with app.run_test(size=(120, 100)) as pilot:
        screen = await opened(pilot, way)
        own = [binding for kind in type(screen).__mro__ for binding in kind.__dict__.get("BINDINGS", ())]
        wanted = {one.id: one.description for one in [*own, *(binding for _, binding in footer_keys(screen))] if one.id}
        told = {binding.id: binding for binding in bindings_of(screen)}
        assert {name for name in wanted if not name.startswith("screen.")} <= set(told)  # those are Textual's own
        await press(pilot, "question_mark")
        assert isinstance(app.screen, HelpScreen)
        seen = text_of(app)
        for name, binding in told.items():
            assert binding.description in seen, name
            assert (binding.key_display or "").split()[0] in seen, name
