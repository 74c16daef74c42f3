"""A gate for continuous integration: two rankings checked, and the result as Markdown, JUnit XML or a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cerank.app.comparison import comparisons, margins, recorded_looks
from cerank.app.comparison.comparisons import ComparisonRequest
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
    look: int = 0,
    alpha: float = 0.05,
) -> GateResult:
    """Return whether the second target may replace the first, by the margins of the request.

    Args:
        settings: where the lab and caches are.
        request: BASE and NEW, on what they are measured, and `MEASURE=NUMBER` for each check of non-inferiority.
        superior: measures by which the new one must be better.
        look: which look at these queries this is, from 1; 0 for a single one.
        alpha: the error rate over all looks.

    Raises:
        UsageError: they cannot be compared, or there is nothing to check.
    """
    from cerank.evaluation.compare import Margin
    from cerank.evaluation.gate import gate
    from cerank.evaluation.measures import canonical

    chosen = {canonical(name, "--margin"): value for name, value in margins.numbers(request.margins).items()}
    better = [canonical(name, "--superior") for name in superior]
    targets = comparisons.targets_of(settings.lab, request.targets)
    measures = tuple(dict.fromkeys([*chosen, *better])) or request.measures
    measuring = ComparisonRequest(measures=measures, dataset=request.dataset, qrels=request.qrels)
    (base, new), _ = comparisons.measured_systems(settings, targets, measuring)
    declared = {name: Margin(value=value) for name, value in chosen.items()}
    result = gate(base, new, margins=declared, superior=better, look=look, alpha=alpha)
    keys = recorded_looks.keys_of_pair(base, new, tuple(dict.fromkeys([*chosen, *better])))
    recorded_looks.record(settings, keys, by="gate", now=datetime.now(UTC).isoformat(timespec="milliseconds"))
    return result


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
    return Table("gate", columns, rows, summary(result), (note,))


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
            ElementTree.SubElement(case, kind, message=f"{check.outcome}: {_figures(check)}")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _name(check: GateCheck) -> str:
    return f"{check.measure}: {check.claim}"


def _figures(check: GateCheck) -> str:
    return f"{check.difference:+.4f} [{check.low:+.4f}, {check.high:+.4f}], one-sided p {check.p:.2g}"
