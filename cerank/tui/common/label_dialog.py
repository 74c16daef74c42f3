"""A label and tags for a run."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from cerank.app.run_views.run_monitor import RunEntry
from cerank.tui.cells import content
from cerank.tui.common.line_input import LineInput


class LabelDialog(ModalScreen[tuple[str, str] | None]):
    """Two lines to type; dismissed with label and tags, or None."""

    CSS = """
    LabelDialog { align: center middle; }
    LabelDialog > Vertical { width: 72; max-width: 94%; height: auto; padding: 1 2; background: $panel;
                            border: round $primary; }
    LabelDialog LineInput { background: $surface; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "cancel", id="note.leave")]

    def __init__(self, entry: RunEntry) -> None:
        super().__init__()
        self._entry = entry

    def compose(self) -> ComposeResult:
        """Lay out the two lines."""
        with Vertical():
            yield Label(content(f"Label of {self._entry.title}; empty: the label of the plan"))
            yield LineInput(content(self._entry.notes.label).plain, id="label")
            yield Label(content("Tags, separated by spaces"))
            yield LineInput(content(" ".join(self._entry.notes.tags)).plain, id="tags")
            yield Label(content("enter saves, esc cancels", "dim"))

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Keep both."""
        self.dismiss((self.query_one("#label", Input).value, self.query_one("#tags", Input).value))

    def action_leave(self) -> None:
        """Keep nothing."""
        self.dismiss(None)
