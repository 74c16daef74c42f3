"""How a table of a report is laid out, whatever form it is written in: blocks of columns, groups of rows, values.

Invariant: every column and every row stands in exactly one block and one group, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from cerank.app.report.report_data import Model, Place, ResultCell, ResultLine, ResultsTable

WIDEST = 12  # columns of values beside each other, as in the paper


def blocks(places: Sequence[Place]) -> list[list[int]]:
    """Return places of columns side by side: whole first stages as long as they fit a page."""
    spans = first_spans(places)
    out: list[list[int]] = [[]]
    at = 0
    for _, count in spans:
        for start in range(0, count, WIDEST):
            part = list(range(at + start, at + min(count, start + WIDEST)))
            if out[-1] and len(out[-1]) + len(part) > WIDEST:
                out.append([])
            out[-1] += part
        at += count
    return out


def first_spans(places: Sequence[Place]) -> list[tuple[str, int]]:
    """Return each first stage with the number of neighboring columns it heads."""
    out: list[tuple[str, int]] = []
    for place in places:
        name = place.condition.first_stage
        if out and out[-1][0] == name:
            out[-1] = name, out[-1][1] + 1
        else:
            out.append((name, 1))
    return out


def groups(grid: ResultsTable) -> list[tuple[str, list[ResultLine]]]:
    """Return each base with its rows; the first stage has none."""
    out: list[tuple[str, list[ResultLine]]] = []
    for line in grid.lines:
        if out and out[-1][0] == line.model.base:
            out[-1][1].append(line)
        else:
            out.append((line.model.base, [line]))
    return out


def row_name(model: Model) -> str:
    """Return the name of a row below its base: the recipe, and the run's label where two rows share the recipe."""
    return model.label.removeprefix(f"{model.base} ") if model.base else model.label


def value_text(cell: ResultCell) -> str:
    """Return the mean to four decimals; a dash for what is not there."""
    return "–" if cell.value is None else f"{cell.value:.4f}"
