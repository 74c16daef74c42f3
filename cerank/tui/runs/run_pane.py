"""What the tabs of a run have in common: they show one run, and do nothing while they are hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.containers import Vertical

from cerank.app.run_views.run_monitor import RunEntry

if TYPE_CHECKING:
    from cerank.tui.protocol import LabApp


class RunPane(Vertical):
    """The content of one tab of the run screen."""

    DEFAULT_CSS = "RunPane { height: 1fr; }"
    entry: RunEntry | None = None
    shown_run = ""
    is_changed = False  # since it was last looked at

    @property
    def lab_app(self) -> LabApp:
        """The app."""
        return cast("LabApp", self.app)

    def show_entry(self, entry: RunEntry) -> None:
        """Show the newest state of a run; called at most once a second while the tab is in front."""
        is_other = entry.name != self.shown_run
        self.is_changed = entry is not self.entry
        self.entry, self.shown_run = entry, entry.name
        if is_other:
            self.clear_entry()
        self.update_entry(entry)

    def clear_entry(self) -> None:
        """Forget what belongs to the run that was shown before."""

    def update_entry(self, entry: RunEntry) -> None:
        """Show what is new of the run."""

    def copied(self) -> tuple[str, str] | None:
        """Return what `y` copies, and what to call it; None where there is nothing."""
        return None

    def exported(self) -> tuple[str, str] | None:
        """Return what `e` writes, and the file's name; None where there is nothing."""
        return None
