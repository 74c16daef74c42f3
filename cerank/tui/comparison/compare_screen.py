"""Rankings against a baseline: the table with its verdicts, and the differences query by query.

Invariant: everything is computed in threads by the library; this shows it, or the reason why not, in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import DataTable, Static

from cerank.app import Lab
from cerank.app.comparison import comparison_session, export_comparison
from cerank.app.comparison.comparison_session import ComparisonSession
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.matrix.recipe_form import FieldSpec as FormRow
from cerank.app.run_views import run_list
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import CerankError
from cerank.text.safe_text import counted, shown
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.dialogs import FormDialog, ask_for_file
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.comparison.comparison_table import (
    ComparisonTable,
    ComparisonView,
    brief,
    empty_message,
    error_message,
    explanation,
    view_of,
)
from cerank.tui.comparison.differences import DifferencesChart


class CompareScreen(LabScreen):
    """The comparison of several runs or TREC run files."""

    HELP_TITLE = "the comparison"
    HELP_TEXT = (
        "A verdict rests on the adjusted test: ▲ better, ▼ worse, = equivalent within the margin, ≈ different but\n"
        "within the margin, ? cannot tell. Bars above the line are queries that gained on the baseline."
    )
    CSS = """
    CompareScreen #what { height: 1; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
    CompareScreen #damage { height: auto; padding: 0 1; color: $error; text-style: bold; }
    CompareScreen #table { height: auto; max-height: 50%; scrollbar-size-horizontal: 0; }
    CompareScreen #why { height: auto; max-height: 5; padding: 0 1; }
    CompareScreen #chart { height: 1fr; border-top: solid $panel; }
    CompareScreen #chart:focus { border-top: solid $primary; }
    CompareScreen #notes { height: auto; max-height: 6; padding: 0 1; color: $text-muted; border-top: solid $panel; }
    CompareScreen.-low #notes { max-height: 2; border-top: none; }
    CompareScreen.-low #table { max-height: 40%; }
    CompareScreen #said { display: none; height: 1fr; padding: 1 2; }
    CompareScreen.-said #said { display: block; }
    CompareScreen.-said #table, CompareScreen.-said #chart, CompareScreen.-said #notes,
    CompareScreen.-said #why { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "baseline", "baseline", id="compare.baseline", tooltip="Make the system of this row the baseline"),
        Binding("l", "queries", "queries", id="compare.queries", tooltip="List the queries of this row"),
        Binding("t", "options", "options", id="compare.options",
                tooltip="Change margin, correction, confidence and pairs"),
        Binding("a", "add", "add", id="compare.add", tooltip="Add a TREC run file, a run, or RUN:STAGE"),
        Binding("x", "drop", "remove", show=False, id="compare.drop",
                tooltip="Remove the system of this row"),
        Binding("d", "data", "qrels", id="compare.data", tooltip="Choose dataset or qrels file, and measures"),
        Binding("s", "seeds", "seeds as one system, or apart", show=False, id="compare.seeds",
                tooltip="Take runs that differ in their seed alone as one system, the mean by query; again: apart"),
        Binding("c", "correction", "next correction", show=False, id="compare.correction"),
        Binding("v", "condition", "next condition", show=False, id="compare.condition",
                tooltip="Show the next dataset or first stage"),
        Binding("e", "export", "export", id="compare.export", tooltip="Write a file: .tex, .md, .csv, .tsv or .json"),
        Binding("y", "copy('markdown')", "copy", show=False, id="compare.copy", tooltip="Copy the table as Markdown"),
        Binding("Y", "copy('latex')", "copy LaTeX", show=False, id="compare.copy-latex"),
        Binding("tab", "app.focus_next", "table or chart", show=False, id="compare.other"),
        Binding("escape", "back", "back", id="compare.back"),
    ]  # fmt: skip

    def __init__(self, lab: Lab, targets: Sequence[str], condition: str = "") -> None:
        """A comparison.

        Args:
            lab: whose runs are named.
            targets: what to compare, the baseline first.
            condition: the dataset and first stage to show at first, as tables name it; "" takes the first.
        """
        super().__init__()
        self._wanted = condition
        self.lab = lab
        self.named = ComparisonRequest(targets=tuple(dict.fromkeys(targets)))
        self.baseline = ""  # a label; "" takes the first target
        self.typed: dict[str, str] = {
            "correction": "auto",
            "margin": "",
            "confidence": "0.95",
            "pairs": "baseline",
            "claim": "checkpoints",
        }
        self.shown: ComparisonView | None = None
        self._condition = 0
        self._unfolded: tuple[str, ...] = ()  # the targets before their seeds were folded
        self.bench: ComparisonSession | None = None

    def compose(self) -> ComposeResult:
        """Lay out what is compared, the table, why, the bars, the notes."""
        yield StatusBar("compare")
        yield Static(id="what")
        yield Static(id="damage")
        yield ComparisonTable(id="table")
        yield Static(id="why")
        yield DifferencesChart(id="chart")
        with VerticalScroll(id="notes"):
            yield Static(id="footnotes")
        with Vertical(id="said"):
            yield Static(id="message")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Start measuring."""
        self.query_one(ComparisonTable).focus()
        self.measure()

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Warn of runs whose files changed after they were made."""
        named = run_list.entries_named(self.named.targets, entries)
        damaged = [entry for entry in named if entry.state == "damaged"]
        lines = [content(f"! {entry.short_name or entry.name} is damaged: {entry.why}") for entry in damaged]
        self.query_one("#damage", Static).update(stacked(*lines) if lines else content(""))
        self.query_one("#damage").display = bool(lines)

    # computing

    def measure(self) -> None:
        """Measure the requested rankings again, then compare them."""
        self.bench = None
        self.shown = None
        if len(self.named.targets) < 2:
            self._show_text(empty_message(self.named.targets))
            return
        self._show_text(content(f"measuring {counted(len(self.named.targets), 'ranking')} …", "dim"))
        named, settings, access = self.named, self.lab.settings, self.lab_app.access

        def look() -> ComparisonSession | CerankError:
            try:
                access.bring_targets(named.targets)
                return ComparisonSession(settings, named)
            except CerankError as error:
                return error

        self.run_in_thread(look, self._see_bench, group="measure")

    def _see_bench(self, session: ComparisonSession | CerankError) -> None:
        if isinstance(session, CerankError):
            self._show_error(session)
            return
        self.bench = session
        self.compare()

    def compare(self) -> None:
        """Compare what was measured, by the terms and the baseline chosen."""
        session, baseline, typed = self.bench, self.baseline, dict(self.typed)
        if session is None:
            return

        def look() -> ComparisonView | CerankError:
            try:
                terms, wrong = comparison_session.terms_of(typed, session.measures)
                if wrong:
                    typed["margin"] = ""  # these measures are not compared any more
                    terms, _ = comparison_session.terms_of(typed, session.measures)
                return view_of(session.compare(baseline, terms, now=datetime.now(UTC).isoformat(timespec="seconds")))
            except CerankError as error:
                return error

        self.run_in_thread(look, lambda view: self._see(view) if session is self.bench else None, group="compare")

    def _see(self, view: ComparisonView | CerankError) -> None:
        if isinstance(view, CerankError):
            self._show_error(view)
            return
        self.shown = view
        names = [str(condition) for condition in view.found.conditions]
        if self._wanted in names:
            self._condition = names.index(self._wanted)
        self._wanted = ""  # from here on the user chooses
        self.baseline = view.found.baseline
        self.remove_class("-said")
        self._show_table(view)
        self.query_one("#footnotes", Static).update(stacked(*(content(f"· {note}") for note in view.table.notes)))
        self._show_what()

    # showing

    def _show_what(self) -> None:
        """Show in one line what is compared and by which options: as many whole parts as fit."""
        if self.shown is None:
            self.query_one("#what", Static).update(content(counted(len(self.named.targets), "ranking"), "bold"))
            return
        comparison = self.shown.found
        condition = comparison.conditions[self._condition]
        queries = next(row.paired.n for row in comparison.rows if row.condition == condition)
        against = "every pair" if comparison.terms.pairs == "all" else f"against {brief(comparison.baseline)}"
        margins = ", ".join(f"±{margin.shown} {name}" for name, margin in comparison.terms.margins.items())
        parts = [f"{condition}, {counted(queries, 'query')}"]
        if len(comparison.conditions) > 1:
            parts.append(f"{self._condition + 1} of {len(comparison.conditions)}, v next")
        parts += [against, f"margin {margins or 'none'}", f"correction {comparison.method}"]
        parts += [f"{100 * comparison.terms.confidence:g} %"]
        room = (self.size.width or self.app.size.width) - 2
        fitting_parts: list[str] = []
        for part in parts:
            if len(part) + 3 <= room or not fitting_parts:
                fitting_parts.append(part)
                room -= len(part) + 3
        rest = "".join(f" · {part}" for part in fitting_parts[1:])
        self.query_one("#what", Static).update(joined((fitting_parts[0], "bold"), (rest, "dim"), limit=400))

    def _show_table(self, view: ComparisonView) -> None:
        self._condition %= len(view.found.conditions)
        condition = view.found.conditions[self._condition]
        self.query_one(ComparisonTable).show(view, condition)
        self._show_row()

    def _show_row(self) -> None:
        at, view = self.query_one(ComparisonTable).line, self.shown
        if view is None or at < 0:
            return
        row = view.rows[at]
        self.query_one("#why", Static).update(explanation(view, at, self.query_one(ComparisonTable).hidden))
        chart = self.query_one(DifferencesChart)
        if row is None:
            chart.show((), "", "", "")
            return
        chart.show(view.listed[at], row.left, row.right, f"{row.measure}, {row.right} − {row.left}")

    def _show_text(self, text: Content) -> None:
        self.add_class("-said")
        self.query_one("#message", Static).update(text)
        self._show_what()

    def _show_error(self, error: CerankError) -> None:
        self.shown = None
        self._show_text(error_message(error, self.named.targets))

    # events

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Show the bars of the row."""
        self._show_row()

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        """Go to the bars."""
        self.query_one(DifferencesChart).focus()

    def on_differences_chart_opened(self, event: DifferencesChart.Opened) -> None:
        """Open the query."""
        from cerank.tui.comparison.query_screen import QueryScreen

        at = self.query_one(ComparisonTable).line
        row = self.shown.rows[at] if self.shown else None
        if self.shown and self.bench and row:
            self.app.push_screen(QueryScreen(self.bench, row, self.shown.listed[at], event.at))

    def on_resize(self) -> None:
        """Take columns away, or brings them back."""
        if self.shown:
            self.call_after_refresh(lambda: self._show_table(self.shown) if self.shown else None)

    # actions

    def action_baseline(self) -> None:
        """Make the system of the highlighted row the baseline."""
        label = self.query_one(ComparisonTable).label
        if label and label != self.baseline:
            self.baseline = label
            self.compare()

    def action_seeds(self) -> None:
        """Take the seeds of a recipe as one system, or apart again."""
        if self._unfolded:
            targets, self._unfolded = self._unfolded, ()
            self.measure_by(targets=targets)
            return
        folded = run_list.seeds_folded(self.named.targets, self.lab_app.entries)
        if len(folded) < 2 or folded == self.named.targets:
            self.lab_app.show_message(
                "Folding needs two systems, one of them with several seeds of the same recipe.", "warning"
            )
            return
        self._unfolded = self.named.targets
        self.baseline = ""
        self.measure_by(targets=folded)

    def action_queries(self) -> None:
        """List the queries of the row."""
        from cerank.tui.comparison.query_list import QueryListScreen

        at = self.query_one(ComparisonTable).line
        row = self.shown.rows[at] if self.shown and at >= 0 else None
        if self.shown is None or self.bench is None or row is None:
            self.lab_app.show_message("Choose a row that compares something.", "warning")
            return
        self.app.push_screen(QueryListScreen(self.bench, row, self.shown.listed[at]))

    def action_condition(self) -> None:
        """Show the next dataset or first stage."""
        if self.shown:
            self._condition = (self._condition + 1) % len(self.shown.found.conditions)
            self._show_table(self.shown)
            self._show_what()

    def action_correction(self) -> None:
        """Take the next correction."""
        at = comparison_session.CORRECTIONS.index(self.typed["correction"])
        self.typed["correction"] = comparison_session.CORRECTIONS[(at + 1) % len(comparison_session.CORRECTIONS)]
        self.compare()

    def action_options(self) -> None:
        """Ask for the options of the comparison."""
        typed, measures = self.typed, self.bench.measures if self.bench else ()
        rows = [
            FormRow(
                "correction",
                "correction",
                typed["correction"],
                "over all comparisons shown",
                "",
                comparison_session.CORRECTIONS,
            ),
            FormRow(
                "margin",
                "margin",
                typed["margin"],
                "0.01, or nDCG@10=0.01; smaller counts as equal",
                "numbers",
            ),
            FormRow(
                "confidence",
                "confidence",
                typed["confidence"],
                "confidence level of the intervals",
                "a number between 0 and 1",
            ),
            FormRow(
                "pairs",
                "pairs",
                typed["pairs"],
                "each against the baseline, or every pair",
                "",
                comparison_session.PAIRS,
            ),
            FormRow(
                "claim",
                "claim about",
                typed["claim"],
                "recipes needs several seeds each",
                "",
                comparison_session.CLAIMS,
            ),
        ]

        def keep(texts: dict[str, str] | None) -> None:
            if texts is not None:
                self.typed = texts
                self.compare()

        def wrong(texts: Mapping[str, str]) -> dict[str, str]:
            return comparison_session.terms_of(texts, measures)[1]

        self.app.push_screen(FormDialog("Options of the comparison", rows, wrong), keep)

    def action_add(self) -> None:
        """Ask for another ranking."""
        row = FormRow("target", "ranking", "", "path of a TREC run file, a run's name or label, or RUN:STAGE", "text")

        def keep(texts: dict[str, str] | None) -> None:
            if texts is not None:
                self.measure_by(targets=(*self.named.targets, texts["target"].strip()))

        def wrong(texts: Mapping[str, str]) -> dict[str, str]:
            if self.lab_app.access.is_remote:  # known once its files came
                return {}
            text = comparison_session.target_error(self.lab.folder, texts["target"].strip(), self.named.targets)
            return {"target": text} if text else {}

        self.app.push_screen(FormDialog("Another ranking", [row], wrong), keep)

    def action_drop(self) -> None:
        """Remove the system of the row; the last one named where nothing could be compared."""
        targets = self.named.targets
        if self.shown is not None and len(targets) < 3:
            self.lab_app.show_message("A comparison needs two systems; add another (a) before you remove one.")
            return
        label = self.query_one(ComparisonTable).label
        if self.bench and label in self.bench.labels:
            at = self.bench.labels.index(label)
            self.measure_by(targets=(*targets[:at], *targets[at + 1 :]))
        elif targets:
            self.measure_by(targets=targets[:-1])

    def action_data(self) -> None:
        """Ask on what to measure, and by what."""
        named, measures = self.named, ", ".join(self.named.measures)
        rows = [
            FormRow(
                "dataset", "dataset", named.dataset, "a name or folder; for runs, one of their test datasets", "a name"
            ),
            FormRow("qrels", "qrels", named.qrels, "a qrels file, in place of a dataset", "a path"),
            FormRow("measures", "measures", measures, "such as nDCG@10, AP(rel=2); empty: those of the runs", "names"),
        ]

        def wrong(texts: Mapping[str, str]) -> dict[str, str]:
            return {"qrels": "give a dataset or qrels, not both"} if texts["dataset"] and texts["qrels"] else {}

        def keep(texts: dict[str, str] | None) -> None:
            if texts is not None:
                names = tuple(part.strip() for part in texts["measures"].split(",") if part.strip())
                self.measure_by(dataset=texts["dataset"].strip(), qrels=texts["qrels"].strip(), measures=names)

        self.app.push_screen(FormDialog("Dataset and measures", rows, wrong), keep)

    def measure_by(self, **changed: object) -> None:
        """Change what is compared or measured, and measure anew."""
        self.named = msgspec.structs.replace(self.named, **changed)
        self.measure()

    def action_export(self) -> None:
        """Ask for a file; its ending says in what form."""
        if self.shown is None:
            self.lab_app.show_message("There is nothing to export yet.", "warning")
            return
        comparison = self.shown.found

        def text_for(path: Path) -> str:
            return export_comparison.as_text(comparison, export_comparison.form_named(path.suffix))

        title = "Export the comparison as .tex, .md, .csv, .tsv or .json"
        ask_for_file(
            self,
            title,
            Path.cwd() / export_comparison.suggested(comparison, "latex"),
            text_for,
            export_comparison.ending_error,
        )

    def action_copy(self, form: export_comparison.Form) -> None:
        """Copy the table."""
        if self.shown is None:
            self.lab_app.show_message("There is nothing to copy yet.", "warning")
            return
        text = export_comparison.as_text(self.shown.found, form)
        self.app.copy_to_clipboard(shown(text, 1_000_000, lines=True))
        self.lab_app.show_message(f"Copied as {form}. If your terminal does not support this, press e to export.")

    def action_back(self) -> None:
        """Go from bars or notes to the table, and from the table to the screen before."""
        table = self.query_one(ComparisonTable)
        if self.shown and not table.has_focus:
            table.focus()
            return
        self.dismiss(None)
