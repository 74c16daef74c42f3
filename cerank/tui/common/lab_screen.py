"""The base class of screens: access to the app, and an update when runs change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from cerank.app.run_views.run_monitor import RunEntry
    from cerank.tui.protocol import LabApp

T = TypeVar("T")


class LabScreen(Screen[None]):
    """A screen over the lab."""

    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (100, "-wide")]  # noqa: RUF012 - Textual's declaration
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]  # noqa: RUF012 - Textual's declaration
    HELP_TITLE = "this screen"
    updates_every_poll = False  # whether `show_runs` is called at every poll, or only when a run changed

    @property
    def lab_app(self) -> LabApp:
        """The app, with its lab, its runs and its marks."""
        return cast("LabApp", self.app)

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Show the runs as they are now; called once a second at most, on the screen in front only."""

    def on_screen_resume(self) -> None:
        """Catch up with what happened while another screen was in front."""
        self.show_runs(self.lab_app.entries)

    def unsaved_work(self) -> str:
        """Return what quitting now would lose, in a sentence; "" for nothing."""
        return ""

    def run_in_thread(
        self, job: Callable[[], T], done: Callable[[T], None] | None = None, *, group: str = "work"
    ) -> None:
        """Do `job` in a thread and give `done` what it returned; see `CerankApp.run_in_thread`."""
        self.lab_app.run_in_thread(job, done, group=group, node=self)
