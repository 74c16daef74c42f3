"""A list of rows draws what is seen, keeps its cursor on a row, and answers mouse and keys."""

from __future__ import annotations

from rich.text import Text
from textual.app import App, ComposeResult
from textual.geometry import Offset
from textual.selection import Selection

from cerank.tui.common.row_list import RowColumn, RowList

ROWS = 10_000
SIZE = (40, 12)


class Numbers(RowList):
    """Rows with their number and its square; counts the rows that were drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[int] = []

    def on_mount(self) -> None:
        self.set_columns([RowColumn("number", "number", 6, is_right=True), RowColumn("square", "square", 9)])
        self.set_row_count(ROWS)
        self.focus()

    def cells(self, place: int) -> list[Text]:
        self.drawn.append(place)
        return [Text(str(place)), Text(str(place * place))]


class Host(App[None]):
    """An app with nothing but the list; notes what the list says."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def compose(self) -> ComposeResult:
        yield Numbers()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        self.heard.append(f"row {event.row_list.cursor_row}")

    def on_row_list_heading_selected(self, event: RowList.HeadingSelected) -> None:
        self.heard.append(event.key)


def text_at(numbers: Numbers, line: int) -> str:
    return numbers.render_line(line).text.strip()


async def test_only_rows_that_are_seen_are_drawn() -> None:
    app = Host()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        numbers = app.query_one(Numbers)
        await pilot.press("G")
        assert numbers.cursor_row == ROWS - 1
        assert text_at(numbers, SIZE[1] - 1).split() == [str(ROWS - 1), str((ROWS - 1) ** 2)]
        await pilot.press("g", "pagedown", "down")
        assert numbers.cursor_row == SIZE[1] - 1
        assert len(numbers.drawn) < 10 * SIZE[1]
        assert text_at(numbers, 0).split() == ["number", "square"]


async def test_the_cursor_stays_on_a_row_when_rows_go() -> None:
    app = Host()
    async with app.run_test(size=SIZE) as pilot:
        numbers = app.query_one(Numbers)
        await pilot.press("G")
        numbers.set_row_count(3)
        numbers.move_cursor(numbers.cursor_row)
        assert numbers.cursor_row == 2
        numbers.set_row_count(0)
        numbers.move_cursor(5)
        await pilot.press("enter")
        assert (numbers.cursor_row, app.heard) == (0, [])


async def test_a_click_moves_the_cursor_and_another_chooses_the_row() -> None:
    app = Host()
    async with app.run_test(size=SIZE) as pilot:
        numbers = app.query_one(Numbers)
        await pilot.click(Numbers, offset=(10, 3))
        assert (numbers.cursor_row, app.heard) == (2, [])
        await pilot.click(Numbers, offset=(10, 3))
        await pilot.click(Numbers, offset=(10, 0))
        assert app.heard == ["row 2", "square"]


async def test_text_that_is_selected_with_the_mouse_can_be_copied() -> None:
    app = Host()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        selected = app.query_one(Numbers).get_selection(Selection(Offset(0, 0), Offset(40, 2)))
        assert selected is not None
        assert selected[0].split() == ["number", "square", "0", "0", "1", "1"]
