"""A report as LaTeX: each table by itself to be included (booktabs), and a document that compiles as it is.

Invariant: ASCII only, whatever the labels are; no text from outside can start a command.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import msgspec

from cerank.app.report import supplementary_tables
from cerank.app.report.footnotes import marks as marks_of
from cerank.app.report.paper.methods_text import MethodsText
from cerank.app.report.report_data import Place, Report, ResultCell, ResultLine, ResultsTable
from cerank.app.report.table_layout import blocks, first_spans, groups, row_name, value_text
from cerank.evaluation.compare import Comparison
from cerank.evaluation.comparison_rows import LEGEND
from cerank.runs.layout import plain_name
from cerank.text import escapes
from cerank.text.table_data import TEXTS, Column, Table, rounded

_SIGNS = {
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≈": r"$\approx$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "²": r"$^2$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0327": "c", "\u030c": "v"}
DESCRIBED = "Differences outside the family, without a verdict"
_WIDEST_TEXT = 64  # characters that a text asks room for, at most
_CHARACTER = 0.0066  # of a landscape line, in small type

_PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[landscape,margin=15mm]{geometry}
\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}
\usepackage{booktabs}
\usepackage{array}
\usepackage{longtable}
\usepackage{threeparttable}
\setlength{\parindent}{0pt}
\begin{document}
"""


def escaped(text: str) -> str:
    """Return `text` as ASCII LaTeX: signs as commands, accents as accents, any other character as its number."""
    return "".join(
        _ascii(char) for char in escapes.latex(text).replace("--", "-{}-")
    )  # an option keeps its two strokes


def _ascii(char: str) -> str:
    if char.isascii():
        return char
    if char in _SIGNS:
        return _SIGNS[char]
    parts = unicodedata.normalize("NFD", char)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        letter = {"i": r"\i ", "j": r"\j "}.get(parts[0], parts[0]) if _ACCENTS[parts[1]] != "c" else parts[0]
        return f"\\{_ACCENTS[parts[1]]}{{{letter}}}"
    return rf"$\langle${ord(char):04x}$\rangle$"


# --- the tables of the paper


def table(grid: ResultsTable, *, is_star: bool = False) -> str:
    """Return a floating table to include, with booktabs; too many columns for a page become tables below each other."""
    kind = "table*" if is_star else "table"
    lines = ["% needs \\usepackage{booktabs,threeparttable}", f"\\begin{{{kind}}}[htbp]", "\\centering"]
    lines += ["\\footnotesize", "\\setlength{\\tabcolsep}{5pt}", "\\begin{threeparttable}"]
    lines += [f"\\caption{{{escaped(grid.caption[0])}}}", f"\\label{{tab:{plain_name(grid.measure, 40)}}}"]
    parts = [_tabular(grid, columns) for columns in blocks(grid.places)]
    lines.append("\n\n\\medskip\n".join(parts))
    if grid.caption[1:]:
        notes = [f"\\item {escaped(sentence)}" for sentence in grid.caption[1:]]
        lines += ["\\begin{tablenotes}\\footnotesize", *notes, "\\end{tablenotes}"]
    return "\n".join([*lines, "\\end{threeparttable}", f"\\end{{{kind}}}"]) + "\n"


