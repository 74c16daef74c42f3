"""The simulation of cross-validation in small: the verdict is right about these models, and wrong about recipes."""

from __future__ import annotations

from tests.simulations import fold_errors
from tests.simulations.fold_errors import ALL_QUERIES, BLOCKED, OVER_FOLDS, PLAIN

ROUNDS = 400
MOST = 0.05 + 0.022  # two standard errors of .05 in 400 draws


def test_about_these_models_the_verdict_errs_no_more_than_promised_whatever_the_luck_of_folds():
    found = fold_errors.rates(ROUNDS, 50, 0.03, shared=None)
    assert max(found[ALL_QUERIES], found[BLOCKED]) <= MOST
    assert found[ALL_QUERIES] <= found[BLOCKED] + 0.01  # what blocking takes out of the variance


def test_about_recipes_queries_err_much_more_and_corrected_folds_least():
    found = fold_errors.rates(ROUNDS, 50, 0.03, shared=0.5)
    assert min(found[ALL_QUERIES], found[BLOCKED]) > 0.2
    assert found[OVER_FOLDS] < found[PLAIN] < found[ALL_QUERIES]
    assert fold_errors.rates(ROUNDS, 50, 0.03, shared=0.0)[OVER_FOLDS] <= MOST
