"""A comparison as text to keep: LaTeX, Markdown, CSV, TSV or JSON, the same for the command line and the dashboard.

Invariant: every number is the comparison's own; papers get it rounded, machines whole. No label can steer a reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cerank import escapes
from cerank.errors import UsageError
from cerank.registry import nearest
from cerank.store import disk
from cerank.store.layout import plain
from cerank.tabular import Column, Table, written

if TYPE_CHECKING:
    from cerank.evaluate.compare import Comparison
    from cerank.evaluate.report import SummaryRow

Form = Literal["latex", "markdown", "csv", "tsv", "json"]
FORMS: tuple[Form, ...] = get_args(Form)
ENDINGS: dict[Form, str] = {"latex": ".tex", "markdown": ".md", "csv": ".csv", "tsv": ".tsv", "json": ".json"}


def whole(found: Comparison) -> Table:
    """Every field of every row in full precision, for machines."""
    from cerank.evaluate.report import summary

    rows = summary(found)
    names = rows[0].__struct_fields__
    body = tuple(tuple(getattr(row, name) for name in names) for row in rows)
    return Table("comparison", tuple(Column(name, name) for name in names), body)


def readable(found: Comparison) -> Table:
    """The columns a person reads, with the footnotes; what is the same in every row stands in the title."""
    from cerank.evaluate.report import footnotes, summary

    rows = summary(found)
    is_one = len({(row.dataset, row.first_stage) for row in rows}) == 1
    is_all_pairs = found.terms.pairs == "all"
    columns = [Column("system", "system"), *([Column("against", "against")] if is_all_pairs else [])]
    columns += [Column("measure", "measure"), Column("mean", "mean", "number")]
    columns += [
        Column("difference", "difference", "signed"),
        Column("interval", f"{100 * found.terms.confidence:.3g} % interval"),
    ]
    columns += [Column("p", "p", "p"), Column("p_corrected", "p corr.", "p")]
    columns += [Column("effect", "d_z", "signed", 2), Column("wtl", "W/T/L"), Column("verdict", "verdict")]
    if not is_one:
        columns = [Column("dataset", "dataset"), Column("first_stage", "first stage"), *columns]
    body = []
    for row in rows:
        where = () if is_one else (row.dataset, row.first_stage)
        against = (row.against,) if is_all_pairs else ()
        body.append((*where, row.system, *against, *_figures(row)))
    return Table("comparison", tuple(columns), tuple(body), _title(found, rows, is_one), footnotes(found))


def _title(found: Comparison, rows: Sequence[SummaryRow], is_one: bool) -> str:
    against = "every pair" if found.terms.pairs == "all" else f"against {found.baseline}"
    return f"{found.conditions[0]}, {rows[0].queries} queries, {against}" if is_one else against


def _figures(row: SummaryRow) -> tuple[str | float | None, ...]:
    if row.difference is None or row.low is None or row.high is None:
        return (row.measure, row.mean, None, "", None, None, None, "", "")
    interval = f"[{row.low:+.4f}, {row.high:+.4f}]"
    record = f"{row.wins}/{row.ties}/{row.losses}"
    return (row.measure, row.mean, row.difference, interval, row.p, row.p_corrected, row.effect, record, row.verdict)


def as_text(found: Comparison, form: Form) -> str:
    """The comparison in `form`, footnotes included where the form has a place for them (LaTeX: as comments)."""
    if form not in {"latex", "markdown"}:
        return written([whole(found)], form)
    table = readable(found)
    text = written([table], form)
    if form == "latex":
        return text + "".join(f"% {escapes.latex(note)}\n" for note in table.notes)
    title = f"{escapes.markdown(table.title)}\n\n"
    return (
        title
        + text
        + "".join(("\n" if not at else "") + f"- {escapes.markdown(n)}\n" for at, n in enumerate(table.notes))
    )


def form_named(name: str) -> Form:
    """The form a person means by its name or by the ending of a file.

    Raises:
        UsageError: there is none.
    """
    for form in FORMS:
        if name.lower() in {form, ENDINGS[form], ENDINGS[form][1:]}:
            return form
    raise UsageError(f"no form is called '{name}'", hint=nearest(name, [*FORMS, *ENDINGS.values()]))


def suggested(found: Comparison, form: Form) -> str:
    """A file name for the comparison: what was compared, in plain characters."""
    others = [system.label for system in found.systems if system.label != found.baseline]
    return f"{plain(f'{others[0]}-against-{found.baseline}', 60)}{ENDINGS[form]}"


def place_mistake(path: Path, *, replace: bool = False) -> str:
    """What keeps a file from being written there, as far as can be seen; "" for nothing."""
    if "\0" in str(path) or not path.name:
        return "not the name of a file"
    target = path.expanduser().absolute()
    if not target.parent.is_dir():
        return "its folder does not exist"
    if target.is_dir():
        return "is a folder; name a file in it"
    return "exists already; give another name" if target.exists() and not replace else ""


def save(text: str, path: Path, *, replace: bool = False) -> Path:
    """Writes `text` whole or not at all; returns the absolute path.

    Raises:
        UsageError: its folder is not there, or (without `replace`) it exists.
        RunFailedError: the disk refuses.
    """
    if mistake := place_mistake(path, replace=replace):
        raise UsageError(mistake, where=str(path))
    target = path.expanduser().absolute()
    disk.write(target, text.encode())
    return target
