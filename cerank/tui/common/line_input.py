"""A line the user types into. What is pasted comes from outside, so it is made safe before it stands there."""

from __future__ import annotations

from textual.reactive import reactive
from textual.widgets import Input

from cerank.text.safe_text import shown


class LineInput(Input):
    """An input that takes no control character."""

    DEFAULT_CSS = "LineInput { height: 1; border: none; padding: 0 1; } LineInput:focus { border: none; }"

    cursor_blink = reactive(False, init=False)  # it would draw twice a second, over SSH too

    def replace(self, text: str, start: int, end: int) -> None:
        """Replace a part of the value, by keys or by pasting."""
        super().replace(shown(text), start, end)
