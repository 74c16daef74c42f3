"""Comparisons on several collections pooled: from runs, or from saved comparisons, to tables and a forest plot.

Invariant: what is pooled is named, collection by collection, beside the mean; nothing is left out in silence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, margins
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.named_systems import RunTarget, SeedsTarget, last_part, short_name, targets_of
from cerank.datasets.aliases import id_of
from cerank.datasets.open_datasets import whole_and_part
from cerank.errors import MissingError, UsageError, os_error
from cerank.files import json_records
from cerank.recipes.plan import Plan
from cerank.recipes.sections.set_mixtures import WeightedSet, is_mixture, sets_of
from cerank.registry import nearest
from cerank.settings import Settings
from cerank.text import escapes
from cerank.text.safe_text import counted, shown
from cerank.text.table_data import Column, Table, Value

if TYPE_CHECKING:
    from cerank.app.comparison.comparison_schema import DocumentRow
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.multiple_testing import Correction
    from cerank.evaluation.studies.pooling import CollectionDifference, PooledResult, PooledRow
    from cerank.evaluation.verdicts.terms import Margin

SAVED = ".json"
_WIDTH = 37  # characters of a forest plot in a terminal


def pool(
    settings: Settings,
    request: ComparisonRequest,
    correction: Correction = "holm",
    alpha: float = 0.05,
    in_domain: Sequence[str] = (),
) -> PooledResult:
    """Return the differences of the named systems, pooled over the collections that they were compared on.

    Args:
        settings: where the lab and caches are.
        request: as targets either files that end in `.json`, each a comparison that `cerank compare --json` or `--full`
            printed, or runs as for `cerank compare`, which are compared on all of their test sets.
        correction: over the pooled rows.
        alpha: the error rate of all pooled verdicts.
        in_domain: test sets that training data came from; () finds those of runs.

    Raises:
        UsageError: saved comparisons and runs are mixed, a file is no comparison, or there are too few collections.
    """
    from cerank.evaluation.measures import canonical
    from cerank.evaluation.studies import pooling

    saved = [text for text in request.targets if text.endswith(SAVED)]
    if saved and len(saved) < len(request.targets):
        other = next(text for text in request.targets if text not in saved)
        hint = "save a comparison of the runs first: `cerank compare A B --json > test-set.json`"
        raise UsageError(f"saved comparisons and runs cannot be mixed: '{other}' is no {SAVED} file", hint=hint)
    notes: tuple[str, ...] = ()
    trained: frozenset[str] = frozenset()
    if saved:
        if request.dataset:
            raise UsageError("saved comparisons know their test sets", where="--dataset", hint="omit it")
        rows = pooling.merged([row for text in saved for row in _read(Path(text))])
    elif len(request.targets) < 2:
        raise UsageError("a comparison needs at least two rankings", hint="such as `cerank pool A B`")
    else:
        comparison = comparisons.compare(settings, request)
        rows, notes = pooling.of_comparison(comparison), pooling.shared_queries(comparison)
        trained = in_domain_of(settings, request.targets, {row.collection for row in rows})
    if in_domain:
        trained = named_in_domain(in_domain, {row.collection for row in rows})
    if request.measures:
        measures = {canonical(name, "--measure") for name in request.measures}
        rows = tuple(row for row in rows if row.measure in measures)
    chosen = {canonical(name, "--margin"): value for name, value in margins.numbers(request.margins).items()}
    unknown = sorted(chosen.keys() - {row.measure for row in rows})
    if unknown:
        known = ", ".join(sorted({row.measure for row in rows})) or "nothing"
        raise UsageError(f"a margin for {unknown[0]}: it is not compared, {known} is", where="--margin")
    result = pooling.pooled(rows, margins=_margins(chosen), alpha=alpha, correction=correction, in_domain=trained)
    return msgspec.structs.replace(result, notes=(*result.notes, *notes))


def _margins(chosen: dict[str, float]) -> dict[str, Margin]:
    from cerank.evaluation.verdicts.terms import Margin, checked_margin, width_of

    return {name: checked_margin(Margin(value=value), name, width_of(name)) for name, value in chosen.items()}


def _read(path: Path) -> list[CollectionDifference]:
    """Return the differences of a saved comparison, of either kind.

    Raises:
        UsageError: it cannot be read, or is no comparison.
    """
    from cerank.app.comparison.comparison_schema import ComparisonDocument
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies import pooling

    try:
        data = path.expanduser().read_bytes()
    except FileNotFoundError:
        raise MissingError(
            "no such file", where=str(path), hint="`cerank compare A B --json > FILE` makes one"
        ) from None
    except OSError as error:
        raise os_error(error, path) from error
    try:
        is_complete = "systems" in json_records.decode(data, dict[str, msgspec.Raw])
        if is_complete:
            return list(pooling.of_comparison(json_records.decode(data, Comparison)))
        document = json_records.decode(data, ComparisonDocument, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "`cerank compare A B --json > FILE` makes one"
        raise UsageError(f"the file is not a saved comparison: {error}", where=str(path), hint=hint) from error
    sources = {(source.system, source.dataset, source.first_stage): source for source in document.meta.rankings}
    hashes = {(source.system, source.dataset): source.qrels_sha256 for source in document.meta.rankings}

    def ranked(row: DocumentRow) -> tuple[tuple[str, str], ...]:
        """Return the hashes of both rankings; () where one is not known, as that of a mean of seeds."""
        sides = [sources.get((name, row.dataset, row.first_stage)) for name in (row.against, row.system)]
        known = [side.ranking_sha256 for side in sides if side is not None and side.ranking_sha256]
        return ((known[0], known[1]),) if len(known) == 2 else ()

    return [
        pooling.CollectionDifference(
            collection=row.dataset,
            measure=row.measure,
            left=row.against,
            right=row.system,
            queries=row.queries,
            difference=row.difference,
            error=row.error or 0.0,
            first_stages=(row.first_stage,) if row.first_stage else (),
            qrels_sha256=hashes.get((row.system, row.dataset), ""),
            rankings=ranked(row),
            limits=pooling.limits_above(row.measure, row.mean - row.difference),
            unseen=pooling.unseen_in(row.measure, None if row.ties is None else row.queries - row.ties),
        )
        for row in document.rows
        if row.difference is not None and row.verdict != "identical"
    ]


def of_comparison(
    settings: Settings, request: ComparisonRequest, comparison: Comparison, in_domain: Sequence[str] = ()
) -> PooledResult | None:
    """Return what a comparison comes to over its collections; None where it has one only.

    Args:
        settings: where the lab is.
        request: what was compared.
        comparison: the comparison.
        in_domain: test sets that training data came from; () finds those of runs.

    Raises:
        UsageError: a test set that is called in-domain was not compared on; they cannot be pooled.
    """
    domain = in_domain_for(settings, request, comparison, in_domain)
    return pooled_rows(comparison, domain) if has_several(comparison) else None


def has_several(comparison: Comparison) -> bool:
    """Return whether a comparison is on several collections."""
    return len({row.condition.dataset for row in comparison.rows}) > 1


def in_domain_for(
    settings: Settings, request: ComparisonRequest, comparison: Comparison, in_domain: Sequence[str] = ()
) -> frozenset[str]:
    """Return which of a comparison's collections are in-domain, as a user says, or else by the runs' training data.

    Raises:
        UsageError: one that the user names was not compared on.
    """
    collections = {row.condition.dataset for row in comparison.rows}
    if in_domain:
        return named_in_domain(in_domain, collections)
    return in_domain_of(settings, request.targets, collections) if len(collections) > 1 else frozenset()


def pooled_rows(comparison: Comparison, in_domain: frozenset[str], family: int = 0) -> PooledResult:
    """Return a comparison's rows pooled over its collections, in a family of their own.

    Args:
        comparison: on several collections.
        in_domain: those that training data came from.
        family: comparisons that share the error rate with these lines, them among these; 0 takes the lines alone.

    Raises:
        UsageError: they cannot be pooled.
    """
    from cerank.evaluation.studies import pooling

    terms = comparison.terms
    result = pooling.pooled(
        pooling.of_comparison(comparison),
        margins={name: margin for name, margin in terms.margins.items() if margin.share is None},
        alpha=terms.alpha,
        correction=correction_of(terms.correction),
        in_domain=in_domain,
        family=family,
    )
    return msgspec.structs.replace(result, notes=(*result.notes, *pooling.shared_queries(comparison)))


def correction_of(chosen: Correction) -> Correction:
    """Return how pooled rows are adjusted, for the correction of a table: Holm's where it needs values by query."""
    return "holm" if chosen in {"auto", "max-t"} else chosen


