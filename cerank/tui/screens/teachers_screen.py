"""The lab's teachers: declared, made, at work; what each cost, and what its check found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from cerank.app.run_views.display import at_words
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.teaching.lab_teachers import IN_PROCESS, LabTeacher, teachers_of
from cerank.text.safe_text import counted
from cerank.tui.cells import cell, content, joined, stacked
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.theme import state_color

_COLUMNS = ("teacher", "state", "kind", "queries", "failed", "calls", "cost", "check", "tokens")
_COLORS = {"at work": "running", "made": "finished", "declared": "queued"}


class TeachersScreen(LabScreen):
    """A row for each teacher, and below the table what is known of the one under the cursor."""

    AUTO_FOCUS = "#teachers"
    HELP_TITLE = "the lab's teachers"
    HELP_TEXT = (
        "declared: a run's recipe has it in [teachers], and nothing was asked yet.\n"
        "made: its rankings are in the lab; answers are kept, so that no call is paid twice.\n"
        "`cerank teach check NAME --recipe FILE` compares it with the first stage; the verdict is shown here."
    )
    CSS = """
    TeachersScreen #summary { height: 1; padding: 0 1; background: $surface; text-wrap: nowrap;
        text-overflow: ellipsis; }
    TeachersScreen DataTable { height: 1fr; }
    TeachersScreen #teacher { height: auto; max-height: 12; padding: 0 1; border-top: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "table('cursor_down')", "down", show=False, id="teachers.down"),
        Binding("k", "table('cursor_up')", "up", show=False, id="teachers.up"),
        Binding("escape", "back", "back", id="teachers.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._teachers: tuple[LabTeacher, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out bar, table, and the teacher under the cursor."""
        yield StatusBar("teachers")
        yield Static(id="summary")
        yield DataTable(id="teachers", cursor_type="row", zebra_stripes=False)
        yield Static(id="teacher")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Head the table."""
        super().on_mount()
        table: DataTable[Text] = self.query_one("#teachers", DataTable)
        for name in _COLUMNS:
            table.add_column(cell(name), key=name)

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Read the lab's teachers anew, in a thread: the records lie on a disk that may be slow."""
        folder = self.lab_app.lab.folder
        self.run_in_thread(lambda: teachers_of(folder, entries), self._show, group="teachers")

    def _show(self, teachers: tuple[LabTeacher, ...]) -> None:
        """Show the table; the cursor stays on its row's number."""
        self._teachers = teachers
        table: DataTable[Text] = self.query_one("#teachers", DataTable)
        row = table.cursor_row
        table.clear()
        is_dark = self.app.current_theme.dark
        names = Counter(teacher.name for teacher in teachers)
        for teacher in teachers:
            failed = sum(teacher.failed.values())
            table.add_row(
                cell(at_words(_name(teacher, is_alone=names[teacher.name] == 1), 30), "bold"),
                cell(
                    f"{teacher.state} {teacher.done:.0%}" if teacher.job else teacher.state,
                    state_color(_COLORS[teacher.state], is_dark=is_dark),
                ),
                cell(teacher.kind),
                cell(f"{teacher.queries:,}"),
                cell(f"{failed:,}" if failed else ""),
                cell(f"{teacher.calls:,}"),
                cell(_money(teacher.costs)),
                cell(teacher.check.verdict if teacher.check else "–"),
                cell(f"{teacher.tokens:,}"),
            )
        if teachers:
            table.move_cursor(row=min(max(row, 0), len(teachers) - 1))
        costs: dict[str, float] = {}
        paid = [teacher for teacher in teachers if teacher.kind != "ensemble"]  # the calls of one are its members'
        for teacher in paid:
            for currency, cost in teacher.costs.items():
                costs[currency] = costs.get(currency, 0.0) + cost
        spent = _money(costs)
        calls = sum(teacher.calls for teacher in paid)
        facts = [counted(len(teachers), "teacher"), counted(calls, "call"), *([spent] if spent else [])]
        text = "; ".join(facts) if teachers else "No run of this lab declares a teacher; see `cerank guide teachers`."
        self.query_one("#summary", Static).update(content(text))
        self._describe()

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Show what is known of the row's teacher."""
        self._describe()

    def _describe(self) -> None:
        row = self.query_one("#teachers", DataTable).cursor_row
        if not 0 <= row < len(self._teachers):
            self.query_one("#teacher", Static).update("")
            return
        teacher = self._teachers[row]
        lines = [
            joined(
                (f"{teacher.name}: ", "bold"),
                "; ".join(part for part in (teacher.model or teacher.kind, _way(teacher.places)) if part),
            )
        ]
        lines += [content(f"at work: {teacher.job}")] if teacher.job else []
        if teacher.runs:
            lines.append(content(f"declared by {', '.join(teacher.runs[:4])}{' ...' if len(teacher.runs) > 4 else ''}"))
        if teacher.datasets:
            lines.append(content(f"ranked queries of {', '.join(teacher.datasets)}"))
        if teacher.failed:
            lines.append(content("failed: " + ", ".join(f"{count} {why}" for why, count in teacher.failed.items())))
        if teacher.repaired is not None:
            shares = f"{teacher.repaired:.1%} of answers repaired, {teacher.unchanged or 0.0:.1%} in the order given"
            lines.append(content(shares))
        check = teacher.check
        if check is not None:
            what = f"check on {counted(check.queries, 'query')} of {check.dataset}: {check.verdict}, {check.measure} "
            lines.append(content(f"{what}{check.difference:+.3f} to the first stage"))
            lines += [joined(("  ! ", "bold"), warning) for warning in check.warnings[:3]]
        elif teacher.queries:
            lines.append(content(f"not checked: cerank teach check {teacher.name} --recipe FILE", "dim"))
        self.query_one("#teacher", Static).update(stacked(*lines))

    def action_table(self, name: str) -> None:
        """Move the cursor."""
        getattr(self.query_one("#teachers", DataTable), f"action_{name}")()

    def action_back(self) -> None:
        """Go back to the list."""
        self.app.pop_screen()


def _name(teacher: LabTeacher, *, is_alone: bool) -> str:
    """Return a teacher's name; with its host, or else its model, where another one is called so, too."""
    if is_alone:
        return teacher.name
    host = urlsplit(teacher.place).netloc if teacher.place != IN_PROCESS else teacher.model.rpartition("/")[2]
    return f"{teacher.name} {host}"


def _way(places: Sequence[str]) -> str:
    """Return where passages go, in words; "" if it is not known."""
    ways = [f"go to {' and '.join(servers)}"] if (servers := [place for place in places if place != IN_PROCESS]) else []
    ways += ["stay in this process"] if IN_PROCESS in places else []
    return f"passages {' and '.join(ways)}" if ways else ""


def _money(costs: Mapping[str, float]) -> str:
    """Return sums of money by their currencies; "" without any."""
    return ", ".join(f"{costs[currency]:.2f} {currency}" for currency in sorted(costs))
