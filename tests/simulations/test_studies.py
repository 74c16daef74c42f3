"""The simulation of pooled means, gates, skewed tables and ties in small: no error is above what is promised."""

from __future__ import annotations

import pytest

from tests.simulations.studies import few_and_tied, gates, pooled, repeated_tables, skewed_tables


def test_a_pooled_verdict_errs_no_more_than_promised_with_three_collections():
    rates = [rate for rate in pooled(60, sizes=(3,)) if "decides" in rate.test]
    assert len(rates) == 3
    assert max(rate.rate for rate in rates) <= 0.05 + 0.057  # two standard errors of .05 in 60 draws


def test_a_gate_keeps_alpha_over_all_looks_where_each_look_alone_does_not():
    rates = {rate.test: rate.rate for rate in gates(150, looks=(20,))}
    assert rates["6 / (pi k)^2"] <= 0.05 + 0.036
    assert rates["each look at .05"] > 0.25


def test_verdicts_of_all_looks_keep_alpha_at_the_level_of_the_last_and_not_one_by_one():
    rates = list(repeated_tables(60, looks=(20,)))
    promised = [rate.rate for rate in rates if "promised" in rate.test]
    assert len(promised) == 2
    assert max(promised) <= 0.05 + 0.057
    assert min(rate.rate for rate in rates if rate.test == "each table at .05") > 0.2


@pytest.mark.slow
def test_skewed_tables_err_a_little_more_often_and_few_tied_queries_less():
    assert max(rate.rate for rate in skewed_tables(6)) <= 0.5  # about .07 is seen: four or more of 6 are unlikely
    rates = [rate.rate for rate in few_and_tied(30) if "decides" in rate.test]
    assert max(rates) <= 0.05 + 0.08
