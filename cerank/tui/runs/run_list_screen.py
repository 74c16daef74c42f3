"""The lab's runs: a live list to sort, filter, mark and act upon, with what is known of the one under the cursor."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize
from textual.widgets import Input, Static

from cerank.app.comparison import export_comparison
from cerank.app.run_views import run_filter, run_list
from cerank.app.run_views.display import GLYPHS
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.seed_groups import RunSettings, SeedGroups
from cerank.errors import UsageError
from cerank.text.safe_text import counted
from cerank.text.table_data import written
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common import run_actions
from cerank.tui.common.dialogs import ChoiceDialog
from cerank.tui.common.form_fields import ChecklistItem, LineInput
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.runs.run_table import RunTable

_SIGNS = ", ".join(f"{sign} {state}" for state, sign in GLYPHS.items())
_FALLS = {"age", "valid", "test", "pairs/s"}  # sorted from the top at first
_MOST_SETTINGS = 6  # columns of settings that differ
_TALL = LabScreen.VERTICAL_BREAKPOINTS[-1][0]  # lines from which all that is known of a run has room
_LOWEST = 16  # lines below which nothing is told of it beside the list


class RunsScreen(LabScreen):
    """All runs of the lab."""

    AUTO_FOCUS = "#runs"
    HELP_TITLE = "the list of runs"
    HELP_TEXT = (
        "The filter takes words, fields and numbers:\n"
        f"  {run_filter.EXAMPLE}\n"
        f"  fields: {', '.join(run_filter.FIELDS)}\n"
        "  base:bert is that name alone, base:bert* begins with it, base~bert contains it\n"
        "valid. is the latest validation; the column of a measure is its mean on the test set.\n"
        f"Where room is short, states are their signs alone: {_SIGNS}."
    )
    CSS = """
    RunsScreen #filter-row { height: auto; display: none; background: $surface; }
    RunsScreen #filter-row.-open { display: block; }
    RunsScreen #said { height: auto; padding: 0 1; color: $text-muted; }
    RunsScreen #said.-wrong { color: $error; }
    RunsScreen RunTable { height: 1fr; }
    RunsScreen #hidden { height: auto; padding: 0 1; color: $text-muted; }
    RunsScreen #detail { height: auto; max-height: 16; padding: 0 1; border-top: solid $panel; }
    RunsScreen.-low #detail { max-height: 3; border-top: none; background: $surface; }
    RunsScreen #empty { display: none; height: 1fr; content-align: center middle; text-align: center; }
    RunsScreen.-empty #empty { display: block; }
    RunsScreen.-empty RunTable, RunsScreen.-empty #detail, RunsScreen.-empty #hidden { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "new", id="runs.new", tooltip="Start a new run or a matrix of runs"),
        Binding("enter", "open", "open", id="runs.open", show=False,
                tooltip="Show curves, log and rankings of this run"),
        Binding("space", "mark", "mark", id="runs.mark", tooltip="Mark this run, to overlay or compare it"),
        Binding("m", "compare", "compare", id="runs.compare",
                tooltip="Compare the marked runs; the first one is the baseline"),
        Binding("s", "stop", "stop", id="runs.stop",
                tooltip="Stop this run, or all marked ones, after the current step, with a checkpoint"),
        Binding("r", "resume", "resume", id="runs.resume",
                tooltip="Resume this run, or all marked ones, from the latest checkpoint"),
        Binding("slash", "filter", "filter", key_display="/", id="runs.filter", tooltip=run_filter.EXAMPLE),
        Binding("c", "clone", "clone", id="runs.clone", tooltip="Start a new run with this run's recipe"),
        Binding("o", "sort", "sort", id="runs.sort", show=False, tooltip="Sort by the next column; or click a heading"),
        Binding("O", "turn", "reverse the order", id="runs.turn", show=False),
        Binding("t", "note", "label", id="runs.note", show=False, tooltip="Change label and tags"),
        Binding("N", "edit_note", "note", id="runs.edit-note", show=False,
                tooltip="Write a note on this run, in Markdown, in $VISUAL or $EDITOR"),
        Binding("d", "delete", "delete", id="runs.delete", show=False,
                tooltip="Delete this run, or all marked ones, after a confirmation"),
        Binding("u", "undo", "undo", id="runs.undo", show=False,
                tooltip="Bring back marks that esc removed, or the runs deleted last, which are kept for 7 days"),
        Binding("less_than_sign", "move(-1)", "earlier", key_display="<", id="runs.earlier", show=False,
                tooltip="Start a queued run earlier than the one before it"),
        Binding("greater_than_sign", "move(1)", "later", key_display=">", id="runs.later", show=False),
        Binding("M", "grid", "bases × recipes", id="runs.grid", show=False,
                tooltip="Show the runs as a grid of bases and recipes, with the seeds that are done and their mean"),
        Binding("T", "teachers", "teachers", id="runs.teachers", show=False,
                tooltip="Show the lab's teachers: what they cost, and what their checks found"),
        Binding("z", "fold", "fold seeds and folds", id="runs.fold", show=False,
                tooltip="Show runs that differ in seed or fold alone as one row with mean and standard deviation"),
        Binding("right", "unfold(True)", "show the trials, seeds or folds", id="runs.unfold", show=False),
        Binding("left", "unfold(False)", "fold the trials, seeds or folds", id="runs.fold-here", show=False),
        Binding("C", "columns", "columns", id="runs.columns", show=False, tooltip="Choose the columns of the list"),
        Binding("B", "book", "lab book", id="runs.book", show=False,
                tooltip="Open the lab book: what you plan, decide and find, with verdicts as they were"),
        Binding("y", "copy", "copy", id="runs.copy", show=False, tooltip="Copy the name of the run"),
        Binding("e", "export", "export", id="runs.export", show=False, tooltip="Write the list to a CSV file"),
        Binding("escape", "clear", "clear filter and marks", id="runs.clear", show=False),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._filter = run_filter.parse("")
        self._sort = ("age", True)
        self._had_entries = False
        self._matching = 0  # runs that the filter lets through
        self._settings = RunSettings()
        self._groups = SeedGroups(self._settings)
        self._here_text = ""  # what this machine has for the example; "" until it was looked up
        self._removed_marks: tuple[str, ...] = ()  # by esc; a deletion after it is undone first
        self._unfolded: set[str] = set()  # keys of groups that are shown run by run while seeds are folded

    def compose(self) -> ComposeResult:
        """Lay out bar, filter, table, detail, footer."""
        yield StatusBar()
        with Vertical(id="filter-row"):
            yield LineInput(placeholder=run_filter.EXAMPLE, id="filter")
            yield Static(id="said")
        yield RunTable(id="runs")
        yield Static(id="hidden")
        yield Static(id="detail")
        yield Static(id="empty")
        yield KeyFooter()

    # showing

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Show the runs that pass the filter, in order."""
        self.query_one(StatusBar).title = f"{len(self.lab_app.marked)} marked" if self.lab_app.marked else ""
        matching = [entry for entry in entries if self._filter(entry)]
        self.set_class(not matching, "-empty")
        if bool(entries) != self._had_entries:
            self._had_entries = bool(entries)
            self.refresh_bindings()
        table = self.query_one(RunTable)
        rows = self._rows(matching)
        singles = [entry for entry in rows if entry.sweep is None]
        table.show_settings(self._settings.differing(singles, _MOST_SETTINGS), self._settings)
        table.show(self._ordered(rows), frozenset(self.lab_app.marked))
        if not entries and self.lab_app.has_loaded and not self._here_text:
            self._look_around()
        if not matching:
            self.query_one("#empty", Static).update(self._nothing(entries))
        self._matching = len(matching)
        if self.query_one("#filter-row").has_class("-open"):
            self._show_count()
        self._detail()

    def _show_count(self) -> None:
        """Say beside the filter how many runs it lets through."""
        total = counted(len(self.lab_app.entries), "run")
        self._show_filter_result(f"{self._matching} of {total}", is_wrong=False)

    def _rows(self, entries: list[RunEntry]) -> list[RunEntry]:
        """Return the rows: runs, sweeps, and groups of runs that differ in their seed alone where they are folded."""
        return self._groups.folded(
            entries,
            self._unfolded,
            are_seeds_folded=self.lab_app.state.are_seeds_folded,
            lab=self.lab_app.entries,
        )

    def _ordered(self, rows: list[RunEntry]) -> list[RunEntry]:
        key, is_falling = self._sort
        if key not in run_list.KEYS and not any(key in self._settings.of(entry) for entry in rows):
            key, is_falling = "age", True  # a setting that no run has any more
        return run_list.ordered(rows, key, is_falling=is_falling, settings=self._settings)

    def _nothing(self, entries: tuple[RunEntry, ...]) -> Content:
        if not self.lab_app.has_loaded:
            return content("reading the lab …", "dim")
        if entries:
            return joined("No run matches the filter. ", ("esc", "bold"), " clears it.")
        return stacked(
            content("No runs yet.", "bold"),
            content(""),
            content("cerank fine-tunes a re-ranker in one stage or several on your data,"),
            content("and tells by a paired test whether the second stage was worth it."),
            content(""),
            joined(
                "Press ", ("d", "bold $primary"), " for the example: two stages on the embedded dataset, some minutes;"
            ),
            content(self._here_text, "dim"),
            content(""),
            joined(("n", "bold $primary"), " to choose base models, recipes, data and seeds yourself;"),
            joined(("?", "bold $primary"), " for all keys; or leave (", ("q", "bold $primary"), ") and type"),
            content("cerank run --recipe contrastive-then-distill", "$accent"),
        )

    def _look_around(self) -> None:
        """Look up, in a thread, what this machine has for the example."""
        self._here_text = " "

        def look() -> str:
            from cerank import recipes
            from cerank.app import missing_inputs

            return missing_inputs.what_is_here(recipes.load("contrastive-then-distill").recipe)

        def show(text: str) -> None:
            self._here_text = text
            self.show_runs(self.lab_app.entries)

        self.run_in_thread(look, show, group="here")

    def _detail(self) -> None:
        entry = self.query_one(RunTable).highlighted
        if entry is None:
            return
        detail, height = self.query_one("#detail", Static), self.size.height
        detail.display = height >= _LOWEST
        if height < _TALL:
            first, *others = run_list.brief(entry)
            detail.update(stacked(content(first, "bold"), *map(content, others)))
            return
        rows = [content(entry.verdict.sentence, "bold")] if entry.verdict else []
        rows += [joined((f"{word:>13}  ", "dim"), text) for word, text in run_list.details(entry)]
        detail.update(stacked(*rows))

    def on_resize(self, _: Resize) -> None:
        """Tell more or less of the run under the cursor, as there is room."""
        self.call_after_refresh(self._detail)

    def on_mount(self) -> None:
        """Sort as the user did last."""
        state = self.lab_app.state
        self.query_one(RunTable).hide_columns(state.hidden_columns)
        if state.sort in run_list.KEYS and (state.sort, state.is_falling) != self._sort:
            self._sort = (state.sort, state.is_falling)
            self.query_one(RunTable).sort_by(state.sort, is_falling=state.is_falling)

    def on_run_table_columns_changed(self, event: RunTable.ColumnsChanged) -> None:
        """Name the columns for which there is no room."""
        hidden = event.hidden
        text = f"+{counted(len(hidden), 'column')}: {', '.join(hidden)}" if hidden else ""
        self.query_one("#hidden", Static).update(content(text))
        self.query_one("#hidden").display = bool(hidden)

    def on_row_list_highlighted(self, _: RunTable.Highlighted) -> None:
        """Show what is known of the run under the cursor, once the cursor itself is drawn."""
        self.call_after_refresh(self._detail)

    def on_row_list_selected(self, _: RunTable.Selected) -> None:
        """Open the run."""
        self.action_open()

    # sorting and filtering

    def on_row_list_heading_selected(self, event: RunTable.HeadingSelected) -> None:
        """Sort by the column that was clicked; a second click turns the order."""
        key = event.key
        self._sort_by(key, not self._sort[1] if key == self._sort[0] else key in _FALLS)

    def action_sort(self) -> None:
        """Sort by the next column."""
        keys = run_list.KEYS
        at = keys.index(self._sort[0]) if self._sort[0] in keys else -1
        key = keys[(at + 1) % len(keys)]
        self._sort_by(key, key in _FALLS)

    def action_columns(self) -> None:
        """Ask which columns to show."""
        keys = self.query_one(RunTable).offered
        hidden = self.lab_app.state.hidden_columns
        items = [ChecklistItem(key, content(key)) for key in keys]

        def answered(chosen: tuple[str, ...] | None) -> None:
            if chosen is not None:
                unwanted = tuple(key for key in keys if key not in chosen)
                self.lab_app.remember(hidden_columns=unwanted)
                self.query_one(RunTable).hide_columns(unwanted)

        self.app.push_screen(ChoiceDialog("Columns", items, [key for key in keys if key not in hidden]), answered)

    def action_turn(self) -> None:
        """Turn the order."""
        self._sort_by(self._sort[0], not self._sort[1])

    def _sort_by(self, key: str, is_falling: bool) -> None:
        self._sort = (key, is_falling)
        if key in run_list.KEYS:
            self.lab_app.remember(sort=key, is_falling=is_falling)
        self.query_one(RunTable).sort_by(key, is_falling=is_falling)
        self.show_runs(self.lab_app.entries)

    def action_grid(self) -> None:
        """Show the runs as bases x recipes."""
        from cerank.tui.runs.grid_screen import GridScreen

        opened = [key.removeprefix("sweep ") for key in self._unfolded if key.startswith("sweep ")]
        self.app.push_screen(GridScreen(self.filter_by, opened))

    def action_teachers(self) -> None:
        """Show the lab's teachers."""
        from cerank.tui.screens.teachers_screen import TeachersScreen

        if refusal := self.lab_app.access.refusal("The list of teachers"):
            self.lab_app.show_message(refusal, "warning")
            return
        self.app.push_screen(TeachersScreen())

    def action_fold(self) -> None:
        """Fold runs that differ in their seed alone into one row, or show every run again."""
        self.lab_app.remember(are_seeds_folded=not self.lab_app.state.are_seeds_folded)
        self._unfolded.clear()
        self.show_runs(self.lab_app.entries)

    def action_unfold(self, is_wanted: bool) -> None:
        """Show the runs of the row under the cursor one by one, or fold those of its group again."""
        entry = self.query_one(RunTable).highlighted
        is_of_sweep = entry is not None and bool(entry.sweep or entry.trial)
        if entry is None or not (self.lab_app.state.are_seeds_folded or is_of_sweep):
            return
        key = self._groups.key(entry)
        if is_wanted and entry.members:
            self._unfolded.add(key)
        else:
            self._unfolded.discard(key)
        self.show_runs(self.lab_app.entries)

    def filter_by(self, text: str, sweep: str = "") -> None:
        """Show the runs that a filter lets through, with the filter open, and the trials of a sweep if it is named."""
        self._unfolded |= {f"sweep {sweep}"} if sweep else set()
        self.query_one("#filter-row").add_class("-open")
        self.query_one("#filter", Input).value = text
        self.query_one(RunTable).focus()

    def action_filter(self) -> None:
        """Open the filter."""
        self.query_one("#filter-row").add_class("-open")
        self.query_one("#filter", Input).focus()
        self._show_count()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as one types; while the filter is wrong, the last right one holds."""
        try:
            self._filter = run_filter.parse(event.value)
        except UsageError as error:
            self._show_filter_result(str(error), is_wrong=True)
            return
        self.show_runs(self.lab_app.entries)

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Go back to the list; an empty filter closes."""
        if not self.query_one("#filter", Input).value.strip():
            self.query_one("#filter-row").remove_class("-open")
        self.query_one(RunTable).focus()

    def _show_filter_result(self, text: str, *, is_wrong: bool) -> None:
        result = self.query_one("#said", Static)
        result.set_class(is_wrong, "-wrong")
        result.update(content(text))

    def action_clear(self) -> None:
        """Clear the filter, then the marks."""
        line, row = self.query_one("#filter", Input), self.query_one("#filter-row")
        if row.has_class("-open"):
            with self.prevent(Input.Changed):
                line.value = ""
            self._filter = run_filter.parse("")
            row.remove_class("-open")
            self.query_one(RunTable).focus()
        elif self.lab_app.marked:
            self._removed_marks, self.lab_app.marked = self.lab_app.marked, ()
            self.lab_app.show_message(f"{counted(len(self._removed_marks), 'mark')} removed; u brings back")
        self.show_runs(self.lab_app.entries)

    # acting

    def _here(self) -> RunEntry | None:
        entry = self.query_one(RunTable).highlighted
        if entry is None:
            self.lab_app.show_message("No run is selected.")
        return entry

    def _one_here(self) -> RunEntry | None:
        """Return the run under the cursor for what is done with a single run: a row of a sweep names no trial."""
        entry = self._here()
        if entry is not None and entry.sweep is not None:
            text = f"{entry.sweep.name} is a sweep: Enter shows its trials, to choose one"
            self.lab_app.show_message(text, "warning")
            return None
        return entry

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Offer keys that act on runs only where there are runs."""
        if action in {"mark", "compare", "stop", "resume", "filter", "clone", "sort", "turn", "note", "open"}:
            return bool(self.lab_app.entries) or not self.lab_app.has_loaded
        return True

    def _targets(self) -> list[RunEntry]:
        """Return the runs to act on: the marked ones that are listed, else the one under the cursor."""
        listed = self.query_one(RunTable).listed
        marked = [run for entry in listed for run in entry.runs if run.name in self.lab_app.marked]
        if marked:
            return marked
        entry = self._here()
        return list(entry.runs) if entry is not None else []

    def action_undo(self) -> None:
        """Bring back the marks that were removed last; where none were, the runs that were deleted last."""
        listed = {entry.name for entry in self.lab_app.entries}
        marks = [name for name in self._removed_marks if name in listed and name not in self.lab_app.marked]
        self._removed_marks = ()
        if marks:
            self.lab_app.marked = (*marks, *self.lab_app.marked)
            self.lab_app.show_message(f"{counted(len(marks), 'mark')} brought back")
            return
        run_actions.undo_delete(self)

    def action_new(self) -> None:
        """Open the form of a new run."""
        self.lab_app.open_new()

    def action_open(self) -> None:
        """Open the run under the cursor; of a sweep, its trials; of folds, their comparison with their first stage."""
        entry = self._here()
        if entry is None:
            return
        if entry.sweep is not None:
            self.action_unfold(True)
            return
        if any(run.fold for run in entry.members):
            if all(run.state == "finished" for run in entry.members):
                run_actions.compare_folds(self, entry.members)
                return
            name = entry.short_name or entry.name
            self.lab_app.show_message(f"this is {name} alone: the folds are compared once all have finished")
        from cerank.tui.runs.run_screen import RunScreen

        self.app.push_screen(RunScreen(entry.name))

    def action_mark(self) -> None:
        """Mark the run and go to the next."""
        entry = self._here()
        if entry is not None:
            is_marked = entry.name in self.lab_app.marked
            for run in entry.runs:
                if (run.name in self.lab_app.marked) == is_marked:
                    self.lab_app.toggle_mark(run.name)
            self.query_one(RunTable).action_move_by(1)

    def action_compare(self) -> None:
        """Compare the marked runs."""
        run_actions.compare_marked(self)

    def action_clone(self) -> None:
        """Open the form of a new run, filled in from this one."""
        entry = self._one_here()
        if entry is not None:
            run_actions.clone(self, entry)

    def action_stop(self) -> None:
        """Ask, then stop the run at its next step."""
        entries = self._targets()
        if entries:
            run_actions.stop(self, entries)

    def action_resume(self) -> None:
        """Resume the run."""
        entries = self._targets()
        if entries:
            row = self.query_one(RunTable).highlighted
            is_row_of_sweep = row is not None and row.sweep is not None and entries == list(row.runs)
            run_actions.resume(self, entries, is_named=not is_row_of_sweep)

    def action_delete(self) -> None:
        """Ask, naming what goes, then delete the runs; in an empty lab, go to the example."""
        if self.lab_app.has_loaded and not self.lab_app.entries:
            self.lab_app.open_example()
            return
        entries = self._targets()
        if entries:
            self._removed_marks = ()  # so that u brings back what was done last
            run_actions.delete(self, entries)

    def action_note(self) -> None:
        """Ask for a label and tags."""
        entry = self._one_here()
        if entry is not None:
            run_actions.edit_label(self, entry)

    def action_edit_note(self) -> None:
        """Open the note on the run in the user's editor."""
        entry = self._one_here()
        if entry is not None:
            run_actions.edit_note(self, entry)

    def action_book(self) -> None:
        """Open the lab book."""
        from cerank.tui.runs.book_screen import BookScreen

        if refusal := self.lab_app.access.refusal("The lab book"):
            self.lab_app.show_message(refusal, "warning")
            return
        entry = self.query_one(RunTable).highlighted
        is_judged = entry is not None and entry.verdict is not None
        self.app.push_screen(BookScreen([entry.short_name] if entry is not None and is_judged else []))

    def action_move(self, by: int) -> None:
        """Give a queued run another place."""
        entry = self._here()
        if entry is None:
            return
        queued = [run for run in entry.runs if run.place]
        if not queued:
            self.lab_app.show_message(f"{entry.title} is not queued", "warning")
            return
        entry = min(queued, key=lambda run: run.place)
        self.run_in_thread(
            lambda: self.lab_app.access.move(entry.folder, entry.place + by),
            lambda _: self.lab_app.poll(entry.name),
            group="move",
        )

    def action_copy(self) -> None:
        """Copy the run's name."""
        entry = self._here()
        if entry is not None:
            of = "the sweep's" if entry.sweep is not None else "the run's"
            self.lab_app.copy_text(entry.short_name or entry.name, f"{of} name")

    def action_export(self) -> None:
        """Write the list as it is filtered and sorted."""
        rows = [entry for entry in self.lab_app.entries if self._filter(entry)]
        table = run_list.table(self._ordered(rows))
        name = f"cerank-runs-{datetime.now().astimezone():%Y%m%d-%H%M%S}.csv"
        path = self.lab_app.files / name
        self.run_in_thread(
            lambda: export_comparison.save(written([table], "csv"), path),
            lambda written_path: self.lab_app.show_message(f"wrote {written_path}"),
            group="export",
        )
