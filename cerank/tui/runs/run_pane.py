"""What the tabs of a run have in common: they show one run, and do nothing while they are hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.containers import Vertical

from cerank.app.run_views.run_monitor import Entry

if TYPE_CHECKING:
    from cerank.tui.protocol import LabApp


class Pane(Vertical):
    """One tab of a run."""

    DEFAULT_CSS = "Pane { height: 1fr; }"
    entry: Entry | None = None
    shown_run = ""
    is_changed = False  # since it was last looked at

    @property
    def house(self) -> LabApp:
        """The app."""
        return cast("LabApp", self.app)

    def look(self, entry: Entry) -> None:
        """Called once a second at most while the tab is in front, and when it comes to the front."""
        is_other = entry.name != self.shown_run
        self.is_changed = entry is not self.entry
        self.entry, self.shown_run = entry, entry.name
        if is_other:
            self.begin()
        self.go_on(entry)

    def begin(self) -> None:
        """Another run: drops what belongs to the one before."""

    def go_on(self, entry: Entry) -> None:
        """Shows what is new of the run."""

    def copied(self) -> tuple[str, str] | None:
        """What `y` copies, and what to call it; None where there is nothing."""
        return None

    def exported(self) -> tuple[str, str] | None:
        """What `e` writes, and the file's name; None where there is nothing."""
        return None
