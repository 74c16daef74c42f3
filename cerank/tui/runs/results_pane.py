"""A run's own table: each stage against the one before it and the first stage, with the answer in words above.

Invariant: where there is no table, the pane says why, and never that one is on its way when none is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import DataTable, Static

from cerank.app.comparison import export_comparison
from cerank.app.comparison.named_systems import FIRST_STAGE, systems_of
from cerank.app.run_views import rankings_view
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import CerankError
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.fitted_table import TableView
from cerank.tui.comparison.comparison_table import verdict
from cerank.tui.runs.run_pane import RunPane

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison


class VerdictTable(TableView):
    """The table, with a sign beside each verdict."""

    def made(self, text: str, column: Column) -> Text:
        """Return a cell; a verdict has its sign and color, and is short where the screen is narrow."""
        if column.key != "verdict" or not text:
            return super().made(text, column)
        made = verdict(text)
        if self.app.size.width < 100 and len(made.plain) > len("? cannot tell"):
            made.plain = "≈ negligible"
        return made


class ResultsView(msgspec.Struct, frozen=True):
    """The comparison of a run as the pane shows it: tables, answers and reasons."""

    comparison: Comparison
    tables: tuple[Table, ...]  # one for each test dataset and first stage
    answers: tuple[tuple[str, ...], ...]  # beside each table, those on its dataset first
    reasons: tuple[str, ...]


class ResultsPane(RunPane):
    """The comparison of a run's stages; measured again from the files in a thread."""

    DEFAULT_CSS = """
    ResultsPane #title { height: auto; padding: 0 1; }
    ResultsPane #answer { height: auto; max-height: 40%; padding: 0 1; }
    ResultsPane VerdictTable { height: auto; max-height: 60%; }
    ResultsPane #hidden { height: auto; padding: 0 1; color: $text-muted; }
    ResultsPane VerticalScroll { padding: 1; height: 1fr; }
    ResultsPane.-empty VerdictTable, ResultsPane.-empty VerticalScroll { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "query by query", id="results.open",
                tooltip="Compare the two systems of this row query by query"),
        Binding("b", "baseline", "baseline", id="results.baseline",
                tooltip="Compare all stages with the system of this row"),
        Binding("v", "condition", "next dataset", id="results.condition", show=False,
                tooltip="Show the next test dataset or first stage"),
    ]  # fmt: skip
    can_focus = True

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id, classes="-empty")
        self._view: ResultsView | None = None
        self._key: tuple[str, str, str] | None = None
        self._condition = 0

    def compose(self) -> ComposeResult:
        """Lay out title, answer, table, and what it rests on."""
        yield Static(id="title")
        yield Static(id="answer")
        yield VerdictTable(id="results")
        yield Static(id="hidden")
        with VerticalScroll(can_focus=False):
            yield Static(id="notes")

    def clear_entry(self) -> None:
        """Empty the pane for another run."""
        self._key, self._view, self._condition = None, None, 0
        self._show_text(content(""))

    def update_entry(self, entry: RunEntry) -> None:
        """Compare when the run came a stage further."""
        key = (entry.name, entry.state, entry.stage)
        if key == self._key:
            return
        self._key = key
        if entry.plan is None:
            self._show_text(joined(("The plan of this run cannot be read: ", "bold $error"), entry.why))
            return
        if not rankings_view.choices(entry.folder, entry.plan):
            self._show_text(_why_empty(entry))
            return
        if self._view is None:
            self._show_text(content("comparing its stages …", "dim"))
        settings = self.lab_app.lab.settings
        self.lab_app.run_in_thread(lambda: _compared(entry, settings), self._show_results, node=self, group="results")

    def _show_text(self, text: Content) -> None:
        """Show a text and no table."""
        self.add_class("-empty")
        self._view = None
        self.query_one("#title", Static).update(content("") + text)
        for name in ("#answer", "#hidden", "#notes"):
            self.query_one(name, Static).update(content(""))

    def _show_results(self, results: ResultsView | CerankError) -> None:
        entry = self.entry
        if isinstance(results, CerankError):
            self._show_text(_why_refused(results, entry) if entry else content(results.what))
            return
        is_first, self._view = self._view is None, results
        self.remove_class("-empty")
        rows = [content(line) for line in results.reasons]
        rows += [content(""), *(content(line, "dim") for line in results.tables[-1].notes)]
        self.query_one("#notes", Static).update(stacked(*rows))
        self._lay_out()
        if is_first and self.has_focus:
            self.query_one(VerdictTable).focus()

    def _lay_out(self) -> None:
        """Show whole columns, as many as fit, and name the others."""
        if self._view is None:
            return
        table, tables = self._table(self._view), self._view.tables
        more = f"  ({self._condition % len(tables) + 1} of {len(tables)}, v shows the next)" if len(tables) > 1 else ""
        entry, warning = self.entry, []
        if entry is not None and entry.state == "damaged":
            warning = [joined(("! Files of this run changed after it was made: ", "bold $error"), entry.why)]
        answers = self._view.answers[self._condition % len(tables)]
        self.query_one("#answer", Static).update(stacked(*warning, *map(content, answers)))
        self.query_one("#title", Static).update(joined((table.title, "bold"), (more, "dim")))
        hidden = self.query_one(VerdictTable).show(table, self.size.width or self.app.size.width)
        note = f"+{counted(len(hidden), 'column')}: {', '.join(hidden)}; e writes the whole table" if hidden else ""
        self.query_one("#hidden", Static).update(content(note))

    def _table(self, view: ResultsView) -> Table:
        """Return the table of the dataset in front: stage against stage, then against the first stage.

        A measure that is the same in all rows moves to the title.
        """
        table = view.tables[self._condition % len(view.tables)]
        baselines = self.entry.plan.recipe.untrained_systems() if self.entry and self.entry.plan else ()
        order = {FIRST_STAGE: 1, **dict.fromkeys(baselines, 2), "": 3}
        rows = sorted(table.rows, key=lambda row: order.get(str(row[1]), 0))
        columns = [
            msgspec.structs.replace(column, priority=1) if column.key == "mean" else column for column in table.columns
        ]
        table = msgspec.structs.replace(table, columns=tuple(columns))
        keys = [column.key for column in columns]
        measures = {row[keys.index("measure")] for row in rows}
        if len(measures) > 1:
            return msgspec.structs.replace(table, rows=tuple(rows))
        places = [place for place, key in enumerate(keys) if key != "measure"]
        return msgspec.structs.replace(
            table,
            title=f"{table.title}, {measures.pop()}",
            columns=tuple(table.columns[place] for place in places),
            rows=tuple(tuple(row[place] for place in places) for row in rows),
        )

    def on_resize(self) -> None:
        """Take columns away, or bring them back."""
        self._lay_out()

    def on_focus(self) -> None:
        """Give the focus to the table, once there is one."""
        if self._view is not None:
            self.query_one(VerdictTable).focus()

    # actions

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Compare the two systems of the row."""
        event.stop()
        self.action_open()

    def _systems(self) -> tuple[str, str] | None:
        """Return the systems of the row under the cursor, its baseline first."""
        if self._view is None or self.entry is None:
            return None
        row = self._table(self._view).rows[self.query_one(VerdictTable).cursor_row]
        return str(row[1] or FIRST_STAGE), str(row[0])

    @property
    def _shown_condition(self) -> str:
        """The dataset and first stage of the table in front, as tables name it; "" where there is none."""
        conditions = self._view.comparison.conditions if self._view else ()
        return str(conditions[self._condition % len(conditions)]) if conditions else ""

    def action_open(self) -> None:
        """Compare the two systems of the row query by query."""
        systems = self._systems()
        if systems is None or self.entry is None:
            self.lab_app.show_message("There is nothing to compare yet.", "warning")
        elif systems[0] == systems[1]:
            self.lab_app.show_message("The first stage is the baseline of the other rows. Choose one of those.")
        else:
            run = self.entry.short_name or self.entry.name
            self.lab_app.open_compare([f"{run}:{system}" for system in systems], self._shown_condition)

    def action_baseline(self) -> None:
        """Compare all stages with the system of the row."""
        systems = self._systems()
        if systems is None or self.entry is None or self.entry.plan is None:
            self.lab_app.show_message("There is nothing to compare yet.", "warning")
            return
        run, baseline = self.entry.short_name or self.entry.name, systems[1]
        others = [system for system in systems_of(self.entry.plan) if system != baseline]
        self.lab_app.open_compare([f"{run}:{system}" for system in (baseline, *others)], self._shown_condition)

    def action_condition(self) -> None:
        """Show the next test dataset or first stage."""
        self._condition += 1
        self._lay_out()

    def copied(self) -> tuple[str, str] | None:
        """Return the table as Markdown."""
        if self._view is None:
            return None
        return export_comparison.as_text(self._view.comparison, "markdown"), "the table as Markdown"

    def exported(self) -> tuple[str, str] | None:
        """Return the table as LaTeX; the comparison screen writes the other forms."""
        if self._view is None:
            return None
        return export_comparison.as_text(self._view.comparison, "latex"), f"{self.shown_run}.tex"


