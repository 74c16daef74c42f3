"""The first line of every screen: the lab, what the screen is about, the devices, how many runs are in which state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from cerank.app.run_views.run_monitor import state_counts
from cerank.tui.cells import joined

if TYPE_CHECKING:
    from cerank.tui.protocol import LabApp


class StatusBar(Widget):
    """One line, which follows the app's runs by itself.

    Attributes:
        title: what the screen is about.
    """

    DEFAULT_CSS = """
    StatusBar { dock: top; height: 1; background: $panel; color: $foreground; padding: 0 1; text-wrap: nowrap;
          text-overflow: ellipsis; }
    """
    title: reactive[str] = reactive("")
    devices: reactive[str] = reactive("")
    counts: reactive[str] = reactive("")

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self.set_reactive(StatusBar.title, title)

    def on_mount(self) -> None:
        """Follow the app."""
        self.watch(self.app, "devices", lambda devices: setattr(self, "devices", devices))
        self.watch(self.app, "entries", lambda entries: setattr(self, "counts", state_counts(entries)))

    def render(self) -> Content:
        """Return the line."""
        lab = _with_tilde(cast("LabApp", self.app).lab.folder)
        parts = [part for part in (self.title, self.devices, self.counts) if part]
        return joined(("cerank ", "bold"), lab, *(f"  │  {part}" for part in parts))


def _with_tilde(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)
