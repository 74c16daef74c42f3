"""Fields of forms: a setting with its meaning and what is wrong with it beside it, lists to choose several from.

Invariant: nothing here knows a rule; what is wrong with a text is told to a field from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from cerank.app.matrix.recipe_form import FieldSpec
from cerank.app.run_views.display import at_words
from cerank.text.safe_text import shown
from cerank.tui.cells import content, joined

ERROR_SIGN = "✖"
WARNING_SIGN = "!"


def fitting_middle(text: str, width: int) -> str:
    """Return the text, its middle left out where it is too long: runs' names differ at both ends."""
    return text if len(text) <= width else f"{text[: width // 2]}…{text[-(width - width // 2 - 1) :]}"


class LineInput(Input):
    """An input that takes no control character."""

    DEFAULT_CSS = "LineInput { height: 1; border: none; padding: 0 1; } LineInput:focus { border: none; }"

    cursor_blink = reactive(False, init=False)  # it would draw twice a second, over SSH too

    def replace(self, text: str, start: int, end: int) -> None:
        """Replace a part of the value, by keys or by pasting."""
        super().replace(shown(text), start, end)


class ChoiceField(Widget, can_focus=True):
    """One of a few words, changed with left, right or space."""

    DEFAULT_CSS = """
    ChoiceField { height: 1; padding: 0 1; background: $surface; }
    ChoiceField:focus { background: $primary 25%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "turn(1)", "next value", show=False, id="choice.next"),
        Binding("left", "turn(-1)", "previous value", show=False, id="choice.before"),
    ]
    value: reactive[str] = reactive("", init=False)

    class Changed(Message):
        """Another word was chosen."""

        def __init__(self, choice: ChoiceField) -> None:
            super().__init__()
            self.choice = choice

        @property
        def control(self) -> ChoiceField:
            """The widget it came from."""
            return self.choice

    def __init__(self, choices: Sequence[str], value: str) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.set_reactive(ChoiceField.value, value)

    def render(self) -> Content:
        """Return the word between arrows."""
        return joined(("‹ ", "dim"), self.value, (" ›", "dim"))

    def action_turn(self, step: int) -> None:
        """Take the next word, or the one before."""
        at = self.choices.index(self.value) if self.value in self.choices else -1
        self.value = self.choices[(at + step) % len(self.choices)]

    def on_click(self) -> None:
        """Take the next word."""
        self.action_turn(1)

    def watch_value(self) -> None:
        """Report of it."""
        self.post_message(self.Changed(self))


class WholeWords(Static):
    """One line of text, cut between two words where there is no room for all of it."""

    def __init__(self, text: str, *, classes: str = "") -> None:
        super().__init__(classes=classes)
        self._whole = shown(text)

    def show(self, text: str) -> None:
        """Show another text."""
        self._whole = shown(text)
        self._fit()

    def on_resize(self) -> None:
        """Show as many words as fit now."""
        self._fit()

    def _fit(self) -> None:
        if self.content_size.width:
            self.update(content(at_words(self._whole, self.content_size.width)))


class FieldRow(Vertical):
    """A setting: its key, the text to change, its meaning (in full where the focus is), and what is wrong with it."""

    SCOPED_CSS = False  # the breakpoints' classes are the screen's
    DEFAULT_CSS = """
    FieldRow { height: auto; }
    FieldRow > Horizontal { height: 1; }
    FieldRow .key { width: 22; padding: 0 1; text-overflow: ellipsis; text-wrap: nowrap; }
    FieldRow LineInput, FieldRow ChoiceField { width: 1fr; }
    FieldRow .meaning { width: 1.8fr; padding: 0 1; color: $text-muted; text-overflow: ellipsis; text-wrap: nowrap; }
    .-slim FieldRow .meaning { display: none; }
    .-slim FieldRow .key { width: 19; }
    FieldRow .help { display: none; color: $text-muted; padding: 0 1 0 3; height: auto; }
    FieldRow.-open .help { display: block; }
    FieldRow .wrong { display: none; color: $error; padding: 0 1 0 3; height: auto; }
    FieldRow.-wrong .wrong { display: block; }
    FieldRow.-wrong .key { color: $error; }
    FieldRow.-unusual .wrong { display: block; color: $warning; }
    FieldRow.-unusual .key { color: $warning; }
    FieldRow.-changed .key { text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "next field", show=False, id="field.next"),
        Binding("up", "app.focus_previous", "previous field", show=False, id="field.before"),
    ]

    class Changed(Message):
        """The text of a field is another now."""

        def __init__(self, row: FieldRow, text: str) -> None:
            super().__init__()
            self.row = row
            self.text = text

    class Submitted(Message):
        """Enter was pressed in a field."""

        def __init__(self, row: FieldRow) -> None:
            super().__init__()
            self.row = row

    def __init__(
        self, row: FieldSpec, text: str | None = None, placeholder: str = "", *, is_of_recipe: bool = False
    ) -> None:
        """Make a field; one that `is_of_recipe` shows what differs from the recipe's own text."""
        super().__init__()
        self.row = row
        self._is_of_recipe = is_of_recipe
        self._text = row.text if text is None else text
        self._placeholder = placeholder
        self._instead = ""
        self._wrong = self._warning = ""
        self._has_said = False

    def compose(self) -> ComposeResult:
        """Lay out the field, and below it a line for its error."""
        safe = self._as_shown
        with Horizontal():
            yield Static(self._key(), classes="key")
            yield (
                ChoiceField(self.row.choices, safe)
                if self.row.choices
                else LineInput(safe, placeholder=self._instead or self._placeholder, select_on_focus=False)
            )
            yield WholeWords(self.row.meaning or self.row.expected, classes="meaning")
        yield Static(self._help(), classes="help")
        yield Static(classes="wrong")

    def on_mount(self) -> None:
        """Show the text and the error that were given before the field was on the screen."""
        self._mark()
        self.show_error(self._wrong, self._warning)

    @property
    def text(self) -> str:
        """Return the text of the field; the recipe's own text if both look the same."""
        return self._text

    def show(self, row: FieldSpec, text: str) -> None:
        """Show another setting of the same kind, with this text."""
        self.row, self._text = row, text
        if self.is_mounted:
            with self.prevent(Input.Changed, ChoiceField.Changed):
                if row.choices:
                    choice = self.query_one(ChoiceField)
                    choice.choices, choice.value = row.choices, self._as_shown
                else:
                    line = self.query_one(LineInput)
                    line.value, line.placeholder = self._as_shown, self._instead or self._placeholder
            self.query_one(WholeWords).show(row.meaning or row.expected)
            self._mark()

    def show_instead(self, words: str) -> None:
        """Show in the place of the recipe's own text what another setting puts there; "" for nothing."""
        if words != self._instead:
            self._instead = words
            self.show(self.row, self._text)

    @property
    def _as_shown(self) -> str:
        """The text in the line: none where another setting takes the place of the recipe's own."""
        return "" if self._instead and self._text == self.row.text else shown(self._text)

    def show_error(self, wrong: str, warning: str = "") -> None:
        """Show what is wrong with the field, else what is unusual about it, or that nothing is."""
        if (wrong, warning) == (self._wrong, self._warning) and self._has_said:
            return
        self._wrong, self._warning, self._has_said = wrong, warning, self.is_mounted
        self.set_class(bool(wrong), "-wrong")
        self.set_class(bool(warning) and not wrong, "-unusual")
        if self.is_mounted and (wrong or warning):
            text = f"{ERROR_SIGN} {wrong}" if wrong else f"{WARNING_SIGN} {warning}"
            self.query_one(".wrong", Static).update(content(text))

    def open(self) -> None:
        """Put the cursor into its line, and the field into view at once: a slow scroll may end between lines."""
        self.query("LineInput, ChoiceField").first().focus(scroll_visible=False)
        self.call_after_refresh(self.scroll_visible, animate=False)

    def on_descendant_focus(self) -> None:
        """Show in full what the field means."""
        self.add_class("-open")

    def on_resize(self) -> None:
        """Bring what is said below the line into view, too."""
        if self.has_class("-open"):
            self.call_after_refresh(self.scroll_visible, animate=False)

    def on_descendant_blur(self) -> None:
        """Show no more than the others."""
        self.remove_class("-open")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Handle what was typed."""
        event.stop()
        self._take(event.value)

    def on_choice_field_changed(self, event: ChoiceField.Changed) -> None:
        """Handle what was chosen."""
        event.stop()
        self._take(event.choice.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Pass enter on."""
        event.stop()
        self.post_message(self.Submitted(self))

    def _take(self, value: str) -> None:
        if value == self._as_shown:  # as it is shown, not as it was typed: the text may hold what is never shown
            return
        is_own = value == shown(self.row.text) or (self._instead and not value)
        self._text = self.row.text if is_own else value
        self._mark()
        self.post_message(self.Changed(self, self._text))

    def _mark(self) -> None:
        self.set_class(self._is_changed, "-changed")
        self.query_one(".key", Static).update(self._key())
        self.query_one(".help", Static).update(self._help())

    def _help(self) -> Content:
        row = self.row
        expected = f"one of {', '.join(row.choices)}" if row.choices else row.expected
        own = f"in the recipe: {row.text or 'empty'}" if self._is_changed else ""
        return content(" · ".join(part for part in (row.meaning, expected, own) if part))

    def _key(self) -> Content:
        return joined(("• " if self._is_changed else "  ", "bold"), self.row.key)

    @property
    def _is_changed(self) -> bool:
        return self._is_of_recipe and self._text != self.row.text


