"""The base class of screens: access to the app, and an update when runs change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from cerank.app.run_views.run_monitor import RunEntry
    from cerank.tui.protocol import LabApp

T = TypeVar("T")


class LabScreen(Screen[None]):
    """A screen over the lab. While it is in front, it shows the runs anew whenever they, or their marks, change."""

    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (100, "-wide")]  # noqa: RUF012 - Textual's declaration
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]  # noqa: RUF012 - Textual's declaration
    HELP_TITLE = "this screen"
    SHOWS_ONE_MESSAGE: ClassVar[bool] = False  # where it is low: messages would cover its fields
    WATCHES: ClassVar[tuple[str, ...]] = (
        "entries",
        "marked",
        "has_loaded",
    )  # attributes of the app on whose change `show_runs` is called

    @property
    def lab_app(self) -> LabApp:
        """Return the app, with its lab, its runs, and which runs are selected."""
        return cast("LabApp", self.app)

    def on_mount(self) -> None:
        """Watch the app."""
        for name in self.WATCHES:
            self.watch(self.app, name, self._show_runs_if_in_front, init=False)

    def _show_runs_if_in_front(self) -> None:
        if self.is_current:
            self.show_runs(self.lab_app.entries)

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Show the runs as they are now; called on the screen in front only."""

    def on_screen_suspend(self) -> None:
        """Remove messages about this screen, so that they do not cover the one that opens over it.

        A screen that is closed is suspended, too; what it said last is for the screen below.
        """
        if self in self.app.screen_stack:
            self.app.clear_notifications()

    def on_screen_resume(self) -> None:
        """Catch up with what happened while another screen was in front."""
        self.show_runs(self.lab_app.entries)

    def followed_runs(self) -> tuple[str, ...]:
        """Return the runs whose files this screen shows, by id: those of a lab on another machine are copied."""
        return ()

    def unsaved_work(self) -> str:
        """Return what quitting now would lose, in a sentence; "" for nothing."""
        return ""

    def run_in_thread(
        self, job: Callable[[], T], done: Callable[[T], None] | None = None, *, group: str = "work"
    ) -> None:
        """Do `job` in a thread and give `done` what it returned; see `CerankApp.run_in_thread`."""
        self.lab_app.run_in_thread(job, done, group=group, node=self)
