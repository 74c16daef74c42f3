"""What a reader must know of the data of one row beside its verdict.

Invariant: a note changes no verdict.
"""

from __future__ import annotations

from cerank.evaluation import diagnostics, tuning_budgets
from cerank.evaluation.significance import differences, paired
from cerank.evaluation.systems import System
from cerank.evaluation.verdicts.row_tests import RowTest
from cerank.evaluation.verdicts.terms import width_of
from cerank.evaluation.verdicts.verdict import Judgment
from cerank.text.safe_text import counted


def of_row(row_test: RowTest, judgment: Judgment) -> tuple[diagnostics.Note, ...]:
    """Return the notes of a row of the table, in the order in which they are shown."""
    return (*_on_data(row_test), *_on_few(row_test, judgment))


def _on_data(row_test: RowTest) -> tuple[diagnostics.Note, ...]:
    out = []
    for system, at in zip(row_test.systems, row_test.measured, strict=True):
        if at.missing:
            text = (
                f"'{system.label}' lacks {counted(len(at.missing), 'query')}, counted as 0: {', '.join(at.missing[:5])}"
            )
            out.append(diagnostics.Note("missing", text + (" ..." if len(at.missing) > 5 else "")))
        if at.unjudged:
            out.append(
                diagnostics.Note("ignored", f"{counted(at.unjudged, 'query')} of '{system.label}' without qrels")
            )
    out += _on_common(row_test)
    left, right = row_test.systems
    tuned = ((left.label, left.known_tuning), (right.label, right.known_tuning))
    out += tuning_budgets.notes(*tuned, row_test.measured[0].condition.dataset)
    if row_test.limits is not None and (full := diagnostics.of_room(row_test.measure, left.label, row_test.limits[1])):
        out.append(full)
    if row_test.is_identical:
        text = f"'{left.label}' and '{right.label}' are the same ranking: nothing was tested, the family leaves it out"
        return (*out, diagnostics.Note("identical", text))
    if not any(system.members for system in row_test.systems):
        text = "about these two rankings as they are; the same recipe with another seed may come out otherwise"
        out.append(diagnostics.Note("one seed", text))
    elif row_test.recipes is not None:
        fixed = [system for system in row_test.systems if not system.members]
        out += [diagnostics.Note("fixed", _is_fixed(system, *row_test.systems)) for system in fixed]
    first, second = ((system.label, at.facts) for system, at in zip(row_test.systems, row_test.measured, strict=True))
    if row_test.basis != "exact sign flips" and (note := diagnostics.of_skewness(differences(*row_test.values))):
        out.append(note)
    return (
        *out,
        *diagnostics.notes(row_test.measure, first, second, n=row_test.figures.n, zeros=row_test.figures.ties),
    )


def _on_few(row_test: RowTest, judgment: Judgment) -> list[diagnostics.Note]:
    """Return a note where an equivalence rests on queries too few to show rare differences, or fails for that."""
    if judgment.unseen is not None and judgment.margin is not None:
        return [diagnostics.of_unseen_difference(row_test.figures, judgment.unseen, judgment.margin.value)]
    rests = judgment.verdict in {"equivalent", "different but negligible"} and row_test.basis == "exact sign flips"
    is_everywhere = row_test.figures.sd == 0 and row_test.figures.difference != 0  # then it is not rare
    figures, width = row_test.figures, width_of(row_test.measure)
    if not rests or judgment.margin is None or width is None or is_everywhere:
        return []
    differing, share = figures.wins + figures.losses, judgment.margin.value / width
    note = diagnostics.of_rare_differences(differing, figures.n, share, judgment.alpha)
    return [note] if note else []


def _on_common(row_test: RowTest) -> list[diagnostics.Note]:
    """Return the difference on the queries that both sides rank, where one of them lacks some; it makes no verdict."""
    lost = {query for at in row_test.measured for query in at.missing}
    common = [place for place, query in enumerate(row_test.queries) if query not in lost]
    if not lost or len(common) < 2:
        return []
    left, right = row_test.systems
    figures = paired(
        [row_test.values[0][at] for at in common],
        [row_test.values[1][at] for at in common],
        row_test.figures.confidence,
    )
    interval = "" if figures.low is None or figures.high is None else f" [{figures.low:+.4f}, {figures.high:+.4f}]"
    text = f"on the {counted(figures.n, 'query')} that both rank, '{right.label}' differs from '{left.label}' by "
    text += f"{figures.difference:+.4f}{interval}, W/T/L {figures.wins}/{figures.ties}/{figures.losses}"
    return [diagnostics.Note("common", text)]


def _is_fixed(system: System, left: System, right: System) -> str:
    other = right.label if system is left else left.label
    return f"'{system.label}' is taken as fixed: the claim is about the recipe of '{other}' against this one ranking"
