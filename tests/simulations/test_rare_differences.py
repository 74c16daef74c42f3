"""The simulation of few queries that differ in small: equivalence errs no more than promised, and is still said."""

from __future__ import annotations

from tests.simulations.rare_differences import false_equivalences, true_equivalences

ROUNDS = 300


def test_equivalence_is_rarely_said_of_few_queries_where_rare_differences_make_up_the_margin():
    rates = list(false_equivalences(ROUNDS))
    decides = [rate for rate in rates if "decides" in rate.test and "of 0.5" not in rate.population]
    assert max(rate.rate for rate in decides) <= 0.05 + 0.025  # two standard errors of .05 in 300 draws
    alone = [rate for rate in rates if rate.test == "sign flips alone" and rate.queries == 5]
    assert min(rate.rate for rate in alone) > 0.2


def test_equal_systems_are_called_equivalent_where_enough_queries_tie():
    rates = [rate for rate in true_equivalences(ROUNDS) if "decides" in rate.test and "0.02" in rate.population]
    assert {rate.queries: rate.rate > 0.9 for rate in rates} == {5: False, 30: False, 54: True, 200: True}
