"""A report on the disk, or as one text: HTML, Markdown, LaTeX, CSV, the curves, and what every figure comes from.

Invariant: a folder appears whole or not at all, and its report.json holds every value and the hash of every file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, get_args

import msgspec

from cerank.app.comparison import export_comparison, letters_table
from cerank.app.report import html, latex, markdown, provenance, supplementary_tables
from cerank.app.report.report_data import Report
from cerank.errors import UsageError
from cerank.files import disk
from cerank.registry import nearest
from cerank.runs.layout import plain_name
from cerank.text import escapes
from cerank.text.table_data import written

Form = Literal["html", "markdown", "latex", "csv"]
FORMS: tuple[Form, ...] = get_args(Form)
MARK = "report.json"  # tells a folder of ours from any other


def form_named(name: str) -> Form:
    """Return the form the user means.

    Raises:
        UsageError: there is none.
    """
    for form in FORMS:
        if name.lower() == form:
            return form
    raise UsageError(
        f"no report format is called '{name}'", where="--format", hint=nearest(name, FORMS), code="unknown-format"
    )


def as_text(report: Report, form: Form) -> str:
    """Return the report in one text; csv holds the cells of its tables only."""
    if form == "html":
        return html.document(report)
    if form == "latex":
        return latex.document(report)
    return markdown.document(report) if form == "markdown" else written([supplementary_tables.cells(report)], "csv")


def folder_error(folder: Path, *, replace: bool = False) -> str:
    """Return what keeps a report from being written there; "" for nothing."""
    if "\0" in str(folder):
        return "not the name of a folder"
    target = folder.expanduser().absolute()
    if not target.parent.is_dir():
        return "the folder above it does not exist"
    if not target.exists():
        return ""
    if not target.is_dir() or not (target / MARK).is_file():
        return "already exists and is not a report; give another name"
    return "" if replace else "already holds a report; --replace overwrites it"


def save(report: Report, folder: Path, forms: tuple[Form, ...] = FORMS, *, replace: bool = False) -> Path:
    """Write the report's folder and return its absolute path.

    Raises:
        UsageError: something stands there that is no report, or a report, without `replace`.
        RunFailedError: the disk refuses.
    """
    if mistake := folder_error(folder, replace=replace):
        raise UsageError(mistake, where=str(folder), code="report-folder")
    target = folder.expanduser().absolute()
    aside = disk.quarantine(target) if target.exists() else None
    with disk.new_folder(target) as inside:
        _fill(report, inside, forms)
    if aside is not None:
        disk.remove_tree(aside)
    return target


def _fill(report: Report, folder: Path, forms: tuple[Form, ...]) -> None:
    texts: dict[str, str] = {}
    if "html" in forms:
        texts["report.html"] = html.document(report)
    if "markdown" in forms:
        texts["report.md"] = markdown.document(report, has_files=True)
    if "latex" in forms:
        texts["report.tex"] = latex.document(report)
        texts |= {f"tables/table-{plain_name(grid.measure, 40)}.tex": latex.table(grid) for grid in report.grids}
        if report.comparison is not None:
            texts |= {
                f"tables/differences-{plain_name(name, 40)}.tex": latex.differences(report.comparison, name)
                for name in latex.measures_of(report.comparison)
            }
            texts["tables/letters.tex"] = letters_table.latex(report.comparison)
        if report.methods is not None:
            texts["methods.tex"] = latex.methods_paragraph(report.methods)
            texts["references.bib"] = report.methods.bibliography
    if "csv" in forms:
        texts["cells.csv"] = as_text(report, "csv")
        texts |= _comparisons(report)
        texts |= {
            f"{side.name}.csv": written([side], "csv")
            for side in (*supplementary_tables.sides(report), supplementary_tables.sources(report))
        }
    texts |= {f"curves/{curve.name}.svg": curve.svg for curve in report.curves}
    texts |= {provenance.recipe_file(run.run): run.recipe_toml for run in report.runs}
    for name, text in texts.items():
        _write_file(folder / name, text.encode("utf8", "backslashreplace"))
    for curve in report.curves:
        if (png := png_of(curve.svg)) is not None:
            _write_file(folder / "curves" / f"{curve.name}.png", png)
    _write_file(folder / MARK, (escapes.json_text(_json_view(report), indent=1) + "\n").encode())


def _comparisons(report: Report) -> dict[str, str]:
    """Return the file of all comparisons: the cells hold each model against its baseline only."""
    if report.comparison is None:
        return {}
    rows = export_comparison.full_table(report.comparison, with_reasons=True, costs=report.costs)
    return {"comparisons.csv": written([rows], "csv")}


def _json_view(report: Report) -> object:
    """Return the report as JSON holds it: pictures and recipes are files, and so are values by query."""
    runs = tuple(msgspec.structs.replace(run, recipe_toml=provenance.recipe_file(run.run)) for run in report.runs)
    comparison = report.comparison and msgspec.structs.replace(report.comparison, systems=())
    return msgspec.to_builtins(msgspec.structs.replace(report, curves=(), runs=runs, comparison=comparison))


def _write_file(path: Path, data: bytes) -> None:
    disk.make_folder(path.parent)
    disk.write(path, data)


def png_of(svg: str) -> bytes | None:
    """Return the picture as PNG at twice its size; None where the extra `report` (CairoSVG) is not installed."""
    if importlib.util.find_spec("cairosvg") is None:
        return None
    try:
        import cairosvg
    except OSError:  # installed, and its C library is not
        return None
    data: bytes = cairosvg.svg2png(bytestring=svg.encode(), scale=2, background_color="white")
    return data
