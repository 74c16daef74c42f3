"""A confirmation dialog for what cannot be undone; `No` has the focus."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Label

from cerank.tui.cells import content


class ConfirmDialog(ModalScreen[bool]):
    """A yes-or-no question; dismissed with True for yes."""

    CSS = """
    ConfirmDialog { align: center middle; }
    ConfirmDialog > Vertical { width: 72; max-width: 94%; height: auto; max-height: 90%; padding: 1 2;
                               background: $panel;
                         border: round $warning; }
    ConfirmDialog Label { width: 1fr; margin-bottom: 1; }
    ConfirmDialog Horizontal { height: auto; align-horizontal: right; }
    ConfirmDialog Button { margin-left: 2; min-width: 12; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", id="confirm.yes"),
        Binding("n,escape", "answer(False)", "no", id="confirm.no"),
        Binding("left,right", "app.focus_next", "other answer", show=False, id="confirm.other"),
    ]
    AUTO_FOCUS = "#no"

    def __init__(self, question: Content, yes: str) -> None:
        super().__init__()
        self._question = question
        self._yes = yes

    def compose(self) -> ComposeResult:
        """Lay out the question and two buttons."""
        with Vertical():
            yield Label(content("") + self._question)
            with Horizontal():
                yield Button(content("No"), id="no", variant="primary", flat=True)
                yield Button(content(self._yes), id="yes", variant="error", flat=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, is_yes: bool) -> None:
        """Answer by key."""
        self.dismiss(is_yes)
