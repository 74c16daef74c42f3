"""The first line of every screen: the lab, what the screen is about, the devices, how many runs are in which state."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from cerank.app.run_views.run_monitor import RunEntry, state_counts
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
    entries: reactive[tuple[RunEntry, ...]] = reactive(())
    dropped: reactive[str] = reactive("")
    is_recording: reactive[bool] = reactive(False)

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self.set_reactive(StatusBar.title, title)

    def on_mount(self) -> None:
        """Follow the app."""
        self.watch(self.app, "devices", lambda devices: setattr(self, "devices", devices))
        self.watch(self.app, "entries", lambda entries: setattr(self, "entries", entries))
        self.watch(self.app, "dropped", lambda dropped: setattr(self, "dropped", dropped))
        self.watch(self.app, "is_recording", lambda is_on: setattr(self, "is_recording", is_on))

    def render(self) -> Content:
        """Return the line: states as words where there is room for them, else as signs."""
        lab = cast("LabApp", self.app).access.title
        recording = "● recording" if self.is_recording else ""
        pieces: list[str] = []
        for as_words in (True, False):
            counts = state_counts(self.entries, as_words=as_words)
            pieces = [f"  │  {part}" for part in (self.dropped, recording, self.title, self.devices, counts) if part]
            if len("cerank ") + len(lab) + sum(map(len, pieces)) <= self.content_size.width:
                break
        return joined(("cerank ", "bold"), lab, *pieces)
