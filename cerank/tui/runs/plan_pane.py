"""A run's plan as TOML, and what differs from the plan of a marked run."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from cerank.app import plan_view
from cerank.app.run_views.run_monitor import RunEntry
from cerank.text.safe_text import counted
from cerank.tui.cells import cell, content, joined
from cerank.tui.common.fitted_table import FittedTable, fill
from cerank.tui.runs.run_pane import RunPane

_LONGEST = 40_000  # characters of a plan


class PlanPane(RunPane):
    """The plan; above it the differences, where another run is marked."""

    DEFAULT_CSS = """
    PlanPane #against { height: auto; padding: 0 1; color: $text-muted; }
    PlanPane DataTable { height: auto; max-height: 50%; display: none; margin-bottom: 1; }
    PlanPane DataTable.-there { display: block; }
    PlanPane VerticalScroll { padding: 0 1; height: 1fr; }
    """

    def compose(self) -> ComposeResult:
        """Lay out what it is compared with, the differences, the plan."""
        yield Static(id="against")
        yield FittedTable(cursor_type="row", id="differences")
        with VerticalScroll(classes="front"):
            yield Static(id="plan")

    def update_entry(self, entry: RunEntry) -> None:
        """Show the plan and its differences from the first other marked run."""
        known = {run.name: run for run in self.lab_app.entries}
        other = next((known[name] for name in self.lab_app.marked if name in known and name != entry.name), None)
        mark = (entry.name, other.name if other else "")
        if mark == getattr(self, "_mark", None):
            return
        self._mark = mark
        plan_text = content("The plan of this run cannot be read: " + entry.why, "$error")
        if entry.plan is not None:
            plan_text = content(plan_view.text(entry.plan), limit=_LONGEST, lines=True)
        self.query_one("#plan", Static).update(content("") + plan_text)
        self.call_after_refresh(self._compare, entry, other)  # a table filled before it is laid out stays hidden

    def _compare(self, entry: RunEntry, other: RunEntry | None) -> None:
        table = self.query_one("#differences", DataTable)
        against = self.query_one("#against", Static)
        is_there = other is not None and other.plan is not None and entry.plan is not None
        table.set_class(is_there, "-there")
        if other is None or other.plan is None or entry.plan is None:
            against.update(content("mark another run with space to see what differs", "dim"))
            return
        rows = plan_view.differences(entry.plan, other.plan)
        against.update(joined(f"{counted(len(rows), 'setting')} different from ", (other.title, "bold")))
        headings = [cell(name, limit=30) for name in ("setting", entry.title, other.title)]
        fill(table, headings, [(cell(row.key), cell(row.one, limit=60), cell(row.other, limit=60)) for row in rows])

    def copied(self) -> tuple[str, str] | None:
        """Return the plan as TOML."""
        if self.entry is None or self.entry.plan is None:
            return None
        return plan_view.text(self.entry.plan), "the plan"

    def exported(self) -> tuple[str, str] | None:
        """Return the plan as TOML."""
        copied = self.copied()
        return (copied[0], f"{self.shown_run}-plan.toml") if copied else None
