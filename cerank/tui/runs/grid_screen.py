"""The lab's runs as a grid of bases x recipes: how many seeds are done, and the mean of their scores.

Invariant: a cell shows the newest run of each seed; the names of bases and recipes stay in sight while cells scroll.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Static

from cerank.app.comparison.named_systems import short_name
from cerank.app.run_views import seed_groups
from cerank.app.run_views.display import GLYPHS, at_words, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.seed_groups import ArmCell, GridCell
from cerank.text.safe_text import counted
from cerank.tui.cells import cell, content, joined, stacked
from cerank.tui.common import run_actions
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.theme import state_color

_LONGEST_NAME = 30  # characters of a base's or a recipe's name
_CAN_RESUME = ("failed", "lost", "paused", "waiting")


class GridScreen(LabScreen):
    """A row for each recipe, a column for each base."""

    AUTO_FOCUS = "#grid"
    HELP_TITLE = "the grid of bases and recipes"
    HELP_TEXT = (
        "2/3 1▶ .641 ± .004: two of three seeds are finished, one is running; mean and standard deviation over seeds.\n"
        "The folds of a cross-validation count like seeds: 4/5 are done, mean and standard deviation over folds.\n"
        "4/4 ✔ adi .641 ± .004; med .522 ± .010: runs on several test sets, depths or first stages, a mean for each.\n"
        "Of several runs with the same recipe, base, seed, fold and test set the newest counts; +2: there are two\n"
        "earlier ones, which the lines below name, and enter lists with the others.\n"
        "3/4 1▶ best 2: valid. .750: an arm of a sweep; three of four trials are over, and the second is the best on\n"
        "validation. z shows the trials of the sweep one by one, and again all of an arm in one cell."
    )
    CSS = """
    GridScreen #summary { height: 1; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
    GridScreen DataTable { height: 1fr; }
    GridScreen DataTable > .datatable--fixed { background: $panel; color: $foreground; }
    GridScreen #cell { height: auto; max-height: 10; padding: 0 1; border-top: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "list", "list these runs", id="grid.list", tooltip="Filter the list by this base and recipe"),
        Binding("r", "resume", "resume failures", id="grid.resume",
                tooltip="Queue the failed, lost, paused and waiting runs of this cell"),
        Binding("R", "resume_all", "resume all failures", id="grid.resume-all",
                tooltip="Queue the failed, lost and paused runs of the whole grid"),
        Binding("z", "open_sweep", "show or fold trials", id="grid.open-sweep", show=False,
                tooltip="Show the trials of this sweep one by one, or those of an arm in one cell"),
        Binding("j", "table('cursor_down')", "down", show=False, id="grid.down"),
        Binding("k", "table('cursor_up')", "up", show=False, id="grid.up"),
        Binding("h", "table('cursor_left')", "left", show=False, id="grid.left"),
        Binding("l", "table('cursor_right')", "right", show=False, id="grid.right"),
        Binding("escape", "back", "back", id="grid.back"),
    ]  # fmt: skip

    def __init__(self, list_runs: Callable[[str, str], None], opened: Collection[str] = ()) -> None:
        """A grid.

        Args:
            list_runs: shows the runs that a filter lets through, in the list below this screen, with the sweep opened
                that is named after it.
            opened: sweeps whose trials are shown one by one.
        """
        super().__init__()
        self._list_runs = list_runs
        self._opened = set(opened)
        self._grid = seed_groups.grid_of(())
        self._shape: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def compose(self) -> ComposeResult:
        """Lay out bar, grid, the runs of the cell under the cursor."""
        yield StatusBar("bases × recipes")
        yield Static(id="summary")
        yield DataTable(id="grid", cursor_type="cell", fixed_columns=1, zebra_stripes=False)
        yield Static(id="cell")
        yield KeyFooter()

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Show the grid as it is now; the cursor stays where it is."""
        grid = self._grid = seed_groups.grid_of(entries, self._opened)
        measure = f"; means of {grid.measure}" if grid.measure else ""
        self.query_one("#summary", Static).update(content(f"{grid.summary}{measure}; enter lists the runs of a cell"))
        table: DataTable[Text] = self.query_one("#grid", DataTable)
        if (grid.bases, grid.recipes) != self._shape:
            self._shape = (grid.bases, grid.recipes)
            table.clear(columns=True)
            table.add_column(cell("recipe"), key="recipe")
            for base in grid.bases:
                table.add_column(cell(at_words(base, _LONGEST_NAME)), key=f"base {base}")
            for recipe in grid.recipes:
                texts = [self._text(grid.cells.get((base, recipe))) for base in grid.bases]
                table.add_row(cell(at_words(recipe, _LONGEST_NAME), "bold"), *texts, key=recipe)
            table.move_cursor(row=0, column=1)
        else:
            for recipe in grid.recipes:
                for base in grid.bases:
                    text = self._text(grid.cells.get((base, recipe)))
                    before = table.get_cell(recipe, f"base {base}")
                    if text != before or text.style != before.style:
                        table.update_cell(recipe, f"base {base}", text, update_width=True)
        self._describe()

    def _text(self, runs: GridCell | None) -> Text:
        if runs is None:
            return cell("–", "dim")
        return cell(runs.text, state_color(runs.state, is_dark=self.app.current_theme.dark))

    @property
    def _place(self) -> tuple[str, str] | None:
        """Base and recipe under the cursor; None where there is no cell."""
        at: Coordinate = self.query_one("#grid", DataTable).cursor_coordinate
        if not (0 <= at.row < len(self._grid.recipes) and 1 <= at.column <= len(self._grid.bases)):
            return None
        return self._grid.bases[at.column - 1], self._grid.recipes[at.row]

    def _cell_runs(self) -> tuple[RunEntry, ...]:
        place = self._place
        runs = self._grid.cells.get(place) if place else None
        return runs.runs if runs else ()

    def on_data_table_cell_highlighted(self, event: DataTable.CellHighlighted) -> None:
        """Keep the cursor off the names, and show the runs of the cell."""
        if event.coordinate.column == 0 and self._grid.bases:
            event.data_table.move_cursor(column=1)
        self._describe()

    def _describe(self) -> None:
        """Show the runs of the cell, one a line."""
        is_dark = self.app.current_theme.dark
        place = self._place
        rows = [content(f"{place[1]} on {place[0]}", "bold")] if place else [content("No runs yet.")]
        is_mixed = len({seed_groups.tested_on(entry) for entry in self._cell_runs()}) > 1
        cell_runs = self._grid.cells.get(place) if place else None
        listed = self._cell_runs()
        if isinstance(cell_runs, ArmCell):
            rows[0] = joined((f"{place[1]} on {place[0]}" if place else "", "bold"), ("   z shows its trials", "dim"))
            rows += self._arm_rows(cell_runs)
            best = cell_runs.best.trial.number if cell_runs.best is not None else 0
            listed = tuple(sorted(listed, key=lambda entry: entry.trial is None or entry.trial.number != best))
        for entry in listed:
            sign = (f"{GLYPHS[entry.state]} {entry.state:<9}", state_color(entry.state, is_dark=is_dark))
            about = seed_groups.mean_and_sd([entry]) or entry.at or entry.why
            if entry.trial is not None and entry.validated is not None:
                about = f"{entry.validated[0]} {short(entry.validated[1])} on validation"
            if is_mixed and entry.plan is not None:
                data = entry.plan.recipe.data
                about += f"  on {', '.join(map(short_name, data.test))} at depth {data.depth}"
            which = entry.trial.title if entry.trial is not None else entry.place_in_group
            rows.append(joined(sign, f" {which}  {entry.short_name or entry.name}  ", (about, "dim")))
        if cell_runs is not None and len(cell_runs.means) > 1:
            rows[1:1] = [content(f"mean of {of}: {mean}, {counted(n, 'run')}") for of, mean, n in cell_runs.means]
        if cell_runs is not None and cell_runs.earlier:
            names = ", ".join(entry.short_name or entry.name for entry in reversed(cell_runs.earlier))
            rows.insert(1, content(f"earlier, of the same seeds, not counted: {names}", "dim"))
        self.query_one("#cell", Static).update(stacked(*rows))

    def _arm_rows(self, arm: ArmCell) -> list[Content]:
        """Return what the search of an arm came to so far."""
        best = arm.best
        if best is None:
            return [content("no trial is finished")]
        return [content(f"best by {arm.sweep.measure} on validation: trial {best.trial.text()}")]

    # actions

    def action_open_sweep(self) -> None:
        """Show the trials of the sweep under the cursor one by one, or those of an arm in one cell."""
        trials = [entry.trial.sweep for entry in self._cell_runs() if entry.trial is not None]
        if not trials:
            self.lab_app.show_message("No trials of a sweep here.")
            return
        self._opened ^= {trials[0]}
        self.show_runs(self.lab_app.entries)

    def on_data_table_cell_selected(self, _: DataTable.CellSelected) -> None:
        """Show the runs of the cell in the list."""
        self.action_list()

    def action_table(self, name: str) -> None:
        """Move the cursor."""
        getattr(self.query_one("#grid", DataTable), f"action_{name}")()

    def action_list(self) -> None:
        """Show the runs of the cell in the list."""
        place = self._place
        if place is None or not self._cell_runs():
            self.lab_app.show_message("No runs here.")
            return
        self.app.pop_screen()
        runs = self._grid.cells.get(place)
        name, sweep = place[1], ""
        if isinstance(runs, ArmCell):
            name, sweep = f"{runs.arm} {runs.sweep.name}#*", runs.sweep.name
        self._list_runs(f'base:"{place[0]}" recipe:"{name}"', sweep)

    def action_resume(self) -> None:
        """Queue what can be resumed of the cell."""
        place = self._place
        is_arm = place is not None and isinstance(self._grid.cells.get(place), ArmCell)
        self._resume(list(self._cell_runs()), _CAN_RESUME, is_named=not is_arm)

    def action_resume_all(self) -> None:
        """Queue all that failed."""
        runs = [entry for runs in self._grid.cells.values() for entry in runs.runs]
        self._resume(runs, ("failed", "lost", "paused"), is_named=False)

    def _resume(self, runs: list[RunEntry], states: tuple[str, ...], *, is_named: bool) -> None:
        able = [entry for entry in runs if entry.state in states]
        if able:
            run_actions.resume(self, able, is_named=is_named)
        else:
            self.lab_app.show_message("No run here is failed, lost, paused or waiting.")

    def action_back(self) -> None:
        """Go back to the list."""
        self.app.pop_screen()
