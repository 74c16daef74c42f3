"""A line a person types into. What is pasted comes from outside, so it is made safe before it stands there."""

from __future__ import annotations

from textual.widgets import Input

from cerank.text import shown


class LineInput(Input):
    """An input that takes no character a terminal acts upon."""

    DEFAULT_CSS = "LineInput { height: 1; border: none; padding: 0 1; } LineInput:focus { border: none; }"

    def replace(self, text: str, start: int, end: int) -> None:
        """Replaces a part of the value, by keys or by pasting."""
        super().replace(shown(text), start, end)
