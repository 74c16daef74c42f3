"""A comparison's table: its lines with verdicts as sign and word, and what is said where there is no table.

Invariant: the figures are the export's; a narrow table leaves whole columns out and changes none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.content import Content

from cerank.app.comparison import comparison_session, export_comparison
from cerank.app.comparison.comparison_session import QueryDifference
from cerank.errors import CerankError
from cerank.text.table_data import TEXTS, Table, fitting, rounded
from cerank.tui.cells import cell, content, joined, stacked
from cerank.tui.common.fitted_table import FittedTable, fill
from cerank.tui.common.form_fields import fitting_middle

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison, Row
    from cerank.evaluation.systems import Condition

VERDICTS = {  # a sign beside the word, so that no color is needed
    "better": ("▲", "#2CC295"),
    "worse": ("▼", "#FF7A45"),
    "equivalent": ("=", "#56B4E9"),
    "different but negligible": ("≈", "#56B4E9"),
    "cannot tell": ("?", "#8A94A0"),
    "identical": ("≡", "#8A94A0"),
    "descriptive": ("·", "#8A94A0"),
}
_ORDER = ("system", "against", "measure", "verdict", "mean", "difference", "judged", "interval", "wtl",
          "p_corrected", "p", "effect")  # fmt: skip
_PRIORITIES = {"mean": 4, "judged": 3, "interval": 5, "wtl": 2, "p_corrected": 1, "p": 7, "effect": 6}
_NAMES = 30  # cells of a system's name, at least; a longer one loses its middle
_KEY = "bold $primary"


_STAMP = re.compile(r"^\d{4}-\d\d-\d\d-\d{6}-")


def brief(name: str) -> str:
    """Return a system's name; a run's without the time it begins with, for its last four letters are its own."""
    return _STAMP.sub("", name) or name


class ComparisonView(msgspec.Struct, frozen=True):
    """A comparison as it is shown."""

    found: Comparison
    table: Table
    rows: tuple[Row | None, ...]  # one a line of the table; None for the baseline's own
    listed: tuple[tuple[QueryDifference, ...], ...]  # per-query differences of each line
    reasons: tuple[str, ...]
    conditions: tuple[tuple[str, str], ...]  # dataset and first stage of each line
    answers: tuple[str, ...]  # each line's verdict in words; "" for the baseline's own

    def lines_of(self, condition: Condition) -> tuple[int, ...]:
        """Return the lines of the table that are about a condition."""
        names = (condition.dataset, condition.first_stage)
        return tuple(number for number, where in enumerate(self.conditions) if where == names)


def view_of(comparison: Comparison) -> ComparisonView:
    """Return everything that is shown of a comparison, made in one go; imports scipy's readers, so a thread's work."""
    from cerank.evaluation.answers import answers, explain
    from cerank.evaluation.comparison_rows import summary

    known = {
        (row.condition.dataset, row.condition.first_stage, row.measure, row.left, row.right): row
        for row in comparison.rows
    }
    lines = summary(comparison)
    sentences = zip(comparison.rows, answers(comparison), strict=True)
    answer_of = {id(row): answer.with_question for row, answer in sentences}
    rows = tuple(known.get((line.dataset, line.first_stage, line.measure, line.against, line.system)) for line in lines)
    return ComparisonView(
        comparison,
        export_comparison.short_table(comparison),
        rows,
        tuple(comparison_session.differences(comparison, row) if row else () for row in rows),
        tuple(explain(row.judgment, row.limits) if row else "" for row in rows),
        tuple((line.dataset, line.first_stage) for line in lines),
        tuple(answer_of[id(row)] if row else "" for row in rows),
    )


class ComparisonTable(FittedTable):
    """The lines; the one under the cursor is looked at query by query."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "down", show=False, id="table.down"),
        Binding("k", "cursor_up", "up", show=False, id="table.up"),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id, cursor_type="row", cursor_foreground_priority="renderable")
        self._shown: ComparisonView | None = None
        self._lines: tuple[int, ...] = ()
        self.hidden: tuple[str, ...] = ()

    @property
    def line(self) -> int:
        """Return the number of the highlighted line of the comparison's table; -1 for none."""
        return self._lines[self.cursor_row] if 0 <= self.cursor_row < len(self._lines) else -1

    @property
    def label(self) -> str:
        """Return the system of the highlighted line; "" for none."""
        if self._shown is None or self.line < 0:
            return ""
        row = self._shown.rows[self.line]
        return row.right if row else self._shown.found.baseline

    def show(self, view: ComparisonView, condition: Condition) -> None:
        """Show the lines of one condition, the cursor on the first that compares something.

        Columns are shown whole, as many as fit; `hidden` are the keys of the others.
        """
        at, self._shown, self._lines = self.cursor_row, view, ()
        width = self.size.width or self.app.size.width
        columns = {column.key: (place, column) for place, column in enumerate(view.table.columns)}
        shown = [columns[key] for key in _ORDER if key in columns]
        lines = view.lines_of(condition)
        heads = [cell(column.heading, "bold", is_right=column.kind not in TEXTS) for _, column in shown]
        rows = []
        for number in lines:
            line, row = view.table.rows[number], view.rows[number]
            cells = []
            for place, column in shown:
                text = rounded(line[place], column)
                if column.key == "verdict":
                    cells.append(verdict(text))
                elif column.key == "system":
                    name = fitting_middle(brief(text), max(_NAMES, width // 3))
                    cells.append(cell(f"{' ' if row else '◆'} {name}", "" if row else "bold"))
                else:
                    cells.append(cell(text, is_right=column.kind not in TEXTS))
            rows.append(cells)
        sizes = [max(text.cell_len for text in (head, *(row[at] for row in rows))) for at, head in enumerate(heads)]
        ranked = [msgspec.structs.replace(column, priority=_PRIORITIES.get(column.key, 0)) for _, column in shown]
        fitting_places = fitting(ranked, sizes, width - 2 * self.cell_padding, 2 * self.cell_padding)
        self.hidden = tuple(column.key for at, (_, column) in enumerate(shown) if at not in fitting_places)
        fill(self, [heads[at] for at in fitting_places], [[row[at] for at in fitting_places] for row in rows])
        self._lines = lines
        first = next((place for place, number in enumerate(lines) if view.rows[number]), 0)
        self.move_cursor(row=at if 0 < at < len(lines) else first)


def explanation(view: ComparisonView, line: int, hidden: Sequence[str]) -> Content:
    """Return what the verdict of a line rests on, after the figures for which the table has no room."""
    row = view.rows[line]
    if row is None:
        return content("the baseline; the other rows are compared with it", "dim")
    figures = [
        f"{column.heading} {text}"
        for column, value in zip(view.table.columns, view.table.rows[line], strict=True)
        if column.key in hidden and (text := rounded(value, column))
    ]
    who = f"{fitting_middle(brief(row.right), 32)} against {fitting_middle(brief(row.left), 32)}, {row.measure}: "
    return joined((", ".join(figures) + ". " if figures else who, "bold"), view.answers[line])


def verdict(text: str) -> Text:
    """Return a verdict, as `report.shown_verdict` writes it, with its sign and color; "" is the baseline's."""
    if not text:
        return cell("◆ baseline", "dim")
    kind = "different but negligible" if "but by less than" in text else text
    signs = (sign_and_color for name, sign_and_color in VERDICTS.items() if kind.startswith(name))
    sign, color = next(signs, VERDICTS["descriptive"])
    return cell(f"{sign} {text}", f"bold {color}")


def empty_message(targets: Sequence[str]) -> Content:
    """Return what to do where there is nothing to compare."""
    return stacked(
        content(f"Only {targets[0]} so far." if targets else "Nothing to compare yet.", "bold"),
        content(""),
        joined("Press ", ("a", _KEY), " to add a run or a TREC run file, ", ("d", _KEY), " to name dataset or qrels,"),
        joined("or go back (", ("esc", _KEY), "), mark runs with ", ("space", _KEY), ", and press ", ("m", _KEY), "."),
    )


def error_message(error: CerankError, targets: Sequence[str]) -> Content:
    """Return why there is no comparison, and what can be done about it."""
    lines = [joined(("✖ cannot compare: ", "bold $error"), error.what)]
    lines += [joined(("at ", "dim"), error.where)] if error.where else []
    lines += [joined(("hint: ", "dim"), error.hint)] if error.hint else []
    lines += [content(""), content("Rankings:", "dim")]
    lines += [content(f"  {number}. {text}") for number, text in enumerate(targets, 1)]
    data = (("d", _KEY), " dataset, qrels, measures  ", ("t", _KEY), " options")
    keys = joined(("a", _KEY), " add  ", ("x", _KEY), " remove the last  ", *data)
    return stacked(*lines, content(""), keys)
