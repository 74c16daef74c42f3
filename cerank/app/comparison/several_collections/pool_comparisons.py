"""Comparisons on several collections pooled: from runs, from saved comparisons, and in sentences.

Invariant: what is pooled is named, collection by collection, beside the mean; nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, margins
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.several_collections.training_domains import in_domain_for, in_domain_of, named_in_domain
from cerank.errors import MissingError, UsageError, os_error
from cerank.files import json_records
from cerank.settings import Settings
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.app.comparison.comparison_schema import DocumentRow
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.multiple_testing import Correction
    from cerank.evaluation.studies.pooling import CollectionDifference, PooledResult
    from cerank.evaluation.verdicts.terms import Margin


SAVED = ".json"


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
