"""The interface of the app that screens and widgets use, because the app itself imports all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from textual.dom import DOMNode
    from textual.notifications import SeverityLevel

    from cerank.app import Lab
    from cerank.app.dashboard_state import DashboardState
    from cerank.app.over_ssh.lab_access import LabAccess
    from cerank.app.run_views.run_monitor import RunEntry
    from cerank.errors import CerankError
    from cerank.recipes.schema import Recipe

T = TypeVar("T")


class LabApp(Protocol):
    """The dashboard's app over a lab; `CerankApp` is one."""

    lab: Lab
    access: LabAccess
    entries: tuple[RunEntry, ...]
    marked: tuple[str, ...]
    devices: str
    dropped: str
    files: Path
    has_loaded: bool
    deleted: list[tuple[str, ...]]
    state: DashboardState

    def poll(self, *again: str) -> None:
        """Read the lab's files once more, those of the named runs in any case."""

    def run_in_thread(
        self,
        job: Callable[[], T],
        done: Callable[[T], None] | None = None,
        *,
        group: str = "work",
        node: DOMNode | None = None,
        last: Callable[[], None] | None = None,
    ) -> None:
        """Do `job` in a thread and give `done` what it returned."""

    def show_message(self, text: str, severity: SeverityLevel = "information") -> None:
        """Show a short message."""

    def remember(self, **changed: object) -> None:
        """Save a choice of the user, which holds at the next start, too."""

    def show_error(self, error: CerankError) -> None:
        """Show why something was not done."""

    def copy_text(self, text: str, name: str) -> None:
        """Copy text to the clipboard."""

    def toggle_mark(self, name: str) -> None:
        """Mark a run, or take its mark away."""

    def open_compare(self, targets: list[str], condition: str = "") -> None:
        """Open the comparison of what the names stand for."""

    def open_example(self) -> None:
        """Open the form of a new run with the example in it."""

    def open_new(self, recipe: Recipe | None = None) -> None:
        """Open the form of a new run."""