def sentences(result: PooledResult, pairs: Collection[tuple[str, str, str]]) -> tuple[str, ...]:
    """Return a sentence for each pooled row of some pairs of systems.

    Args:
        result: the pooled rows.
        pairs: (measure, left, right) of those that are told.
    """
    from cerank.evaluation.answers import beyond_interval
    from cerank.evaluation.answers import shown as shown_verdict

    out = []
    for row in result.rows:
        if (row.measure, row.left, row.right) not in pairs:
            continue
        mean, judgment = row.pooled.estimate.difference, row.judgment
        which = f"{row.domain} " if row.domain else ""
        where = f"Over {'' if row.domain else 'all '}{counted(row.pooled.collections, f'{which}collection')}"
        low, high = f"{judgment.low:+.4f}", f"{judgment.high:+.4f}"
        beyond = f" ({text})" if (text := beyond_interval(judgment)) else ""
        out.append(
            f"{where}, {row.right} against {row.left}: {shown_verdict(judgment, mean)}, {mean:+.4f} {row.measure} on "
            f"average, {_interval_name(result)} {low} to {high}{beyond}."
        )
    return tuple(out)


def _interval_name(result: PooledResult) -> str:
    """Return the confidence of the intervals of the means, and whether they hold together."""
    if result.family > 1 and result.correction in {"holm", "bonferroni"}:
        return f"simultaneous {100 * (1 - result.alpha):.4g} % interval"
    return f"{100 * (1 - result.rows[0].judgment.level):.4g} % interval"


