"""Why two rankings differ: one query document by document, or the queries that carry a difference and what they share.

Invariant: the parts of a query sum to its difference in the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cerank.app.comparison.comparison_session import ComparisonSession, RankingPair, differences
from cerank.errors import UsageError
from cerank.registry import nearest
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison, Row
    from cerank.evaluation.sensitivity.document_shares import DocumentShare

CARRYING = 5  # queries shown with the largest gains, and as many with the largest losses

QUERY_NOTE = (
    "each document's part of the measure's value on either side; the differences sum to the query's. A document "
    "without a grade is not judged and counts as not relevant"
)
FEATURES_NOTE = (
    "rho: Spearman's rank correlation with the queries' differences; features are fixed beforehand, p adjusted over "
    "them (Holm). Correlations are no causes and make no verdict"
)


def one_query(session: ComparisonSession, comparison: Comparison, query: str) -> list[Table]:
    """Return, for each row of a comparison of two rankings, the documents that make the query's difference.

    Raises:
        UsageError: the query is in no row, or a measure is no sum over documents.
    """
    out = []
    known: dict[str, None] = {}
    for row in comparison.rows:
        listed = {each.query: each for each in differences(comparison, row)}
        known |= dict.fromkeys(listed)
        if query not in listed:
            continue
        of_query = listed[query]
        pair = session.pair(row.left, row.right, row.condition)
        parts = pair.parts(row.measure, query)
        title = (
            f"{row.measure} of query {query} on {row.condition}: {of_query.left:.4f} by {row.left}, "
            f"{of_query.right:.4f} by {row.right}, difference {of_query.difference:+.4f}"
        )
        out.append(_documents(row, parts, title))
    if not out:
        raise UsageError(f"no query '{query}' is compared", where="--query", hint=nearest(query, known))
    return out


def _documents(row: Row, parts: tuple[DocumentShare, ...], title: str) -> Table:
    columns = (
        Column("measure", "measure", priority=4),
        Column("document", "document"),
        Column("grade", "grade", "number", 0),
        Column("left_rank", f"rank by {row.left}", "number", 0),
        Column("right_rank", f"rank by {row.right}", "number", 0),
        Column("what", "what happened", priority=2),
        Column("left", f"part of {row.left}", "number", priority=1),
        Column("right", f"part of {row.right}", "number", priority=1),
        Column("difference", "difference", "signed"),
    )
    rows = tuple(
        (
            *(row.measure, part.document, part.grade, part.left_rank, part.right_rank, _moved(part)),
            *(part.left, part.right, part.difference),
        )
        for part in parts
    )
    total = sum(part.difference for part in parts)
    empty = "the query has the same value on both sides, document by document"
    return Table("query", columns, rows, title, (f"sum {total:+.4f}; {QUERY_NOTE}",), empty)


def _moved(part: DocumentShare) -> str:
    """Return what happened to a document from the left ranking to the right one."""
    left, right = part.left_rank, part.right_rank
    judged = "unjudged, " if part.grade is None else ""
    if left is None or right is None:
        return judged + ("only in the first" if right is None else "only in the second")
    if left == right:
        return judged + "same rank"
    return f"{judged}{'up' if right < left else 'down'} {abs(left - right)}"


def all_queries(session: ComparisonSession, comparison: Comparison) -> list[Table]:
    """Return the queries that carry each row of a comparison of two, and the features that go with its differences."""
    carrying, features = [], []
    for row in comparison.rows:
        listed = differences(comparison, row)
        gains = [each for each in listed if each.difference > 0][:CARRYING]
        losses = [each for each in listed if each.difference < 0][-CARRYING:]
        pair = session.pair(row.left, row.right, row.condition)
        texts = pair.query_texts()
        where = (row.condition.dataset, row.condition.first_stage, row.measure)
        carrying += [
            (*where, each.query, each.left, each.right, each.difference, texts.get(each.query, ""))
            for each in [*gains, *losses]
        ]
        features += [(*where, *each) for each in _features(session, row, pair, {q.query: q.difference for q in listed})]
    place = (
        Column("dataset", "dataset"),
        Column("first_stage", "first stage", priority=3),
        Column("measure", "measure"),
    )
    row = comparison.rows[0]
    return [
        Table(
            "queries",
            (
                *place,
                Column("query", "query"),
                Column("left", row.left, "number", priority=1),
                Column("right", row.right, "number", priority=1),
                Column("difference", "difference", "signed"),
                Column("text", "text", priority=2),
            ),
            tuple(carrying),
            f"Queries with the largest gains and losses of {row.right} against {row.left}",
            (f"at most {CARRYING} of each; --query ID tells one document by document",),
            "no query differs",
        ),
        Table(
            "features",
            (
                *place,
                Column("feature", "feature"),
                Column("queries", "queries", "number", 0),
                Column("rho", "rho", "signed", 2),
                Column("p", "p", "p", priority=1),
                Column("p_corrected", "adjusted p", "p"),
            ),
            tuple(features),
            "Features of the queries",
            (FEATURES_NOTE, *session.missing_features(row.left, row.condition)),
        ),
    ]


def _features(
    session: ComparisonSession, row: Row, pair: RankingPair, by_query: Mapping[str, float]
) -> list[tuple[str, int, float | None, float | None, float | None]]:
    """Return the correlations of a row's differences with the features that are known of its queries."""
    from cerank.evaluation.sensitivity.query_features import FEATURES, correlations

    known = pair.features(row.measure)
    first = session.first_stage_values(row.left, row.condition, row.measure)
    if first:
        known["first_stage"] = first
    return [
        (FEATURES[each.feature], each.queries, each.rho, each.p, each.p_corrected)
        for each in correlations(by_query, known)
    ]
