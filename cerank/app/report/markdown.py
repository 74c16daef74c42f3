"""A report as Markdown: GitHub's tables, nothing else that acts.

Invariant: no text from outside can end a cell or become markup.
"""

from __future__ import annotations

from cerank.app.report import latex, supplementary_tables
from cerank.app.report.footnotes import marks
from cerank.app.report.report_data import Report, ResultCell, ResultsTable
from cerank.app.report.table_layout import blocks, groups, row_name, value_text
from cerank.text import escapes
from cerank.text.table_data import written


def document(report: Report, *, has_files: bool = False) -> str:
    """Return the whole report.

    Args:
        has_files: whether the curves are files next to it.
    """
    parts = [f"# {escapes.markdown(report.title)}\n", *(f"{escapes.markdown(text)}\n" for text in latex.head(report))]
    parts += [_grid(grid) for grid in report.grids]
    if has_files:
        parts += [
            f"## Curves\n\n![{escapes.markdown(curve.title)}](curves/{curve.name}.svg)\n" for curve in report.curves
        ]
    for side in supplementary_tables.sides(report):
        parts.append(f"## {escapes.markdown(side.title)}\n\n{written([side], 'markdown')}")
    if report.methods is not None:
        parts.append(f"## Methods\n\n{escapes.markdown(report.methods.plain)}\n")
    for title, lines in (("Answers", report.answers), ("Notes", report.notes), ("Not measured yet", report.missing)):
        if lines:
            parts.append(f"## {title}\n\n" + "".join(f"- {escapes.markdown(line)}\n" for line in lines))
    return "\n".join(parts)


def _grid(grid: ResultsTable) -> str:
    parts = [f"## {escapes.markdown(grid.measure)}\n"]
    for columns in blocks(grid.places):
        places = [grid.places[at] for at in columns]
        heads = [f"{escapes.markdown(p.condition.first_stage)}<br>{escapes.markdown(p.heading)}" for p in places]
        rows = [["model", *heads], ["---", *["---:"] * len(columns)]]
        for base, lines in groups(grid):
            for line in lines:
                name = " ".join(escapes.markdown(part) for part in (base, row_name(line.model)) if part)
                name += " (baseline)" if line.is_baseline else ""
                rows.append([name, *(_cell(line.cells[at]) for at in columns)])
        parts.append("".join(f"| {' | '.join(row)} |\n" for row in rows))
    parts.append(" ".join(escapes.markdown(sentence) for sentence in grid.caption) + "\n")
    return "\n".join(parts)


def _cell(cell: ResultCell) -> str:
    text = value_text(cell)
    return (f"**{text}**" if cell.is_best else text) + marks(cell)