def if_possible(
    comparison: Comparison, in_domain: frozenset[str] = frozenset(), family: int = 0
) -> tuple[PooledResult | None, str]:
    """Return a comparison pooled over its collections; where there are several and it cannot be, None and why.

    The arguments are those of `pooled_rows`.
    """
    if not has_several(comparison):
        return None, ""
    try:
        return pooled_rows(comparison, in_domain, family), ""
    except UsageError as error:
        return None, f"not pooled over the collections: {error.what}"


# --- tables


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
        columns.append(Column("plot", f"0 is {_ZERO}", "name"))
        drawn = _drawn(lines)
        body = [(*cells[3:], drawing) for cells, drawing in zip(body, drawn, strict=True)]
    return Table("collections", tuple(columns), tuple(body), title)


ForestLine = tuple[str, int | None, float, float, float, float | None]  # name, queries, difference, low, high, weight


def forest_lines(row: PooledRow, alpha: float = 0.05) -> list[ForestLine]:
    """Return what a forest plot shows: each collection, their mean, and what is to be expected on a new one."""
    from scipy.special import stdtrit

    from cerank.evaluation.verdicts.verdict import cut

    lines: list[ForestLine] = []
    for each, weight in zip(row.collections, row.pooled.weights, strict=True):
        half = -float(stdtrit(max(each.queries - 1, 1), alpha / 2)) * each.error
        low, high = cut(each.difference - half, each.difference + half, each.limits)
        lines.append((each.collection, each.queries, each.difference, low, high, weight))
    of = row.pooled
    lines.append(("mean", None, of.estimate.difference, row.judgment.low, row.judgment.high, None))
    if of.prediction is not None:
        lines.append(("a new collection", None, of.estimate.difference, *of.prediction, None))
    return lines


_ZERO = "┊"


