"""The dashboard over labs made of files, driven by keys."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from rich.text import Text
from textual.app import App
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import DataTable

from cerank.app.run_views import display
from cerank.tui.app import CerankApp
from cerank.tui.common.row_list import RowList
from cerank.tui.new_run.new_run_screen import NewRunScreen
from tests.tui.labs import NOW, LabFolder

STILL_WITHIN = 240.0  # seconds; reached only by what is broken
Screenful = list[Strip]
Settle = Callable[["Pilot[str]"], Awaitable[None]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabFolder]:
    monkeypatch.setattr("textual._wait.SLEEP_GRANULARITY", 0.005)  # a quarter of Textual's: `settle` looks three times
    monkeypatch.setattr(os, "fsync", lambda _: None)  # these labs need not outlive a power cut
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".state"))
    for name in ("NO_COLOR", "CERANK_THEME", "COLORFGBG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setattr(display, "now", lambda: NOW + timedelta(days=5))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    made = LabFolder(tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture
def app(folder: LabFolder) -> CerankApp:
    """The dashboard, which looks at the lab only when told."""
    return CerankApp(folder.lab, poll_seconds=0)


async def settle(pilot: Pilot[str]) -> None:
    """Waits until no thread is at work and three looks at the screen in a row, colors included, are the same."""
    app = pilot.app
    assert isinstance(app, CerankApp)
    seen: Screenful = []
    same = 0
    deadline = time.monotonic() + STILL_WITHIN
    while time.monotonic() < deadline:
        await pilot.pause()
        is_waiting = isinstance(app.screen, NewRunScreen) and app.screen.is_waiting
        if (
            is_waiting
            or app.is_at_work
            or any(table._require_update_dimensions for table in app.screen.query(DataTable))
        ):
            same = 0  # a table measures its columns when its queue is empty, some looks after its rows came
            continue
        now = drawn(app)
        same = same + 1 if now == seen else 0
        seen = now
        if same == 2:
            return
    raise AssertionError(f"still at work: {app.workers}" if app.is_at_work else "the screen never stood still")


def drawn(app: App[str]) -> Screenful:
    """All that stands on the screen, line by line, with its styles."""
    return app.screen._compositor.render_strips(app.screen.size)


async def look(pilot: Pilot[str]) -> None:
    """Lets the dashboard look at the lab, and waits until it shows what it saw."""
    assert isinstance(pilot.app, CerankApp)
    pilot.app.poll()
    await settle(pilot)


async def press(pilot: Pilot[str], *keys: str) -> None:
    """Presses keys one by one and waits for what they start."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def text_of(app: CerankApp) -> str:
    """What stands on the screen, line by line."""
    size = app.screen.size
    strips = app.screen._compositor.render_strips(size)
    return "\n".join(strip.text.rstrip() for strip in strips)


def whole_cells(table: DataTable[Text] | RowList) -> bool:
    """Whether every heading and cell has the room it needs, and all columns fit the table."""
    if isinstance(table, RowList):
        rows = [[Text(column.heading) for column in table.row_columns], *map(table.cells, range(table.row_count))]
        widths = [column.width for column in table.row_columns]
        fits = all(text.cell_len <= width for row in rows for text, width in zip(row, widths, strict=True))
        return fits and sum(width + 2 * table.gap for width in widths) <= table.size.width
    columns = list(table.columns.values())
    room = [column.get_render_width(table) for column in columns]
    gap = 2 * table.cell_padding
    is_whole = all(column.label.cell_len + gap <= width for column, width in zip(columns, room, strict=True))
    for row in range(table.row_count):
        cells = table.get_row_at(row)
        is_whole = is_whole and all(cell.cell_len + gap <= width for cell, width in zip(cells, room, strict=True))
    return is_whole and sum(room) <= table.size.width
