"""Tables that are as high as their lines, whenever the screen is laid out meanwhile."""

from __future__ import annotations

from textual.app import App, ComposeResult

from cerank.tui.common.fitted_table import FittedTable


class _One(App[None]):
    CSS = "FittedTable { height: auto; }"

    def compose(self) -> ComposeResult:
        yield FittedTable()


async def test_a_layout_between_a_tables_clearing_and_its_measuring_does_not_leave_it_without_room() -> None:
    app = _One()
    async with app.run_test() as pilot:
        await pilot.pause()
        table = app.query_one(FittedTable)
        table.add_column("one")
        table.refresh(layout=True)  # pending from here on, as after clearing a table that had lines
        app.screen._clear_arrangement_cache()  # as another widget that asked for a layout does
        app.screen._refresh_layout()
        table.add_row("1")
        table.add_row("2")
        await pilot.pause()
        await pilot.pause()
        assert table.size.height == 3
