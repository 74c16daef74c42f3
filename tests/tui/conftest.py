"""The dashboard over labs made of files, driven by keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from cerank.tui.app import CerankApp
from tests.tui.labs import LabFolder

Settle = Callable[["Pilot[str]"], Awaitable[None]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabFolder]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    made = LabFolder(tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture
def app(folder: LabFolder) -> CerankApp:
    """The dashboard, which looks at the lab only when told."""
    return CerankApp(folder.lab, look_every=0)


async def settle(pilot: Pilot[str]) -> None:
    """Waits until no thread is at work, whatever follows from what they found included."""
    for _ in range(8):
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        if not list(pilot.app.workers):
            return


async def look(pilot: Pilot[str]) -> None:
    """Lets the dashboard look at the lab, and waits until it shows what it saw."""
    assert isinstance(pilot.app, CerankApp)
    pilot.app.look()
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
