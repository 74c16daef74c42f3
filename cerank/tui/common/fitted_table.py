"""A table that is as high as its lines.

Invariant: whenever its lines take more or less space, it is laid out again.
"""

from __future__ import annotations

from rich.text import Text
from textual.widgets import DataTable


class FittedTable(DataTable[Text]):
    """For tables whose CSS says `height: auto`; DEFAULT_CSS and type selectors of DataTable hold for it."""

    def watch_virtual_size(self) -> None:
        """Forget the size that was computed for the lines of before.

        Textual (8.2) keeps a widget's box under a count of its layouts asked for, and does not count one that is asked
        for while another is pending. A table measures its lines when it is idle: where the screen was laid out between
        its being cleared and its being measured, the box of the empty table, no line high, was taken for its own, two
        times in a hundred.
        """
        self._layout_updates += 1
