"""Pooled comparisons as tables: for people with their footnotes, for machines with every figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cerank.app.comparison.several_collections.forest_plot import ZERO, drawings, forest_lines
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, Value

if TYPE_CHECKING:
    from cerank.evaluation.studies.pooling import PooledResult, PooledRow


_NO_INTERVAL = "–"


def tables(result: PooledResult, *, has_plot: bool = False) -> list[Table]:
    """Return the pooled rows, and under them each collection with its weight; `has_plot` draws them in characters."""
    whole = [row for row in result.rows if not row.domain]  # their collections are those of the domains, too
    return [summary(result), *(_collections(row, result.alpha, has_plot=has_plot) for row in whole)]


def summary(result: PooledResult) -> Table:
    """Return the pooled rows alone."""
    from cerank.evaluation.answers import shown as shown_verdict
    from cerank.evaluation.comparison_rows import notes_beyond

    percent = f"{100 * (1 - result.alpha):.3g} %"
    has_domains = any(row.domain for row in result.rows)
    columns = (
        Column("system", "system"),
        Column("against", "against"),
        Column("measure", "measure"),
        *([Column("domain", "domain")] if has_domains else []),
        Column("collections", "collections", "number", 0, priority=2),
        Column("difference", "mean difference", "signed"),
        Column("low", "low", "signed"),
        Column("high", "high", "signed"),
        Column("p", "p", "p", priority=3),
        Column("p_corrected", "adjusted p", "p", priority=1),
        Column("df", "df", "number", 0, priority=5),
        Column("tau", "tau", "number", priority=2),
        Column("tau_high", "tau up to", "number", priority=4),
        Column("i2", "I²", "percent", priority=4),
        Column("predicted_low", "new: low", "signed", priority=1),
        Column("predicted_high", "new: high", "signed", priority=1),
        Column("margin", "margin", "number", 3, priority=6),
        Column("p_equivalence_corrected", "adjusted p within", "p", priority=6),
        Column("verdict", "verdict"),
    )
    body = []
    for row in result.rows:
        of, judgment = row.pooled, row.judgment
        low, high = of.prediction or (None, None)
        within = of.tau_interval
        up_to: Value = _NO_INTERVAL if within is None else within[1]
        scatter = (of.tau, up_to, of.i2) if of.collections > 1 else (None, None, None)
        body.append(
            (
                *(row.right, row.left, row.measure, *([row.domain or "all"] if has_domains else []), of.collections),
                *(of.estimate.difference, judgment.low, judgment.high, judgment.p, judgment.p_corrected),
                *(int(of.estimate.df), *scatter, low, high),
                *(judgment.margin.value if judgment.margin else None, judgment.p_equivalence_corrected),
                shown_verdict(judgment, of.estimate.difference),
            )
        )
    is_simultaneous = result.family > 1 and result.correction in {"holm", "bonferroni"}
    notes = [
        f"low, high: {percent} interval of the mean over collections like these (random effects, REML, Hartung and "
        f"Knapp){', simultaneous over the table' if is_simultaneous else ''}; new: the range in which the "
        "true difference on one more collection of this kind is expected; tau: sd of the true differences between "
        "collections; I²: its share of the scatter seen",
        _family(result),
    ]
    if any(row.pooled.collections > 1 and row.pooled.tau_interval is None for row in result.rows):
        notes.append(
            f"tau up to {_NO_INTERVAL}: the collections differ less than their queries let expect even with no scatter "
            "between them, so that the 95 % interval of tau is empty"
        )
    notes += _domain_notes(result)
    fewest = min(count for row in result.rows if (count := row.pooled.collections) > 1)
    if fewest < 5:
        notes.append(
            f"{fewest} collections say little about others: the interval is by Student's t with "
            f"{counted(fewest - 1, 'degree')} of freedom, and tau is hardly known"
        )
    if fewest < 3:
        notes.append("two collections give no prediction for a new one: that takes three")
    margins_of = {row.measure: row.judgment.margin.value for row in result.rows if row.judgment.margin is not None}
    late = {row.measure for row in result.rows if row.judgment.margin is not None and not row.judgment.margin.before}
    notes += [
        f"margin for {name}: ±{value:g}{', chosen after the results (†)' if name in late else ''}"
        for name, value in margins_of.items()
    ]
    if any(row.judgment.is_cut for row in result.rows):
        notes.append("an interval that reached beyond the range of its measure ends there")
    notes += _few_notes(result)
    notes += notes_beyond(
        (f"{row.right} against {row.left} by {row.measure}{f' ({row.domain})' if row.domain else ''}", row.judgment)
        for row in result.rows
    )
    if any(len(each.first_stages) > 1 for row in result.rows for each in row.collections):
        notes.append("several first stages of one collection count once: their differences are averaged")
    return Table("pooled", columns, tuple(body), "Over all collections", (*notes, *result.notes))


def machine_table(result: PooledResult) -> Table:
    """Return every figure of the pooled rows in full precision, for machines."""
    body = []
    for row in result.rows:
        of, judgment = row.pooled, row.judgment
        figures: dict[str, Value] = {
            "system": row.right,
            "against": row.left,
            "measure": row.measure,
            "domain": row.domain or "all",
            "collections": of.collections,
            "names": ", ".join(each.collection for each in row.collections),
            "queries": sum(each.queries for each in row.collections),
            "difference": of.estimate.difference,
            "error": of.estimate.error,
            "df": of.estimate.df,
            "level": judgment.level,
            "low": judgment.low,
            "high": judgment.high,
            "p": judgment.p,
            "p_corrected": judgment.p_corrected,
            "margin": judgment.margin.value if judgment.margin else None,
            "margin_is_late": None if judgment.margin is None else not judgment.margin.before,
            "p_equivalence": judgment.p_equivalence,
            "p_equivalence_corrected": judgment.p_equivalence_corrected,
            "equivalence_level": judgment.equivalence_level,
            "equivalence_low": judgment.equivalence_low,
            "equivalence_high": judgment.equivalence_high,
            "unseen": judgment.unseen,
            "verdict": judgment.verdict,
            "tau": of.tau if of.collections > 1 else None,
            "tau_low": of.tau_interval[0] if of.tau_interval else None,
            "tau_high": of.tau_interval[1] if of.tau_interval else None,
            "i2": of.i2 if of.collections > 1 else None,
            "q": of.q if of.collections > 1 else None,
            "p_q": of.p_q if of.collections > 1 else None,
            "predicted_low": of.prediction[0] if of.prediction else None,
            "predicted_high": of.prediction[1] if of.prediction else None,
            "family": result.family,
            "correction": result.correction,
            "alpha": result.alpha,
        }
        body.append(figures)
    columns = tuple(Column(name, name) for name in body[0])
    return Table("pooled", columns, tuple(tuple(figures.values()) for figures in body))


def _few_notes(result: PooledResult) -> list[str]:
    """Return where an equivalence of the mean is not shown, because few queries of a collection differ."""
    notes = []
    for row in result.rows:
        if row.judgment.unseen is None or row.judgment.margin is None:
            continue
        few = ", ".join(each.collection for each in row.collections if each.unseen is not None)
        which = f" ({row.domain})" if row.domain else ""
        notes.append(
            f"{row.right} against {row.left} by {row.measure}{which}: that the mean lies within "
            f"±{row.judgment.margin.value:g} is not shown, for few queries differ on {few}: one more that differs by "
            f"{row.judgment.unseen:.2g} there would undo it"
        )
    return notes


def _domain_notes(result: PooledResult) -> list[str]:
    """Return which collections are in-domain, and that a single one says nothing of others."""
    ours = next((row for row in result.rows if row.domain == "in-domain"), None)
    if ours is None:
        return []
    notes = [f"in-domain, where training data came from: {', '.join(each.collection for each in ours.collections)}"]
    single = [row for row in result.rows if row.domain and row.pooled.collections == 1]
    if single:
        notes.append(
            "a domain of one collection has that collection's own difference and interval: of its queries alone"
        )
    exact = [row for row in single if row.judgment.basis == "exact sign flips"]
    notes += [f"{name}: few queries differ: by exact sign flips" for name in _names(exact)]
    unknown = [row for row in single if row not in exact and row.collections[0].unseen is not None]
    notes += [
        f"{name}: few queries differ: judged here by a t-test, for exact sign flips need the values that "
        "`cerank compare --full` saves"
        for name in _names(unknown)
    ]
    return notes


def _names(rows: Sequence[PooledRow]) -> list[str]:
    """Return what each row of a single collection is about."""
    return [f"{row.right} against {row.left} by {row.measure} on {row.collections[0].collection}" for row in rows]


def _family(result: PooledResult) -> str:
    """Return how many pooled comparisons share one error rate, and by what method."""
    from cerank.evaluation.comparison_rows import METHODS

    many, rate = counted(len(result.rows), "pooled comparison"), f"{100 * result.alpha:.3g} %"
    if others := result.family - len(result.rows):
        many += f" and {others:,} other{'s' if others > 1 else ''}"
    if result.family == 1:
        return f"{many}: the chance of a false verdict is at most {rate}"
    if result.correction == "none":
        return f"{many}, unadjusted: each verdict by itself errs in at most {rate}"
    if result.correction == "bh":
        return f"{many}: of the differences found at most {rate} are expected to be false (Benjamini and Hochberg)"
    return f"{many}: the chance of any false verdict is at most {rate} ({METHODS[result.correction]})"


def _collections(row: PooledRow, alpha: float, *, has_plot: bool) -> Table:
    columns = [
        Column("system", "system", priority=4),
        Column("against", "against", priority=4),
        Column("measure", "measure", priority=4),
        Column("collection", "collection"),
        Column("queries", "queries", "number", 0, priority=1),
        Column("difference", "difference", "signed"),
        Column("low", "low", "signed", priority=1),
        Column("high", "high", "signed", priority=1),
        Column("weight", "weight", "percent"),
    ]
    lines = forest_lines(row, alpha)
    body: list[tuple[Value, ...]] = [
        (row.right, row.left, row.measure, name, queries, difference, low, high, weight)
        for name, queries, difference, low, high, weight in lines
    ]
    title = f"{row.right} against {row.left} by {row.measure}"
    if has_plot:
        columns = [*(column for column in columns if column.key not in {"system", "against", "measure"})]
        columns.append(Column("plot", f"0 is {ZERO}", "name"))
        drawn = drawings(lines)
        body = [(*cells[3:], drawing) for cells, drawing in zip(body, drawn, strict=True)]
    return Table("collections", tuple(columns), tuple(body), title)