class ChecklistItem(msgspec.Struct, frozen=True):
    """A line of a list to choose from."""

    name: str
    line: Content


class Checklist(OptionList):
    """A list in which several lines may be chosen, with space or enter."""

    DEFAULT_CSS = """
    Checklist { height: auto; border: none; background: $background; padding: 0; text-wrap: nowrap;
               text-overflow: ellipsis; }
    Checklist:focus { border: none; }
    Checklist > .option-list--option { padding: 0 1; }
    Checklist > .option-list--option-highlighted, Checklist:focus > .option-list--option-highlighted {
        background: $primary 25%; color: $foreground; text-style: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "select", "choose", id="marks.choose"),
        Binding("j", "cursor_down", "down", show=False, id="marks.down"),
        Binding("k", "cursor_up", "up", show=False, id="marks.up"),
    ]

    class Chosen(Message):
        """Another set of lines is chosen."""

        def __init__(self, marks: Checklist) -> None:
            super().__init__()
            self.marks = marks

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id, markup=False)
        self._marks: tuple[ChecklistItem, ...] = ()
        self.chosen: tuple[str, ...] = ()

    def show(self, marks: Sequence[ChecklistItem], chosen: Sequence[str]) -> None:
        """Show these lines, those in `chosen` marked."""
        at = self.highlighted
        self._marks = tuple(marks)
        self.chosen = tuple(mark.name for mark in marks if mark.name in chosen)
        self.clear_options()
        self.add_options(Option(self._line(mark)) for mark in marks)
        self.highlighted = min(at or 0, len(marks) - 1) if marks else None

    def choose(self, names: Sequence[str]) -> None:
        """Mark the lines of these names, and no others."""
        self.show(self._marks, names)

    def move_to(self, name: str) -> None:
        """Move the cursor to the line of this name, so that it is in sight."""
        names = [mark.name for mark in self._marks]
        self.highlighted = names.index(name) if name in names else self.highlighted

    def _line(self, mark: ChecklistItem) -> Content:
        is_chosen = mark.name in self.chosen
        return joined(("[x] " if is_chosen else "[ ] ", "bold" if is_chosen else "dim")) + mark.line

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Turn the mark of a line."""
        event.stop()
        item_chosen = self._marks[event.option_index]
        names = {*self.chosen} ^ {item_chosen.name}
        self.chosen = tuple(item.name for item in self._marks if item.name in names)
        self.replace_option_prompt_at_index(event.option_index, self._line(item_chosen))
        self.post_message(self.Chosen(self))
