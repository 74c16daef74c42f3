"""The predictor of hard groups: the probabilities of naive Bayes, learned group by group."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from cerank.training.filtering.token_predictor import TokenPredictor


def test_its_probabilities_are_those_of_scikit_learns_bernoulli_naive_bayes():
    bayes = pytest.importorskip("sklearn.naive_bayes")
    draw = random.Random(3)
    groups = [set(draw.sample(range(40), draw.randint(1, 20))) for _ in range(60)]
    is_hard = [bool(tokens & {1, 2, 3}) for tokens in groups]
    weights = [float(draw.choice([1, 1, 20])) for _ in groups]
    predictor = TokenPredictor.untrained(40)
    for start in range(0, 50, 7):
        part = slice(start, min(start + 7, 50))
        predictor = predictor.updated(groups[part], is_hard[part], weights[part])
    presence = np.array([[token in tokens for token in range(40)] for tokens in groups])
    hard = sum(weight for weight, value in zip(weights[:50], is_hard, strict=False) if value)
    total = sum(weights[:50])
    prior = [(total - hard + 1) / (total + 2), (hard + 1) / (total + 2)]  # smoothed: neither class is ever impossible
    theirs = bayes.BernoulliNB(class_prior=prior)
    theirs.fit(presence[:50], is_hard[:50], sample_weight=weights[:50])
    assert predictor.log_probabilities(groups[50:]) == pytest.approx(theirs.predict_log_proba(presence[50:]), abs=1e-9)


def test_before_it_has_learned_both_are_equally_likely():
    logs = TokenPredictor.untrained(8).log_probabilities([{1, 5}, {2}])
    assert logs == pytest.approx(np.full((2, 2), math.log(0.5)))


def test_learning_gives_another_predictor_and_leaves_the_first_as_it_was():
    first = TokenPredictor.untrained(8)
    second = first.updated([{1}, {2}], [True, False], [1.0, 1.0])
    assert first == TokenPredictor.untrained(8)
    easy, hard = second.log_probabilities([{1}])[0]
    assert hard > easy
