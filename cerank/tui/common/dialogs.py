"""Dialogs over a screen: a question, a few fields, and where to write a file.

Invariant: a form says what is wrong beside its field as the user types, and returns nothing before it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Static
from textual.widgets.button import ButtonVariant

from cerank.app.comparison import export_comparison
from cerank.app.matrix.recipe_form import FieldSpec
from cerank.text.safe_text import shown
from cerank.tui.cells import content
from cerank.tui.common.form_fields import Checklist, ChecklistItem, ChoiceField, FieldRow
from cerank.tui.common.lab_screen import LabScreen

Check = Callable[[Mapping[str, str]], Mapping[str, str]]
Outcome = Callable[[Mapping[str, str]], str]


class ConfirmDialog(ModalScreen[bool]):
    """A yes-or-no question; dismissed with True for yes.

    Any other letter is a no: whoever types a word into a screen that has no line for it started nothing by that.
    """

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

    def __init__(self, question: Content, yes: str, *, loses: bool = True) -> None:
        """Ask.

        Args:
            question: what is asked.
            yes: what yes does, in a word.
            loses: whether yes ends or deletes something.
        """
        super().__init__()
        self._question = question
        self._yes = yes
        self._loses = loses

    def compose(self) -> ComposeResult:
        """Lay out the question and two buttons."""
        with Vertical():
            yield Label(content("") + self._question)
            with Horizontal():
                yield Button(content("[n] No"), id="no", variant="primary", flat=True)
                variant: ButtonVariant = "error" if self._loses else "success"
                yield Button(content(f"[y] {self._yes}"), id="yes", variant=variant, flat=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        self.dismiss(event.button.id == "yes")

    def on_key(self, event: Key) -> None:
        """Take a letter that means nothing here for a no."""
        if event.is_printable and event.key != "space" and event.key not in self.active_bindings:
            event.stop()
            self.dismiss(False)

    def action_answer(self, is_yes: bool) -> None:
        """Answer by key."""
        self.dismiss(is_yes)


class FormDialog(ModalScreen[dict[str, str] | None]):
    """A few fields over a screen; dismissed with their texts by path once nothing is wrong, or with None."""

    CSS = """
    FormDialog { align: center middle; }
    FormDialog > VerticalScroll { width: 84; max-width: 96%; height: auto; max-height: 90%; padding: 1 2;
                                 background: $panel; border: round $primary; }
    FormDialog .title { text-style: bold; margin-bottom: 1; }
    FormDialog .meaning { display: none; }
    FormDialog .hint { color: $text-muted; margin-top: 1; }
    FormDialog .outcome { padding: 0 1 0 3; height: auto; display: none; }
    FormDialog LineInput { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "cancel", id="ask.leave"),
    ]

    def __init__(
        self, title: str, rows: Sequence[FieldSpec], check: Check, hint: str = "", outcome: Outcome = lambda _: ""
    ) -> None:
        """A form.

        Args:
            title: what it is about.
            rows: its fields.
            check: returns what is wrong, by path.
            hint: what to know beside the keys.
            outcome: returns what the texts come to, in words; shown under the fields while nothing is wrong.
        """
        super().__init__()
        self._outcome = outcome
        self._title = title
        self._rows = tuple(rows)
        self._check = check
        self._hint = hint

    def compose(self) -> ComposeResult:
        """Lay out title, fields, and what enter does."""
        with VerticalScroll():
            yield Static(content(self._title), classes="title")
            for row in self._rows:
                yield FieldRow(row, placeholder=shown(row.meaning))
            yield Static(classes="outcome")
            yield Static(content(f"{self._hint}{' · ' if self._hint else ''}enter saves, esc cancels"), classes="hint")

    @property
    def texts(self) -> dict[str, str]:
        """Return the texts of the fields, by name."""
        return {row.row.path: row.text for row in self.query(FieldRow)}

    def on_mount(self) -> None:
        """Start in the first field."""
        self.query("LineInput, ChoiceField").first().focus()
        self._show_outcome(self._check(self.texts))

    def on_field_row_changed(self, _: FieldRow.Changed) -> None:
        """Show what is wrong as one types."""
        self._show_errors()

    def _show_errors(self) -> Mapping[str, str]:
        wrong = self._check(self.texts)
        for row in self.query(FieldRow):
            row.show_error(wrong.get(row.row.path, ""))
        self._show_outcome(wrong)
        return wrong

    def _show_outcome(self, wrong: Mapping[str, str]) -> None:
        text = "" if wrong else self._outcome(self.texts)
        line = self.query_one(".outcome", Static)
        line.display = bool(text)
        line.update(content(text))

    def on_field_row_submitted(self, _: FieldRow.Submitted) -> None:
        """Keep the texts, if nothing is wrong."""
        self.action_keep()

    def on_key(self, event: object) -> None:
        """Enter on a choice keeps, too."""
        if getattr(event, "key", "") == "enter" and isinstance(self.focused, ChoiceField):
            self.action_keep()

    def action_keep(self) -> None:
        """Keep the texts, if nothing is wrong."""
        if not self._show_errors():
            self.dismiss(self.texts)

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(None)


class ChoiceDialog(ModalScreen[tuple[str, ...] | None]):
    """Lines of which any number may be chosen; dismissed with the names of the chosen ones, or None."""

    CSS = """
    ChoiceDialog { align: center middle; }
    ChoiceDialog > VerticalScroll { width: 60; max-width: 96%; height: auto; max-height: 90%; padding: 1 2;
                                   background: $panel; border: round $primary; }
    ChoiceDialog .title { text-style: bold; margin-bottom: 1; }
    ChoiceDialog .hint { color: $text-muted; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "save", "save", id="choice-dialog.save", priority=True),
        Binding("escape", "leave", "cancel", id="choice-dialog.leave"),
    ]

    def __init__(self, title: str, items: Sequence[ChecklistItem], chosen: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._items = tuple(items)
        self._chosen = tuple(chosen)

    def compose(self) -> ComposeResult:
        """Lay out the lines."""
        with VerticalScroll(can_focus=False):
            yield Static(content(self._title), classes="title")
            yield Checklist(id="choices")
            yield Static(content("space chooses · enter saves, esc cancels"), classes="hint")

    def on_mount(self) -> None:
        """Show the lines."""
        self.query_one(Checklist).show(self._items, self._chosen)
        self.query_one(Checklist).focus()

    def action_save(self) -> None:
        """Return the chosen lines."""
        self.dismiss(self.query_one(Checklist).chosen)

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(None)


def ask_for_file(
    screen: LabScreen, title: str, suggested: Path, text_for: Callable[[Path], str], check: Callable[[Path], str]
) -> None:
    """Ask where to write, then write what `text_for` makes of the path, in a thread, and say where it is.

    Args:
        check: what is wrong with the name beyond its place; "" for nothing.
    """

    def wrong(texts: Mapping[str, str]) -> dict[str, str]:
        path = Path(texts["path"])
        text = check(path) or export_comparison.path_error(path)
        return {"path": text} if text else {}

    def keep(texts: dict[str, str] | None) -> None:
        if texts is not None:
            path = Path(texts["path"])
            screen.run_in_thread(
                lambda: export_comparison.save(text_for(path), path),
                lambda made: screen.lab_app.show_message(f"saved {made}"),
                group="save",
            )

    def outcome(texts: Mapping[str, str]) -> str:
        return f"writes {Path(texts['path']).expanduser().absolute()}"

    row = FieldSpec("path", "file", str(suggested), "", "a path")
    screen.app.push_screen(FormDialog(title, [row], wrong, outcome=outcome), keep)
