"""A report as one HTML page that needs nothing else: no script, no font, no picture from anywhere, light and dark.

Invariant: all text is escaped, and the page forbids itself to load or run anything (Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Sequence

from cerank.app.report import latex, supplementary_tables
from cerank.app.report.footnotes import GLYPHS, marks
from cerank.app.report.report_data import Place, Report, ResultCell, ResultLine, ResultsTable
from cerank.app.report.table_layout import blocks, first_spans, groups, row_name, value_text
from cerank.evaluation.answers import explain
from cerank.text.escapes import html
from cerank.text.table_data import TEXTS, Table, rounded

STYLE = """
:root{color-scheme:light dark;--ink:#1b1b1b;--soft:#5c5c5c;--paper:#fff;--line:#d5d5d5;--band:#f6f6f4;--up:#00674b;
--down:#a63d00;--same:#5c4a8a}
@media(prefers-color-scheme:dark){:root{--ink:#ececec;--soft:#a8a8a8;--paper:#161616;--line:#3b3b3b;--band:#1f1f1f;
--up:#4fd1a5;--down:#ff9d66;--same:#c3b1f0}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:76rem;
padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p,li{max-width:70rem}.soft,figcaption{color:var(--soft);font-size:.88rem}
.wide{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .6rem;text-align:left;vertical-align:top}
th{font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}
thead th.span{text-align:center;border-bottom:1px solid var(--line)}
table>thead{border-top:2px solid var(--ink);border-bottom:1px solid var(--ink)}
table>tbody:last-child{border-bottom:2px solid var(--ink)}tbody+tbody{border-top:1px solid var(--line)}
tr.base th{font-style:italic;font-weight:400;padding-top:.4rem}tbody tr:hover{background:var(--band)}
td.in{padding-left:1.6rem}.up{color:var(--up)}.down{color:var(--down)}.same{color:var(--same)}
.sign{display:inline-block;min-width:1.4em;padding-left:.15em;text-align:left}
td.t{max-width:34rem;overflow-wrap:anywhere}figure{margin:1rem 0}svg{max-width:100%;height:auto}
code{font-size:.85em;overflow-wrap:anywhere}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_TONE = {"↑": "up", "↓": "down", "≈": "same", "≈↑": "same", "≈↓": "same", "": ""}
_LONG = 40  # characters from which a text may break anywhere


def document(report: Report) -> str:
    """Return the whole report as one page."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{html(report.title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html(report.title)}</h1>",
        *(f'<p class="soft">{html(text)}</p>' for text in latex.head(report)),
    ]
    reasons = _reasons(report)
    parts.append(_list("Answers", report.answers))
    parts += [_grid(grid, reasons) for grid in report.grids]
    if report.curves:
        parts.append("<h2>Curves</h2>")
        parts += [
            f"<figure>{curve.svg}<figcaption>{html(curve.title)}</figcaption></figure>" for curve in report.curves
        ]
    parts += [_side(side) for side in (*supplementary_tables.sides(report), supplementary_tables.sources(report))]
    if report.methods is not None:
        parts.append(f"<h2>Methods</h2><p>{html(report.methods.plain)}</p>")
    parts += [
        _list(latex.DESCRIBED, report.described),
        _list("Notes", report.notes),
        _list("Not measured yet", report.missing),
    ]
    return "\n".join([*(part for part in parts if part), "</body></html>"]) + "\n"


# --- the tables of the paper

_Reasons = dict[tuple[str, str, str], str]


def _reasons(report: Report) -> _Reasons:
    """Return what each verdict rests on, by model, measure and condition."""
    rows = report.comparison.rows if report.comparison else ()
    return {(row.right, row.measure, str(row.condition)): explain(row.judgment, row.limits) for row in rows}


def _grid(grid: ResultsTable, reasons: _Reasons) -> str:
    bodies = []
    for columns in blocks(grid.places):
        rows = [_heads([grid.places[at] for at in columns])]
        for base, lines in groups(grid):
            inner = [f'<tr class="base"><th colspan="{len(columns) + 1}">{html(base)}</th></tr>'] if base else []
            inner += [_row(grid, line, columns, reasons) for line in lines]
            rows.append(f"<tbody>{''.join(inner)}</tbody>")
        bodies.append(f'<div class="wide"><table>{"".join(rows)}</table></div>')
    caption = html(" ".join(grid.caption))
    return f'<h2>{html(grid.measure)}</h2>{"".join(bodies)}<p class="soft">{caption}</p>'


def _heads(places: Sequence[Place]) -> str:
    spans = "".join(f'<th class="span" colspan="{count}">{html(name)}</th>' for name, count in first_spans(places))
    tests = "".join(f'<th class="n">{html(place.heading)}<span class="sign"></span></th>' for place in places)
    return f"<thead><tr><th></th>{spans}</tr><tr><th>model</th>{tests}</tr></thead>"


def _row(grid: ResultsTable, line: ResultLine, columns: Sequence[int], reasons: _Reasons) -> str:
    name = html(row_name(line.model))
    mark = ' <span class="soft">(baseline)</span>' if line.is_baseline else ""
    cells = []
    for at in columns:
        cell, place = line.cells[at], grid.places[at]
        cells.append(_cell(cell, reasons.get((line.model.label, cell.measure, str(place.condition)), "")))
    return f'<tr><td class="{"in" if line.model.base else ""}">{name}{mark}</td>{"".join(cells)}</tr>'


def _cell(cell: ResultCell, reason: str) -> str:
    text = html(value_text(cell))
    glyph = GLYPHS[cell.sign]
    shown = f"<b>{text}</b>" if cell.is_best else text
    hint = f' title="{html(reason)}"' if reason else ""
    return f'<td class="n"{hint}>{shown}<span class="sign {_TONE[glyph]}">{marks(cell)}</span></td>'


# --- beside them


def _side(side: Table) -> str:
    heads = "".join(f'<th class="{_kind(column.kind)}">{html(column.heading)}</th>' for column in side.columns)
    rows = []
    for row in side.rows:
        cells = []
        for value, column in zip(row, side.columns, strict=True):
            text = rounded(value, column)
            kind = "t" if column.kind in TEXTS and len(text) > _LONG else _kind(column.kind)
            cells.append(f'<td class="{kind}">{html(text)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f'<p class="soft">{html(note)}</p>' for note in side.notes)
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h2>{html(side.title)}</h2><div class="wide">{body}</div>{notes}'


def _kind(kind: str) -> str:
    return "" if kind in TEXTS else "n"


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if lines else ""