def _drawn(lines: Sequence[ForestLine]) -> list[str]:
    """Return each line's interval as characters on one scale, 0 marked; what reaches beyond it ends in an arrow."""
    measured = [line for line in lines if line[5] is not None] + [line for line in lines if line[0] == "mean"]
    low, high = min(0.0, *(line[3] for line in measured)), max(0.0, *(line[4] for line in measured))
    span = 1.1 * max(line[4] - line[3] for line in lines if line[5] is not None) * 2
    low, high = max(low, -span), min(high, span)

    def place(value: float) -> int:
        return round((min(max(value, low), high) - low) / (high - low) * (_WIDTH - 1))

    drawings = []
    for name, _, difference, least, most, weight in lines:
        cells = [" "] * _WIDTH
        cells[place(0.0)] = _ZERO
        for at in range(place(least), place(most) + 1):
            cells[at] = "─" if weight is not None or name == "mean" else "┄"
        cells[place(least)] = "◂" if least < low else "├"
        cells[place(most)] = "▸" if most > high else "┤"
        cells[place(difference)] = "■" if weight is not None else "◆"
        drawings.append("".join(cells).rstrip())
    return drawings


# --- a picture


def forest_svg(row: PooledRow, alpha: float = 0.05) -> str:
    """Return the forest plot of one pooled row as an SVG document: squares by weight, a diamond for the mean."""
    lines = forest_lines(row, alpha)
    inner = [line for line in lines if line[5] is not None or line[0] == "mean"]
    collections = [line for line in lines if line[5] is not None]
    widest = max(line[4] - line[3] for line in collections)
    # 0 is always in sight, and what reaches far beyond all collections is cut.
    low = min(0.0, max(min(line[3] for line in inner), min(line[3] for line in collections) - widest))
    high = max(0.0, min(max(line[4] for line in inner), max(line[4] for line in collections) + widest))
    left, right, top, step = 190, 560, 44, 24
    height = top + step * len(lines) + 40

    def across(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    def text(x: float, y: float, words: str, anchor: str = "start", tone: str = "ink") -> str:
        fill = "#222" if tone == "ink" else "#666"
        return f'<text class="cr-{tone}" fill="{fill}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'

    title = escapes.html(f"{row.right} against {row.left} by {row.measure}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" height="{height}" role="img" '
        f'aria-label="{title}" font-family="sans-serif" font-size="12">',
        "<style>.cr-ink{fill:#222}.cr-soft{fill:#666}.cr-axis{stroke:#999}@media(prefers-color-scheme:dark)"
        "{.cr-ink{fill:#eee}.cr-soft{fill:#aaa}.cr-axis{stroke:#777}}</style>",
        text(10, 20, title),
        f'<line class="cr-axis" stroke="#999" stroke-dasharray="3 3" x1="{across(0):.1f}" x2="{across(0):.1f}" '
        f'y1="{top - 12}" y2="{top + step * len(lines)}"/>',
    ]
    for number, (name, queries, difference, least, most, weight) in enumerate(lines):
        y = top + step * number + 4
        many = "" if queries is None else f" ({queries:,})"
        parts.append(text(10, y + 4, escapes.html(name[:22]) + many))
        dash = "" if weight is not None or name == "mean" else ' stroke-dasharray="4 3"'
        parts.append(
            f'<line stroke="#0072B2" stroke-width="1.6"{dash} x1="{across(least):.1f}" x2="{across(most):.1f}" '
            f'y1="{y}" y2="{y}"/>'
        )
        x = across(difference)
        if weight is not None:
            half = 2 + 6 * math.sqrt(weight)
            parts.append(
                f'<rect fill="#0072B2" x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" '
                f'height="{2 * half:.1f}"/>'
            )
        elif name == "mean":
            corners = f"{across(least):.1f},{y} {x:.1f},{y - 7} {across(most):.1f},{y} {x:.1f},{y + 7}"
            parts.append(f'<polygon fill="#D55E00" points="{corners}"/>')
        share = "" if weight is None else f"  {100 * weight:.0f} %"
        parts.append(text(right + 16, y + 4, f"{difference:+.4f} [{least:+.4f}, {most:+.4f}]{share}"))
    axis = top + step * len(lines)
    parts.append(f'<line class="cr-axis" stroke="#999" x1="{left}" x2="{right}" y1="{axis}" y2="{axis}"/>')
    for value in dict.fromkeys((low, 0.0, high)):
        parts.append(text(across(value), axis + 16, f"{value:+.3f}" if value else "0", "middle", "soft"))
    caption = f"{100 * (1 - alpha):.3g} % intervals; square: weight; diamond: mean; dashed: prediction"
    parts.append(text(10, axis + 34, caption, tone="soft"))
    return "".join([*parts, "</svg>\n"])


# --- which collections are in-domain: those whose documents a system was trained on (BEIR, NeurIPS 2021)

_SAME = {  # collections that are the same passages or documents, or a sample of them
    "beir/msmarco": "msmarco-passage",
    "nano-beir/msmarco": "msmarco-passage",
    "nano-beir/webis-touche2020": "beir/webis-touche2020",
}
_TWO_PARTS = ("beir", "nano-beir", "lotte", "clueweb22")  # the first part of these ids names no collection


def collection_of(name: str) -> str:
    """Return what is common to the names of all datasets over one collection.

    >>> [collection_of(name) for name in ("dl19", "beir/msmarco/dev", "nano-beir/scifact", "/data/med[:60%]")]
    ['msmarco-passage', 'msmarco-passage', 'beir/scifact', '/data/med']
    """
    whole = whole_and_part(name)[0]
    if whole.startswith(("/", "./", "../", "~")):
        return whole.partition("#")[0]
    parts = id_of(whole).split("/")
    collection = "/".join(parts[:2] if parts[0] in _TWO_PARTS else parts[:1])
    collection = _SAME.get(collection, collection)
    return collection.replace("nano-beir/", "beir/")


def trained_on(plan: Plan, system: str) -> frozenset[str]:
    """Return the collections that a system of a run learned from: those of its stages, up to its own."""
    recipe = plan.recipe
    if system not in recipe.chain:
        return frozenset()
    used = [recipe.stages[name].dataset or recipe.data.train for name in recipe.chain[: recipe.chain.index(system) + 1]]
    names = [part.name for name in used for part in (sets_of(name) if is_mixture(name) else (WeightedSet(name),))]
    return frozenset(map(collection_of, names))


def in_domain_of(settings: Settings, texts: Sequence[str], tests: Collection[str]) -> frozenset[str]:
    """Return those test sets, by their short names, whose collection any of the named runs was trained on."""
    members = [
        member
        for target in targets_of(settings.lab, texts)
        for member in (target.members if isinstance(target, SeedsTarget) else (target,))
    ]
    return in_domain_of_runs([member for member in members if isinstance(member, RunTarget)], tests)


def in_domain_of_runs(runs: Sequence[RunTarget], tests: Collection[str]) -> frozenset[str]:
    """Return those test sets, by their short names, whose collection any of some systems of runs was trained on."""
    ours: set[str] = set()
    for run in runs:
        learned = trained_on(run.plan, run.system)
        ours |= {short_name(test) for test in run.plan.recipe.data.test if collection_of(test) in learned}
    return frozenset(ours & set(tests))


def named_in_domain(names: Sequence[str], tests: Collection[str]) -> frozenset[str]:
    """Return the test sets that a user calls in-domain, by their short names.

    Raises:
        UsageError: one of them is not among those compared on.
    """
    out = set()
    for name in names:
        fits = [test for test in tests if test in {name, short_name(name)} or id_of(test) == id_of(name)]
        fits = fits or [test for test in tests if test == last_part(name)]
        if not fits:
            what = f"'{shown(name, 120)}' is none of the test sets: {', '.join(sorted(tests))}"
            raise UsageError(what, where="--in-domain", hint=nearest(name, sorted(tests)), code="not-tested")
        out |= set(fits)
    return frozenset(out)
