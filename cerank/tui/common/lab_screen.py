"""What the screens share: the app with its lab, and being told when the lab changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from cerank.app.run_views.run_monitor import Entry
    from cerank.tui.protocol import LabApp

T = TypeVar("T")


class LabScreen(Screen[None]):
    """A screen over the lab."""

    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (100, "-wide")]  # noqa: RUF012 - Textual's declaration
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]  # noqa: RUF012 - Textual's declaration
    HELP_TITLE = "this screen"
    wants_every_look = False  # whether `see` is called at every look, or only when a run changed

    @property
    def house(self) -> LabApp:
        """The app, with its lab, its runs and its marks."""
        return cast("LabApp", self.app)

    def see(self, entries: tuple[Entry, ...]) -> None:
        """Shows the runs as they are now; called once a second at most, on the screen in front only."""

    def on_screen_resume(self) -> None:
        """Catches up with what happened while another screen was in front."""
        self.see(self.house.entries)

    def would_lose(self) -> str:
        """What quitting now would lose, in a sentence; "" for nothing."""
        return ""

    def work(self, job: Callable[[], T], done: Callable[[T], None] | None = None, *, group: str = "work") -> None:
        """Does `job` in a thread and gives `done` what it returned; see `CerankApp.do`."""
        self.house.do(job, done, group=group, node=self)
