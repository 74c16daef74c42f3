"""Whether a teacher's order depends on where a passage stands, and whether it says the same thing twice."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping

import msgspec

from cerank.core.seeds import derive
from cerank.teachers.judging.agreement import kendall_tau
from cerank.teachers.make import Session
from cerank.teachers.parsing.choices import Order
from cerank.teachers.parsing.permutations import Permutation
from cerank.teachers.procedures.steps import Asker, Outcome, Procedure, PromptedQuery, Steps

_SHUFFLES = 2  # random orders of each window, beside the given order


class Stability(msgspec.Struct, frozen=True):
    """How alike a teacher's orders of the same passages are."""

    queries: int  # that were compared
    tau: float  # mean of Kendall's tau
    flips: float  # share of pairs of orders whose first passages differ


def position_bias(session: Session) -> Stability | None:
    """Return how alike the orders of the first window are when its passages are shown in other orders.

    A teacher without position bias gives 1 and 0, as far as it is sure of its order. None for kinds without windows.
    """
    if session.spec.kind not in {"listwise", "first"}:
        return None
    given = session.carry_out(_one_window(0)).outcomes
    others = [session.carry_out(_one_window(number)).outcomes for number in range(1, _SHUFFLES + 1)]
    return _stability(given, others)


def consistency(session: Session) -> Stability | None:
    """Return how alike the orders of the first window are when the same prompt is answered twice."""
    if session.spec.kind not in {"listwise", "first"}:
        return None
    return _stability(
        session.carry_out(_one_window(0)).outcomes, [session.carry_out(_one_window(0), sample=1).outcomes]
    )


def _stability(given: Mapping[str, Outcome], others: list[dict[str, Outcome]]) -> Stability | None:
    pairs = [(given[query].order, other[query].order) for other in others for query in other if query in given]
    if not pairs:
        return None
    queries = {query for other in others for query in other if query in given}
    taus = [kendall_tau(first, other) for first, other in pairs]
    flips = sum(first[0] != other[0] for first, other in pairs) / len(pairs)
    return Stability(len(queries), statistics.fmean(taus), flips)


def _one_window(number: int) -> Procedure:
    """Return the procedure that ranks the first window alone, shuffled unless `number` is 0."""

    def procedure(query: PromptedQuery, asker: Asker) -> Steps:
        places = list(range(min(asker.spec.window, len(query.passages))))
        if len(places) < 2:
            return Outcome(tuple(places))
        if number:
            random.Random(derive(number, "position bias", query.id)).shuffle(places)
        reads_tokens = asker.spec.kind == "first"
        output, expected = (2, 1) if reads_tokens else (8 * len(places) + 32, 5 * len(places))
        (value,) = yield [asker.call(query, places, output, expected)]
        if not isinstance(value, Permutation | Order):
            raise TypeError(f"a window is answered by an order, not by {value!r}")
        return Outcome(tuple(places[place] for place in value.order))

    return procedure
