"""A comparison as flat rows for any kind of table, with the lines that belong under it; formatting is the reader's.

Invariant: every number comes out of the comparison as it is; nothing is computed again.
"""

from __future__ import annotations

import msgspec

from cerank.evaluation.compare import Comparison, Row
from cerank.evaluation.diagnostics import Note
from cerank.evaluation.systems import Condition, System
from cerank.evaluation.verdicts import explain
from cerank.text.safe_text import counted

METHODS = {
    "holm": "Holm's correction",
    "bh": "Benjamini and Hochberg's false discovery rate",
    "bonferroni": "Bonferroni's correction",
    "max-t": "the randomised maximum statistic, blocked by query",
    "none": "no correction",
}


class SummaryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a table: a system in a condition; the baseline's own line has no difference."""

    dataset: str
    first_stage: str
    measure: str
    system: str
    mean: float
    queries: int
    missing: int
    seeds: int
    against: str = ""  # the system it is compared with
    difference: float | None = None
    low: float | None = None  # at the comparison's confidence, one interval by itself
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    margin: float | None = None
    is_margin_declared: bool | None = None  # before the run
    p_equivalence: float | None = None  # corrected
    judged_low: float | None = None  # the interval the verdict rests on, at the level after correction
    judged_high: float | None = None
    judged_level: float | None = None
    equivalence_low: float | None = None  # the interval that TOST asks to lie within the margin, after correction
    equivalence_high: float | None = None
    equivalence_level: float | None = None
    detectable: float | None = None  # for "cannot tell": a true difference seen with 80 % power
    queries_for_difference: int | None = None  # to see the observed difference with 80 % power
    queries_for_margin: int | None = None  # to show equivalence with 80 % power, were the true difference 0
    verdict: str = ""


def summary(comparison: Comparison) -> tuple[SummaryRow, ...]:
    """For each condition and measure: each baseline's line, then its rows; with all pairs, one for each pair.

    Of stages: the first stage's line, then each stage against the one before it, then against the first stage.
    """
    systems = {system.label: system for system in comparison.systems}
    out = []
    for condition in comparison.conditions:
        for measure in comparison.measures:
            rows = [row for row in comparison.rows if (row.condition, row.measure) == (condition, measure)]
            if comparison.terms.pairs == "stages":
                out.append(_plain(systems[comparison.baseline], condition, measure))
                out.extend(_compared(systems[row.right], row) for row in rows)
                continue
            for left in dict.fromkeys(row.left for row in rows):
                if comparison.terms.pairs == "baseline":
                    out.append(_plain(systems[left], condition, measure))
                out.extend(_compared(systems[row.right], row) for row in rows if row.left == left)
    return tuple(out)


def footnotes(comparison: Comparison) -> tuple[str, ...]:
    """What stands under a table: family and method, margins chosen late, data to beware of; each line once."""
    terms = comparison.terms
    level = f"{100 * (1 - terms.confidence):.3g} %"
    lines = [f"{counted(comparison.family, 'test')}, {METHODS[terms.correction]}, verdicts at {level}"]
    if terms.correction == "max-t" and comparison.family_equivalence:
        lines.append(f"{counted(comparison.family_equivalence, 'test')} of equivalence, {METHODS['holm']}")
    for measure, margin in terms.margins.items():
        when = f"declared {margin.declared or 'before the run'}" if margin.before else "chosen after the run"
        lines.append(f"margin for {measure}: ±{margin.value:g}, {when} ({margin.source})")
    lost = [row for row in comparison.rows if _excludes_zero(*_single(row)) and row.p_corrected > row.judgment.alpha]
    if lost:
        names = ", ".join(f"{row.right} against {row.left} by {row.measure} on {row.condition}" for row in lost)
        lines.append(
            f"significant alone, not among {counted(comparison.family, 'test')}: {names}; verdicts are those among all"
        )
    noted = [f"{_about(row, note)}: {note.text}" for row in comparison.rows for note in row.notes]
    return tuple(dict.fromkeys(lines + noted))


def _about(row: Row, note: Note) -> str:
    """What a note is about: one row, one measure, or all of a condition."""
    if note.kind == "zeros":
        return f"{row.right} against {row.left} by {row.measure} on {row.condition}"
    return f"{row.measure} on {row.condition}" if note.kind == "answerless" else str(row.condition)


def reasons(comparison: Comparison) -> tuple[str, ...]:
    """One sentence a row: who against whom, where, the verdict and what it rests on."""
    return tuple(
        f"{row.right} against {row.left}, {row.measure} on {row.condition}: {explain(row.judgment)}"
        for row in comparison.rows
    )


def _plain(system: System, condition: Condition, measure: str) -> SummaryRow:
    at = next(entry for entry in system.measured if entry.condition == condition)
    values = at.values[measure]
    return SummaryRow(
        dataset=condition.dataset,
        first_stage=condition.first_stage,
        measure=measure,
        system=system.label,
        mean=sum(values.values()) / len(values),
        queries=len(values),
        missing=len(at.missing),
        seeds=max(len(system.members), 1),
    )


def _compared(system: System, row: Row) -> SummaryRow:
    found, judgment = row.paired, row.judgment
    line = _plain(system, row.condition, row.measure)
    low, high = _single(row)
    return msgspec.structs.replace(
        line,
        mean=found.mean_right,
        against=row.left,
        difference=found.difference,
        low=low,
        high=high,
        p=judgment.p,
        p_corrected=row.p_corrected,
        effect=found.effect,
        effect_low=row.effect.low if row.effect else None,
        effect_high=row.effect.high if row.effect else None,
        wins=found.wins,
        ties=found.ties,
        losses=found.losses,
        margin=judgment.margin.value if judgment.margin else None,
        is_margin_declared=judgment.margin.before if judgment.margin else None,
        p_equivalence=judgment.p_equivalence_corrected,
        judged_low=judgment.low,
        judged_high=judgment.high,
        judged_level=judgment.level,
        equivalence_low=judgment.equivalence_low,
        equivalence_high=judgment.equivalence_high,
        equivalence_level=judgment.equivalence_level,
        detectable=judgment.detectable,
        queries_for_difference=judgment.queries_for_difference,
        queries_for_margin=judgment.queries_for_margin,
        verdict=row.verdict,
    )


def _single(row: Row) -> tuple[float, float]:
    """The row's interval at the comparison's confidence, as if it were the only one."""
    if row.recipes is None:
        return row.paired.low, row.paired.high
    return row.recipes.estimate.interval(1 - row.paired.confidence)


def _excludes_zero(low: float, high: float) -> bool:
    return low > 0 or high < 0