def _compared(entry: RunEntry, settings: Settings) -> ResultsView | CerankError:
    """Return a run's results, which count as a look at its test sets."""
    from cerank.app.comparison import recorded_looks, run_answer
    from cerank.evaluation.answers import paragraphs
    from cerank.evaluation.comparison_rows import reasons

    try:
        answer = run_answer.of_run(entry.folder)
    except CerankError as error:
        return error
    recorded_looks.record_shown(settings, [answer.comparison], by="dashboard", pooled=answer.pooled)
    tables = export_comparison.by_stage(answer.comparison)
    every, answers = answer.paragraphs, []
    for condition in answer.comparison.conditions:
        here = paragraphs(msgspec.structs.replace(answer.comparison, conditions=(condition,)), answer.by_stage)
        answers.append((*here, *(text for text in every if text not in here)))
    return ResultsView(answer.comparison, tables, tuple(answers), reasons(answer.comparison))


def _why_empty(entry: RunEntry) -> Content:
    """Return why a run has no rankings: it has not come that far, or they are gone."""
    if entry.status.done is None:
        next_step = {
            "waiting": "It was never started; r starts it.",
            "queued": f"It waits in the queue ({entry.at}).",
            "paused": "It is paused; r resumes it.",
            "lost": "Its worker died; r resumes it.",
            "failed": f"It failed: {entry.why}",
        }.get(entry.state, "The table will appear here.")
        return content(f"Nothing has been re-ranked and measured yet. {next_step}", "dim")
    name = entry.short_name or entry.name
    if entry.plan is not None and not entry.plan.recipe.data.test:
        return content("A trial of a sweep, measured on validation alone: it has no test set.", "dim")
    return stacked(
        joined(("The rankings of this run are gone: ", "bold $error"), entry.why or "its folder rankings is empty"),
        content(f"cerank verify {name} lists what is missing; c makes a new run of its recipe; d deletes it.", "dim"),
    )


def _why_refused(error: CerankError, entry: RunEntry) -> Content:
    """Return why a run's rankings cannot be compared, and what to do."""
    name = entry.short_name or entry.name
    return stacked(
        joined(("These results cannot be shown: ", "bold $error"), error.what),
        *([joined(("at ", "dim"), error.where.replace(f"{entry.folder.path}/", ""))] if error.where else []),
        *([content(error.hint)] if error.hint else []),
        content(f"cerank verify {name} checks every file; c makes a new run of its recipe; d deletes it.", "dim"),
    )
