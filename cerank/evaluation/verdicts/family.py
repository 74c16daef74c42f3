"""From the tests of all rows to adjusted p and a level for their intervals: the second step of a comparison.

Invariant: the tests of a difference and of equivalence of all rows are one family.
"""

from __future__ import annotations

from collections.abc import Sequence

from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.evaluation import multiple_testing
from cerank.evaluation.multiple_testing import Corrected
from cerank.evaluation.significance import Estimate, differences, p_equivalent
from cerank.evaluation.verdicts.row_tests import RowTest
from cerank.evaluation.verdicts.terms import Terms


def adjusted(family: Sequence[RowTest], terms: Terms) -> Corrected:
    """Adjust the tests of all rows, of a difference and of equivalence, as one family of comparisons."""
    equivalences = [
        p_equivalent(row_test.test, margin.value) if (margin := row_test.sized(terms.margins)) else None
        for row_test in family
    ]
    multiple_testing.refuse_smaller(terms.family, len(family))
    method = terms.correction
    if method == "auto":
        # Flipping signs needs the values of all rows, on the same queries, and has no form for recipes.
        has_same_queries = len(family) > 1 and len({row_test.query_set for row_test in family}) == 1
        can_flip = has_same_queries and terms.claim == "checkpoints" and terms.family <= len(family)
        method = "max-t" if can_flip else "holm"
    if method != "max-t":
        ps = [row_test.test.p() for row_test in family]
        return multiple_testing.corrected(ps, method, equivalent=equivalences, alpha=terms.alpha, family=terms.family)
    if terms.claim == "recipes" or terms.family > len(family):
        why = "has no form for recipes" if terms.claim == "recipes" else "needs the values of the whole declared family"
        raise UsageError(f"the max-t correction {why}", hint="use holm")
    return _by_sign_flips(family, equivalences, terms)


def _by_sign_flips(family: Sequence[RowTest], equivalences: Sequence[float | None], terms: Terms) -> Corrected:
    """Adjust by the largest |t| under flipped signs; all rows over the same queries are flipped together."""
    import numpy as np

    places_of: dict[tuple[str, frozenset[str]], list[int]] = {}
    for place, row_test in enumerate(family):
        places_of.setdefault(row_test.query_set, []).append(place)
    blocks = []
    for places in places_of.values():
        columns = []
        for place in places:
            row_test = family[place]
            gains = dict(zip(row_test.queries, differences(*row_test.values).tolist(), strict=True))
            columns.append([gains[query] for query in sorted(row_test.queries)])
        blocks.append(np.column_stack(columns))
    order = [place for places in places_of.values() for place in places]
    statistics, equivalent = [], []
    for place in order:
        row_test, p = family[place], equivalences[place]
        statistics.append(_as_t(row_test, row_test.test.p() / 2, 0.0))
        margin = row_test.sized(terms.margins)
        equivalent.append(None if p is None or margin is None else _as_t(row_test, p, margin.value))
    flips = multiple_testing.max_t(
        blocks,
        statistics=statistics,
        equivalent=equivalent,
        is_ranked=[family[place].basis == "exact sign flips" for place in order],
        alpha=terms.alpha,
        rounds=terms.rounds,
        seed=derive(terms.seed, "max-t"),
    )
    place_in_order = {place: at for at, place in enumerate(order)}
    back = [place_in_order[place] for place in range(len(family))]
    return Corrected(
        method="max-t",
        family=len(family),
        alpha=terms.alpha,
        ps=tuple(flips.ps[at] for at in back),
        ps_equivalent=tuple(flips.ps_equivalent[at] for at in back),
        raw=tuple(flips.raw[at] for at in back),
        level=terms.alpha,
        level_equivalent=terms.alpha,
        critical=flips.critical,
    )


def _as_t(row_test: RowTest, p: float, margin: float) -> float:
    """Return the t against a difference of 0, or of the nearer margin; of an exact test the t with upper tail `p`."""
    from scipy.special import stdtrit

    test = row_test.test
    if isinstance(test, Estimate):
        size = abs(test.difference)
        return (margin - size if margin else size) / test.error
    return float(-stdtrit(row_test.figures.df, p))
