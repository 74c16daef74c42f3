"""The simulation of joint verdicts in small: what is promised holds within Monte Carlo error."""

from __future__ import annotations

import pytest

from tests.simulations.verdict_errors import paired_seeds, steps_and_intervals, whole_tables, worth_at_its_boundaries

ROUNDS = 150


@pytest.mark.slow
def test_an_answer_about_worth_errs_no_more_than_one_end_of_its_interval():
    rates = [rate for rate in worth_at_its_boundaries(ROUNDS) if "equal" in rate.population]
    assert len(rates) == 8
    assert max(rate.rate for rate in rates) <= 0.05 + 0.036  # two standard errors of .05 in 150 draws


def test_paired_seeds_keep_their_error_and_see_more_where_seeds_are_shared():
    rates = {
        (rate.question, rate.test, rate.queries): rate.rate for rate in paired_seeds(ROUNDS) if "90" in rate.population
    }
    errors = [rate for (question, test, _), rate in rates.items() if "equal" in question and "pairs" in test]
    assert max(errors) <= 0.05 + 0.036
    what = "finds a difference of 0.03 of recipes"
    assert rates[what, "seeds as pairs", 200] > rates[what, "seeds as two samples", 200] + 0.2


@pytest.mark.slow
def test_all_verdicts_of_a_table_together_err_no_more_than_promised():
    rates = list(whole_tables(60))
    assert len(rates) == 4
    assert max(rate.rate for rate in rates) <= 0.05 + 0.057  # two standard errors of .05 in 60 draws


@pytest.mark.slow
def test_intervals_as_shown_keep_their_promise_and_ones_that_follow_the_steps_would_not():
    rates = {(rate.question.rpartition(", ")[2], rate.test): rate.rate for rate in steps_and_intervals(300)}
    for method in ("max-t", "holm"):
        assert rates["as shown", method] <= 0.05 + 0.025  # two standard errors of .05 in 300 draws
        assert rates["ended at 0 by p", method] > rates["as shown", method]
        assert rates["by p (decides)", method] > rates["by the interval", method]