def differences(comparison: Comparison, measure: str) -> str:
    """Return every difference by one measure with its interval, adjusted p and verdict, and all of its notes."""
    from cerank.app.comparison.export_comparison import short_table

    rows = tuple(row for row in comparison.rows if row.measure == measure)
    conditions = tuple(dict.fromkeys(row.condition for row in rows))
    part = msgspec.structs.replace(comparison, rows=rows, measures=(measure,), conditions=conditions)
    side = _without_empty(short_table(part))
    lines = ["% needs \\usepackage{booktabs,threeparttable}", "\\begin{table}[htbp]", "\\centering", "\\footnotesize"]
    lines += ["\\begin{threeparttable}", f"\\caption{{Differences by {escaped(measure)}}}"]
    lines += [f"\\begin{{tabular}}{{{''.join('l' if c.kind in TEXTS else 'r' for c in side.columns)}}}", "\\toprule"]
    lines += [" & ".join(escaped(column.heading) for column in side.columns) + " \\\\", "\\midrule"]
    for row in side.rows:
        cells = [escaped(rounded(value, column)) for value, column in zip(row, side.columns, strict=True)]
        lines.append(" & ".join(re.sub(r"(?<![\w$-])-(?=[\d.])", "$-$", cell) for cell in cells) + " \\\\")
    notes = [f"\\item {escaped(note)}" for note in side.notes]
    lines += ["\\bottomrule", "\\end{tabular}", "\\begin{tablenotes}\\footnotesize", *notes, "\\end{tablenotes}"]
    return "\n".join([*lines, "\\end{threeparttable}", "\\end{table}"]) + "\n"


def _without_empty(side: Table) -> Table:
    """Return a table of one measure without that column, and without columns and notes that say nothing here."""
    places = [
        at
        for at, column in enumerate(side.columns)
        if column.key != "measure" and any(row[at] not in {None, ""} for row in side.rows)
    ]
    rows = tuple(tuple(row[at] for at in places) for row in side.rows)
    columns = tuple(side.columns[at] for at in places)
    unsaid = {"effect", "wtl"} - {column.key for column in columns}
    notes = tuple(note for note in side.notes if not unsaid or not note.startswith(LEGEND))
    return msgspec.structs.replace(side, columns=columns, rows=rows, notes=notes)


def measures_of(comparison: Comparison) -> tuple[str, ...]:
    """Return the measures of the rows, each once."""
    return tuple(dict.fromkeys(row.measure for row in comparison.rows))


def methods_paragraph(methods: MethodsText) -> str:
    """Return the paragraph on methods, with a \\cite for each reference of `references.bib`."""
    cited = [
        escaped(text.rstrip() if keys else text) + (f"~\\cite{{{','.join(keys)}}}" if keys else "")
        for text, keys in methods.parts
    ]
    return "".join(cited) + "\n"


