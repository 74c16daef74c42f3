"""Systems against a baseline, query by query, over every dataset, first stage and measure.

Invariant: values are matched by query id, never by position, and never over a silent intersection of queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cerank.domain.rankings import Ranking
from cerank.errors import UsageError
from cerank.evaluate import measures as by_name
from cerank.evaluate.significance import Paired, holm, paired
from cerank.registry import nearest


class Condition(msgspec.Struct, frozen=True, order=True):
    """Where systems are compared: one dataset's queries over one first stage's candidates."""

    dataset: str
    first_stage: str = ""  # "" where the systems are whole rankings of their own

    def __str__(self) -> str:
        return f"{self.dataset} over {self.first_stage}" if self.first_stage else self.dataset


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one system scored in one condition."""

    condition: Condition
    qrels_sha256: str
    values: dict[str, dict[str, float]]  # measure -> query id -> value, every query of the qrels
    missing: tuple[str, ...] = ()  # queries of the qrels the ranking lacks; they count 0
    unjudged: int = 0  # queries of the ranking without qrels; they are ignored


class System(msgspec.Struct, frozen=True, kw_only=True):
    """Something that ranks: a first stage, a run after one of its stages, a TREC run file."""

    label: str
    measured: tuple[Measured, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system against the baseline, by one measure in one condition."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str
    paired: Paired
    p_holm: float  # corrected over every row of the comparison
    missing_left: tuple[str, ...]
    missing_right: tuple[str, ...]
    zero_share: float  # of queries where both score the same


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows and all values they were computed from; as JSON it can be recomputed anywhere."""

    format: int = 1
    baseline: str
    measures: tuple[str, ...]
    conditions: tuple[Condition, ...]
    confidence: float
    correction: str = "holm"
    family: int  # p-values corrected together
    rows: tuple[Row, ...]
    systems: tuple[System, ...]


class SummaryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a table: a system in a condition; the baseline's line has no difference."""

    dataset: str
    first_stage: str
    measure: str
    system: str
    mean: float
    queries: int
    missing: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    effect: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None


def measured(
    names: Sequence[str], condition: Condition, qrels: by_name.Qrels, qrels_sha256: str, ranking: Ranking
) -> Measured:
    """A ranking measured on qrels.

    Args:
        names: canonical, as `measures.check` returned them.
    """
    return Measured(
        condition=condition,
        qrels_sha256=qrels_sha256,
        values=by_name.per_query(names, qrels, ranking),
        missing=tuple(query for query in qrels if not ranking.get(query)),
        unjudged=sum(query not in qrels for query in ranking),
    )


def compare(
    systems: Sequence[System],
    measures: Sequence[str],
    *,
    conditions: Sequence[Condition] = (),
    confidence: float = 0.95,
) -> Comparison:
    """Every system against the first, in every condition, by every measure.

    Args:
        systems: at least two, the baseline first.
        measures: canonical names; each system must have them.
        conditions: only these; empty takes the baseline's, which every other system must share exactly.

    Raises:
        UsageError: the systems were measured on different datasets, first stages, qrels or queries.
    """
    _refuse_labels(systems)
    chosen = tuple(conditions) or _shared_conditions(systems)
    rows = []
    for condition in chosen:
        left = _at(systems[0], condition)
        for system in systems[1:]:
            right = _at(system, condition)
            _refuse_other_qrels(systems[0].label, left, system.label, right)
            for measure in measures:
                rows.append(_row(measure, (systems[0].label, left), (system.label, right), confidence))
    corrected = holm([row.paired.p for row in rows])
    return Comparison(
        baseline=systems[0].label,
        measures=tuple(measures),
        conditions=chosen,
        confidence=confidence,
        family=len(rows),
        rows=tuple(msgspec.structs.replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)),
        systems=tuple(systems),
    )


def summary(comparison: Comparison) -> tuple[SummaryRow, ...]:
    """A flat row for each condition, measure and system, in that order; formatting is left to the reader."""
    found = {(row.condition, row.measure, row.right): row for row in comparison.rows}
    out = []
    for condition in comparison.conditions:
        for measure in comparison.measures:
            for system in comparison.systems:
                out.append(_summary_row(system, condition, measure, found.get((condition, measure, system.label))))
    return tuple(out)


def _summary_row(system: System, condition: Condition, measure: str, row: Row | None) -> SummaryRow:
    at = _at(system, condition)
    values = at.values[measure]
    line = SummaryRow(
        dataset=condition.dataset,
        first_stage=condition.first_stage,
        measure=measure,
        system=system.label,
        mean=sum(values.values()) / len(values),
        queries=len(values),
        missing=len(at.missing),
    )
    if row is None:
        return line
    found = row.paired
    return msgspec.structs.replace(
        line,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        p_holm=row.p_holm,
        effect=found.effect,
        wins=found.wins,
        ties=found.ties,
        losses=found.losses,
    )


def _row(measure: str, baseline: tuple[str, Measured], other: tuple[str, Measured], confidence: float) -> Row:
    (left_label, left), (right_label, right) = baseline, other
    first, second = _values(left_label, left, measure), _values(right_label, right, measure)
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise UsageError(
            f"'{left_label}' and '{right_label}' have {measure} for different queries of {left.condition}: "
            f"{len(odd)} are in one only, such as {odd[0]}",
            hint="measure both on the same qrels; a query a ranking lacks counts 0",
        )
    figures = paired(list(first.values()), [second[query] for query in first], confidence)
    return Row(
        condition=left.condition,
        measure=measure,
        left=left_label,
        right=right_label,
        paired=figures,
        p_holm=figures.p,
        missing_left=left.missing,
        missing_right=right.missing,
        zero_share=figures.ties / figures.n,
    )


def _values(label: str, at: Measured, measure: str) -> dict[str, float]:
    if measure not in at.values:
        raise UsageError(f"'{label}' has no {measure} on {at.condition}", hint=nearest(measure, at.values))
    return at.values[measure]


def _at(system: System, condition: Condition) -> Measured:
    for entry in system.measured:
        if entry.condition == condition:
            return entry
    has = "; ".join(str(entry.condition) for entry in system.measured) or "nothing"
    raise UsageError(f"'{system.label}' was not measured on {condition}", hint=f"it was measured on {has}")


def _shared_conditions(systems: Sequence[System]) -> tuple[Condition, ...]:
    first = [entry.condition for entry in systems[0].measured]
    if not first:
        raise UsageError(f"'{systems[0].label}' was measured on nothing")
    for system in systems[1:]:
        other = [entry.condition for entry in system.measured]
        if set(other) != set(first):
            raise UsageError(
                f"'{systems[0].label}' and '{system.label}' were not measured on the same: "
                f"{'; '.join(map(str, first))} against {'; '.join(map(str, other)) or 'nothing'}",
                hint="compare runs with the same test datasets and first stages, or name the one to compare on",
            )
    return tuple(first)


def _refuse_labels(systems: Sequence[System]) -> None:
    if len(systems) < 2:
        raise UsageError(f"a comparison needs at least 2 systems, not {len(systems)}")
    labels = [system.label for system in systems]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"two systems are called '{twice[0]}'", hint="name each once, or give them labels")


def _refuse_other_qrels(left_label: str, left: Measured, right_label: str, right: Measured) -> None:
    if left.qrels_sha256 != right.qrels_sha256:
        raise UsageError(
            f"'{left_label}' and '{right_label}' were measured on different qrels of {left.condition.dataset}: "
            f"sha256 {left.qrels_sha256[:12]} and {right.qrels_sha256[:12]}",
            hint="a difference would mix the systems with the judgments; evaluate both on one qrels file",
        )
