"""The marks of significance of a published table, computed again by the paper's own test.

Rank-DistiLLM's notebook tests with PyTerrier's `Experiment(baseline=..., correction="holm")`: a two-sided paired t-test
of every other system against the baseline, adjusted by Holm's method within one column, on the queries that all runs of
the column have and that are judged.

Invariant: pure functions of per-query values; this is no verdict of cerank, which counts a missing query as 0 and
corrects over the whole table.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import corrected
from cerank.evaluation.significance import paired

ALPHA = 0.05


class PaperColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a published table, computed again: means, adjusted p, and the marks."""

    queries: tuple[str, ...]  # that every run has
    means: dict[str, float]  # label -> mean over those queries
    ps: dict[str, float]  # label -> p of its difference from the baseline, adjusted; the baseline itself has none

    @property
    def different(self) -> frozenset[str]:
        """Return the labels that the paper would mark as significantly different from the baseline."""
        return frozenset(label for label, p in self.ps.items() if p < ALPHA)


def paper_column(values: Mapping[str, Mapping[str, float]], baseline: str) -> PaperColumn:
    """Return a column by the paper's test.

    Args:
        values: label -> query id -> value, of the queries that the run has and that are judged.
        baseline: label of the system that the others are compared with; without it there are means alone.

    Raises:
        UsageError: no query is in all of the runs.

    Example:
        >>> column = paper_column({"a": {"1": 0.1, "2": 0.2, "3": 0.3}, "b": {"2": 0.9, "3": 0.5, "4": 0.9}}, "a")
        >>> column.queries, column.means["b"], sorted(column.different)
        (('2', '3'), 0.7, [])
    """
    shared = set[str].intersection(*(set(row) for row in values.values())) if values else set[str]()
    if not shared:
        raise UsageError("no query is in all of the runs", hint="are all of them over the same test set?")
    queries = tuple(sorted(shared))
    rows = {label: [row[query] for query in queries] for label, row in values.items()}
    means = {label: statistics.fmean(row) for label, row in rows.items()}
    others = [label for label in rows if label != baseline]
    if baseline not in rows or len(queries) < 2 or not others:
        return PaperColumn(queries=queries, means=means, ps={})
    ps = [paired(rows[baseline], rows[label]).p for label in others]
    return PaperColumn(queries=queries, means=means, ps=dict(zip(others, corrected(ps, "holm").ps, strict=True)))