def _tabular(grid: ResultsTable, columns: Sequence[int]) -> str:
    places = [grid.places[at] for at in columns]
    lines = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule", *_heads(places), "\\midrule"]
    for number, (base, group) in enumerate(groups(grid)):
        if number:
            lines.append("\\midrule")
        if base:
            lines.append(f"\\multicolumn{{{len(columns) + 1}}}{{l}}{{\\textit{{{escaped(base)}}}}} \\\\")
        lines += [_row(line, columns) for line in group]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _heads(places: Sequence[Place]) -> list[str]:
    spans = first_spans(places)
    head = [f"\\multicolumn{{{count}}}{{c}}{{{escaped(first)}}}" for first, count in spans]
    at, rules = 2, []
    for _, count in spans:
        rules.append(f"\\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    tests = [escaped(place.heading) for place in places]
    return [f" & {' & '.join(head)} \\\\", " ".join(rules), f" & {' & '.join(tests)} \\\\"]


def _row(line: ResultLine, columns: Sequence[int]) -> str:
    name = escaped(row_name(line.model))
    if line.is_baseline:
        name += r" {\scriptsize (baseline)}"
    indent = r"\quad " if line.model.base else ""
    return f"{indent}{name} & {' & '.join(_cell(line.cells[at]) for at in columns)} \\\\"


def _cell(cell: ResultCell) -> str:
    text = escaped(value_text(cell))
    shown = f"\\textbf{{{text}}}" if cell.is_best else text
    marks = "".join(_SIGNS[glyph][1:-1] for glyph in marks_of(cell))
    return shown + (f"\\rlap{{$^{{{marks}}}$}}" if marks else "")


# --- the document


def document(report: Report) -> str:
    """Return all tables with the supplementary tables, as a document that compiles with booktabs and longtable."""
    parts = [_PREAMBLE, f"\\section*{{{escaped(report.title)}}}\n"]
    parts += [f"{escaped(text)}\n\n" for text in head(report)]
    parts += _lists(("Answers", report.answers))
    parts += [table(grid) + "\n" for grid in report.grids]
    if report.comparison is not None:
        parts += [differences(report.comparison, name) + "\n" for name in measures_of(report.comparison)]
    parts.append("\\clearpage\n")
    for side in supplementary_tables.sides(report):
        parts.append(_longtable(side))
    if report.methods is not None:
        parts.append(f"\\subsection*{{Methods}}\n{escaped(report.methods.plain)}\n\n")
    parts += _lists((DESCRIBED, report.described), ("Notes", report.notes), ("Not measured yet", report.missing))
    return "".join([*parts, "\\end{document}\n"])


def _lists(*several: tuple[str, tuple[str, ...]]) -> list[str]:
    """Return each list that is not empty under its title."""
    out = []
    for title, lines in several:
        if lines:
            items = "".join(f"\\item[--] {escaped(line)}\n" for line in lines)
            out.append(f"\\subsection*{{{title}}}\n{{\\raggedright\\begin{{itemize}}\n{items}\\end{{itemize}}}}\n")
    return out


def head(report: Report) -> tuple[str, ...]:
    """Return what stands under the title."""
    declared = (
        f"Family: {report.declared}."
        if report.declared
        else "Which tests to make was not fixed before the runs (no matrix); the adjustment counts the tests of this "
        "report only."
    )
    return (declared, f"Made by cerank {report.version}, {report.created}: {report.command}")


def _longtable(side: Table) -> str:
    """Return a table over several pages, its texts in columns that break lines."""
    spec = "".join(_column_spec(*each) for each in zip(_widths(side), side.columns, strict=True))
    heads = " & ".join(f"\\textbf{{{escaped(column.heading)}}}" for column in side.columns)
    lines = [f"\\subsection*{{{escaped(side.title)}}}", "{\\scriptsize\\setlength{\\tabcolsep}{3pt}"]
    lines += [f"\\begin{{longtable}}{{{spec}}}", "\\toprule", f"{heads} \\\\", "\\midrule", "\\endhead"]
    for row in side.rows:
        shown = [_long_cell(rounded(value, column), column) for value, column in zip(row, side.columns, strict=True)]
        lines.append(f"{' & '.join(shown)} \\\\")
    lines += ["\\bottomrule", "\\end{longtable}}"]
    lines += [f"{{\\small {escaped(note)}\\par}}" for note in side.notes]
    return "\n".join(lines) + "\n\n"


def _widths(side: Table) -> list[float]:
    """Return each column's share of the line: what its longest text needs, or its longest word if the line is short."""
    needs = []
    for at, column in enumerate(side.columns):
        words = max(map(len, column.heading.split()))
        cells = [len(rounded(row[at], column)) for row in side.rows]
        heading = len(column.heading) if column.kind in TEXTS else words
        needs.append(min(max(heading, words, *cells), _WIDEST_TEXT))
    room = 0.99 - 0.009 * len(side.columns)
    scale = min(_CHARACTER, room / sum(needs))
    return [need * scale for need in needs]


def _column_spec(width: float, column: Column) -> str:
    side = "right" if column.kind in TEXTS else "left"
    return f">{{\\ragged{side}\\arraybackslash}}p{{{width:.3f}\\linewidth}}"


def _long_cell(text: str, column: Column) -> str:
    if column.kind in TEXTS:
        return breakable(text)
    return f"$-${escaped(text[1:])}" if text.startswith("-") else escaped(text)


def breakable(text: str) -> str:
    """Return `text` escaped, with places where a long word may break."""
    out, since = [], 0
    for char in text:
        out.append(escaped(char))
        since = 0 if char == " " else since + 1
        if since and (char in "/-_.:,=@" or since >= 16):
            out.append("\\allowbreak{}")
            since = 0
    return "".join(out)
