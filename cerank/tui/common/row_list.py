"""A list of one-line rows of which only what is seen is drawn: ten thousand rows cost what a screenful costs.

Invariant: nothing is kept for a row that was not drawn; the cursor is always on a row that exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

_HEADING = 1  # lines above the rows that do not scroll


class RowColumn(NamedTuple):
    """A column that is shown: its key, its heading, and its width in cells without the gap on each side."""

    key: str
    heading: str
    width: int
    is_right: bool = False


class RowList(ScrollView, can_focus=True):
    """Rows under headings, with a cursor on one of them. What a row says comes from `cells`, when it is drawn.

    Attributes:
        cursor_row: the row under the cursor, from 0.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"row-list--heading", "row-list--cursor"}
    DEFAULT_CSS = """
    RowList { background: $background; color: $foreground; height: 1fr; }
    RowList > .row-list--heading { background: $panel; color: $foreground; text-style: bold; }
    RowList > .row-list--cursor { background: $primary 25%; color: $foreground; }
    RowList:ansi > .row-list--heading { background: ansi_bright_blue; color: ansi_default; }
    RowList:nocolor > .row-list--heading { text-style: bold underline; }
    RowList:nocolor > .row-list--cursor { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "open", show=False, id="list.open"),
        Binding("up,k", "move_by(-1)", "up", show=False, id="list.up"),
        Binding("down,j", "move_by(1)", "down", show=False, id="list.down"),
        Binding("pageup", "move_page(-1)", "page up", show=False, id="list.page-up"),
        Binding("pagedown", "move_page(1)", "page down", show=False, id="list.page-down"),
        Binding("home,g", "move_to_end(False)", "first", show=False, id="list.first"),
        Binding("end,G", "move_to_end(True)", "last", show=False, id="list.last"),
    ]
    cursor_row: reactive[int] = reactive(0, repaint=False)

    class Highlighted(Message):
        """The cursor is on another row."""

        def __init__(self, row_list: RowList) -> None:
            super().__init__()
            self.row_list = row_list

    class Selected(Message):
        """A row was chosen with enter, or by a click on the one under the cursor."""

        def __init__(self, row_list: RowList) -> None:
            super().__init__()
            self.row_list = row_list

    class HeadingSelected(Message):
        """A heading was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.row_columns: tuple[RowColumn, ...] = ()
        self.row_count = 0
        self.gap = 1  # blank cells on each side of a cell

    def cells(self, place: int) -> Sequence[Text]:
        """Return the cells of a row, one a column that is shown."""
        raise NotImplementedError

    # --- what is shown

    def set_columns(self, columns: Sequence[RowColumn]) -> None:
        """Show other columns."""
        self.row_columns = tuple(columns)
        self._resize_content()

    def set_row_count(self, count: int) -> None:
        """Show so many rows."""
        self.row_count = count
        self._resize_content()

    def _resize_content(self) -> None:
        width = sum(column.width + 2 * self.gap for column in self.row_columns)
        self.virtual_size = Size(width, self.row_count + _HEADING)
        self.refresh()

    def refresh_row(self, place: int) -> None:
        """Draw a row anew, if it is seen."""
        line = place + _HEADING - self.scroll_offset.y
        if _HEADING <= line < self.size.height:
            self.refresh(Region(0, line, self.size.width, 1))

    @property
    def visible_rows(self) -> int:
        """How many rows there is room for."""
        return max(1, self.scrollable_content_region.height - _HEADING)

    # --- drawing

    def render_line(self, y: int) -> Strip:
        """Return a line of the widget: the headings, or a row."""
        place = y - _HEADING + self.scroll_offset.y
        base = self.rich_style
        if y == 0:
            strip = self._line([Text(column.heading) for column in self.row_columns], base + self._style("heading"))
            line = 0
        elif place < self.row_count:
            is_here = place == self.cursor_row
            strip = self._line(self.cells(place), base + self._style("cursor") if is_here else base)
            line = place + _HEADING
        else:
            return Strip.blank(self.size.width, base)
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(line)) is not None:
            start, end = span
            end = strip.cell_length if end == -1 else min(end, strip.cell_length)
            marked = self.screen.get_component_rich_style("screen--selection")
            pieces = [strip.crop(0, start), strip.crop(start, end).apply_style(marked), strip.crop(end)]
            strip = Strip.join(pieces)
        left = self.scroll_offset.x
        strip = strip.apply_offsets(0, line)
        return strip.crop_extend(left, left + self.size.width, base if y else base + self._style("heading"))

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"row-list--{name}")

    def _line(self, cells: Sequence[Text], style: Style) -> Strip:
        segments = []
        length = 0
        for column, text in zip(self.row_columns, cells, strict=True):
            blank = " " * max(0, column.width - text.cell_len)
            padding = " " * self.gap
            words = (
                f"{padding}{blank}{text.plain}{padding}"
                if column.is_right
                else f"{padding}{text.plain}{blank}{padding}"
            )
            own = Style.parse(text.style) if isinstance(text.style, str) else text.style
            segments.append(Segment(words, style + own))
            length += max(column.width, text.cell_len) + 2 * self.gap
        rest = self.size.width + self.scroll_offset.x - length
        if rest > 0:
            segments.append(Segment(" " * rest, style))
            length += rest
        return Strip(segments, length).simplify()  # fewer pieces to draw, and to give their place

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the text that was selected with the mouse."""
        rows = [[Text(column.heading) for column in self.row_columns], *map(self.cells, range(self.row_count))]
        return selection.extract(
            "\n".join("".join(part.text for part in self._line(row, Style())) for row in rows)
        ), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002 - Textual's signature
        """Draw the selection."""
        self.refresh()

    # --- the cursor

    def validate_cursor_row(self, place: int) -> int:
        """Keep the cursor on a row."""
        return max(0, min(place, self.row_count - 1))

    def watch_cursor_row(self, before: int, now: int) -> None:
        """Draw both rows, and say that the cursor moved."""
        self.refresh_row(before)
        self.refresh_row(now)
        self.post_message(self.Highlighted(self))

    def move_cursor(self, place: int) -> None:
        """Put the cursor on a row, and scroll so that it is seen."""
        self.cursor_row = place
        top = self.scroll_offset.y
        new_top = min(max(top, self.cursor_row - self.visible_rows + 1), self.cursor_row)
        if new_top != top:
            self.scroll_to(y=new_top, animate=False, immediate=True)

    def action_move_by(self, rows: int) -> None:
        """Move the cursor by rows."""
        self.move_cursor(self.cursor_row + rows)

    def action_move_page(self, pages: int) -> None:
        """Move the cursor by what fits the screen."""
        self.move_cursor(self.cursor_row + pages * max(1, self.visible_rows - 1))

    def action_move_to_end(self, is_last: bool) -> None:
        """Move the cursor to the first row or the last one."""
        self.move_cursor(self.row_count - 1 if is_last else 0)

    def action_select(self) -> None:
        """Choose the row under the cursor."""
        if self.row_count:
            self.post_message(self.Selected(self))

    def on_click(self, event: Click) -> None:
        """Put the cursor on the row that was clicked, choose the one that has it, or choose a heading."""
        at = event.get_content_offset(self)
        if at is None or self.text_selection is not None:  # a drag selects text, and ends as a click
            return
        if at.y < _HEADING:
            right = 0
            for column in self.row_columns:
                right += column.width + 2 * self.gap
                if at.x + self.scroll_offset.x < right:
                    self.post_message(self.HeadingSelected(column.key))
                    return
            return
        place = at.y - _HEADING + self.scroll_offset.y
        if place >= self.row_count:
            return
        if place == self.cursor_row:
            self.action_select()
        else:
            self.move_cursor(place)


def text_width(text: str) -> int:
    """Return how many cells a text takes."""
    return len(text) if text.isascii() else cell_len(text)
