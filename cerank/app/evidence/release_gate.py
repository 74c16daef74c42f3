"""A gate for continuous integration: two rankings checked, and the result as Markdown, JUnit XML or a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cerank.app.comparison import comparisons, margins, named_systems, recorded_looks
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.errors import FormatError, MissingError, UsageError
from cerank.settings import Settings
from cerank.text import escapes
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, written

if TYPE_CHECKING:
    from cerank.evaluation.gate import GateCheck, GateResult

EXIT_CODES = {"ships": 0, "worse": 1, "cannot tell": 4}


def gate_of(
    settings: Settings,
    request: ComparisonRequest,
    *,
    superior: Sequence[str] = (),
    slices: Path | None = None,
    slice_margins: Sequence[str] = (),
    look: int = 0,
    counts_looks: bool = False,
    alpha: float = 0.05,
) -> GateResult:
    """Return whether the second target may replace the first, by the margins of the request.

    Args:
        settings: where the lab and caches are.
        request: BASE and NEW, on what they are measured, and `MEASURE=NUMBER` for each check of non-inferiority.
        superior: measures by which the new one must be better.
        slices: a file of lines "query id, tab, name of its slice".
        slice_margins: `SLICE:MEASURE=NUMBER` for each check of non-inferiority on a slice.
        look: which look at these queries this is, from 1; 0 for a single one.
        counts_looks: take that number from the lab's record of looks at these judgments.
        alpha: the error rate over all looks.

    Raises:
        UsageError: they cannot be compared, there is nothing to check, or the lab's record of looks cannot be read.
        MissingError: the lab has no such record, and it is to be counted.
    """
    from cerank.evaluation.gate import SliceMargin, gate
    from cerank.evaluation.measures import canonical
    from cerank.evaluation.verdicts.terms import Margin

    chosen = {canonical(name, "--margin"): value for name, value in margins.numbers(request.margins).items()}
    better = [canonical(name, "--superior") for name in superior]
    parts = []
    for text in slice_margins:
        name, colon, rest = text.partition(":")
        if not (colon and name.strip()):
            hint = "such as --slice-margin questions:nDCG@10=.03"
            raise UsageError(f"'{text}' is not SLICE:MEASURE=NUMBER", where="--slice-margin", hint=hint)
        parts += [
            SliceMargin(slice=name.strip(), measure=canonical(measure, "--slice-margin"), margin=Margin(value=value))
            for measure, value in margins.numbers([rest], "--slice-margin").items()
        ]
    if bool(parts) != (slices is not None):
        what = "slices are declared without a margin" if slices else "a slice's margin without slices"
        raise UsageError(what, hint="give --slices FILE and a --slice-margin SLICE:MEASURE=NUMBER for each slice")
    targets = named_systems.targets_of(settings.lab, request.targets)
    measures = tuple(dict.fromkeys([*chosen, *better, *(part.measure for part in parts)])) or request.measures
    measuring = ComparisonRequest(measures=measures, dataset=request.dataset, qrels=request.qrels)
    (base, new), _ = comparisons.measured_systems(settings, targets, measuring)
    declared = {name: Margin(value=value) for name, value in chosen.items()}
    whole = dict.fromkeys([*chosen, *better]) or (request.measures if not parts else ())
    keys = recorded_looks.keys_of_pair(base, new, tuple(whole), [(part.measure, part.slice) for part in parts])
    if counts_looks:
        if look:
            raise UsageError(
                "--look and --family looks both say which look this is", hint="give only one of them", code="look-twice"
            )
        look = recorded_looks.next_look(settings, keys)
    result = gate(
        base,
        new,
        margins=declared,
        superior=better,
        slices=read_slices(slices) if slices else None,
        slice_margins=parts,
        look=look,
        alpha=alpha,
    )
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    if recorded_looks.record(settings, keys, by="gate", now=now) is None and counts_looks:
        raise recorded_looks.not_kept(settings)
    return result


def read_slices(path: Path) -> dict[str, frozenset[str]]:
    """Return the queries of each slice in a file of lines "query id, tab, name"; a query may be in several.

    Raises:
        MissingError: there is no such file.
        UsageError: it cannot be read.
        FormatError: a line has no name.
    """
    slices: dict[str, set[str]] = {}
    try:
        lines = path.expanduser().read_text(encoding="utf8").splitlines()
    except FileNotFoundError as error:
        raise MissingError(
            "no such file", where=str(path), hint="lines of: query id, tab, name of its slice"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the file: {error}", where=str(path)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            hint = "each line is a query's id, a tab, and the name of its slice"
            raise FormatError(
                "the line is not a query id, a tab and the name of a slice", where=f"{path}:{number}", hint=hint
            )
        slices.setdefault(cells[1], set()).add(cells[0])
    return {name: frozenset(queries) for name, queries in slices.items()}


def summary(result: GateResult) -> str:
    """Return the outcome in a sentence."""
    which = f", look {result.look} at level {result.level:.2g}" if result.look else ""
    return (
        f"{result.new} against {result.base}: {result.outcome} "
        f"({counted(len(result.checks), 'check')}, alpha {result.alpha:g}{which})"
    )


def table(result: GateResult) -> Table:
    """Return the checks as a table, a row each."""
    columns = (
        Column("dataset", "dataset"),
        Column("first_stage", "first stage", priority=3),
        Column("measure", "measure"),
        Column("claim", "must be"),
        Column("queries", "queries", "number", 0, priority=2),
        Column("base", "base", "number"),
        Column("new", "new", "number"),
        Column("difference", "difference", "signed"),
        Column("low", "low", "signed"),
        Column("high", "high", "signed", priority=1),
        Column("p", "p", "p"),
        Column("p_worse", "p worse", "p", priority=1),
        Column("outcome", "outcome"),
    )
    rows = tuple(
        (
            *(check.condition.dataset, check.condition.first_stage, check.measure, check.claim, check.queries),
            *(check.mean_base, check.mean_new, check.difference, check.low, check.high, check.p, check.p_worse),
            check.outcome,
        )
        for check in result.checks
    )
    note = (
        f"low, high: one-sided {100 * (1 - result.level):.4g} % limits; it ships if every check passes, and "
        "is worse if a loss is shown in any (p worse is adjusted over the checks)"
    )
    few = [_few(check) for check in result.checks if check.is_unseen]
    return Table("gate", columns, rows, summary(result), (note, *few))


def _few(check: GateCheck) -> str:
    """Return why a check of few queries that differ cannot tell, though the limit lies within the margin."""
    differ = f"{check.differing} of {counted(check.queries, 'query')} differ"
    return f"{_name(check)}: only {differ}, too few to rule a rare, large loss out, which would go unseen"


def as_markdown(result: GateResult) -> str:
    """Return the result as Markdown, for a comment on a pull request."""
    checks = table(result)
    return f"**{escapes.markdown(checks.title)}**\n\n{written([checks], 'markdown')}"


def as_junit(result: GateResult) -> str:
    """Return the result as JUnit XML: a check that finds a loss failed, one that cannot tell is an error."""
    outcomes = [check.outcome for check in result.checks]
    suite = ElementTree.Element(
        "testsuite",
        name="cerank gate",
        tests=str(len(outcomes)),
        failures=str(outcomes.count("worse")),
        errors=str(outcomes.count("cannot tell")),
    )
    for check in result.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=str(check.condition), name=_name(check))
        if check.outcome != "ships":
            kind = "failure" if check.outcome == "worse" else "error"
            why = f"; {_few(check)}" if check.is_unseen else ""
            ElementTree.SubElement(case, kind, message=f"{check.outcome}: {_figures(check)}{why}")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _name(check: GateCheck) -> str:
    return f"{check.measure}: {check.claim}"


def _figures(check: GateCheck) -> str:
    return f"{check.difference:+.4f} [{check.low:+.4f}, {check.high:+.4f}], one-sided p {check.p:.2g}"
