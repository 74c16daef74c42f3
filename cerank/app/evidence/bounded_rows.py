"""The rows of a comparison with what unjudged documents and the order of ties can change in them.

Invariant: what counts as another verdict is decided by the row's own interval beside its verdict, and by its margin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from cerank.core.rankings import Ranking
from cerank.evaluation.compare import Comparison, Row
from cerank.evaluation.sensitivity.verdict_bounds import JudgingCandidate, VerdictBounds, VerdictRule, bounds_of
from cerank.evaluation.significance import differences
from cerank.evaluation.systems import Condition, values_by_query

Qrels = Mapping[str, Mapping[str, int]]

LEGEND = (
    "unjudged: documents within the cutoff without a grade; judgments, ties: the mean difference over all that they "
    "could be; flips if k: found by a greedy search with the largest grade, fewer may do; holds: proven for all of them"
)


class NextJudgment(msgspec.Struct, frozen=True, kw_only=True):
    """A document to judge next, over all rows of a comparison."""

    dataset: str
    query: str
    document: str
    gain: float  # how far its judgment can move the mean difference of a row; the largest of all rows


def bounded(
    comparison: Comparison,
    ranking: Callable[[str, Condition], Ranking | None],
    qrels: Callable[[Condition], Qrels],
) -> tuple[Comparison, tuple[NextJudgment, ...]]:
    """Return the comparison with bounds in every row, and the documents to judge next, the most telling first.

    Args:
        comparison: the comparison.
        ranking: of a system by its label in a condition; None where it has none of its own, such as a mean of seeds.
        qrels: what was measured on in a condition.
    """
    rows, gains = [], dict[tuple[str, str, str], float]()
    for row in comparison.rows:
        sides = ranking(row.left, row.condition), ranking(row.right, row.condition)
        candidates: tuple[JudgingCandidate, ...] = ()
        if sides[0] is None or sides[1] is None:
            bounds = VerdictBounds(why_not="no bounds: a mean of seeds has no ranking of its own")
        elif row.verdict == "identical":
            bounds = VerdictBounds(why_not="identical rankings")
        else:
            rule, why_not = rule_of(comparison, row)
            bounds, candidates = bounds_of(row.measure, qrels(row.condition), sides[0], sides[1], rule, why_not=why_not)
        for each in candidates:
            key = row.condition.dataset, each.query, each.document
            gains[key] = max(gains.get(key, 0.0), each.gain)
        rows.append(msgspec.structs.replace(row, bounds=bounds))
    order = sorted(gains.items(), key=lambda item: (-item[1], item[0]))
    following = tuple(
        NextJudgment(dataset=dataset, query=query, document=document, gain=gain)
        for (dataset, query, document), gain in order
        if gain > 0
    )
    return msgspec.structs.replace(comparison, rows=tuple(rows)), following


def rule_of(comparison: Comparison, row: Row) -> tuple[VerdictRule | None, str]:
    """Return the rule by which a row's interval gives its verdict; None, and why, where no such interval does."""
    from scipy.special import stdtrit

    judgment, df = row.judgment, row.paired.df
    if not row.is_primary:
        return None, "descriptive: no verdict"
    if row.recipes is not None:
        return None, "about recipes, whose seeds decide, too"
    within = judgment.equivalence_level
    rule = VerdictRule(
        critical=float(-stdtrit(df, judgment.level / 2)),
        margin=None if judgment.margin is None else judgment.margin.value,
        critical_within=None if judgment.margin is None or within is None else float(-stdtrit(df, within)),
    )
    systems = {system.label: system for system in comparison.systems}
    _, values = values_by_query(systems[row.left], systems[row.right], row.condition, row.measure)
    gain, loss, is_within = rule.states(differences(*values))
    is_negligible = row.verdict in {"equivalent", "different but negligible"}
    if (gain or loss, is_within) != (judgment.is_different, is_negligible):
        return None, "the adjusted p decides, not the interval"
    return rule, ""
