"""The one place where text becomes something a widget may show.

Invariant: what leaves here holds neither a control character nor markup that a widget would read.
Textual passes both through: escape sequences reach the terminal from cells, and `[/x]` in a str ends the program.
"""

from __future__ import annotations

from rich.segment import Segment
from rich.text import Text
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter

from cerank.text.safe_text import shown

CELL = 300  # characters; no cell of a table is wider


def cell(text: object, style: str = "", limit: int = CELL, *, is_right: bool = False) -> Text:
    """Return a cell of a table: one line, as it is."""
    return Text(
        shown(text, limit), style=style, no_wrap=True, overflow="ellipsis", justify="right" if is_right else None
    )


def content(text: object, style: str = "", limit: int = 2000, *, lines: bool = False) -> Content:
    """Return anything that a Static, a Label or an option shows; with `lines`, line feeds are kept."""
    safe = shown(text, limit, lines=lines)
    return Content.styled(safe, style) if style else Content(safe)


def joined(*parts: tuple[object, str] | str, limit: int = 2000, lines: bool = False) -> Content:
    """Return pieces side by side, each with its style."""
    made = [content(part, "", limit, lines=lines) if isinstance(part, str) else _styled(part, limit) for part in parts]
    return Content("").join(made)


def _styled(part: tuple[object, str], limit: int) -> Content:
    return content(part[0], part[1], limit)


def stacked(*rows: Content) -> Content:
    """Return pieces one above the other."""
    return Content("\n").join(rows)


def words(text: object, limit: int = CELL) -> str:
    """Return text for a widget that takes only a `str`, such as a toast; pass `markup=False` beside it."""
    return shown(text, limit)


class SafeLines(LineFilter):
    """A last filter before the terminal that drops control characters.

    Such characters take no column, so nothing moves. Each segment that is drawn again is checked.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - the base's signature
        """Return the segments without control characters."""
        return [
            segment if segment.control or segment.text.isprintable() else _without_controls(segment)
            for segment in segments
        ]


def _without_controls(segment: Segment) -> Segment:
    printable = "".join(char for char in segment.text if char.isprintable() or shown(char) == char)
    return Segment(printable, segment.style)
