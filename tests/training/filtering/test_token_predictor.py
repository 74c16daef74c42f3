"""The predictor of hard groups: the probabilities of naive Bayes, learned group by group."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from cerank.training.filtering.token_predictor import TokenPredictor


def examples(count):
    """Groups of tokens below 40, and which are hard: as many as are easy."""
    draw = random.Random(3)
    groups = [set(draw.sample(range(8, 40), draw.randint(1, 20))) | {draw.randrange(4)} for _ in range(count)]
    is_hard = [bool(at % 2) for at in range(count)]
    return [tokens | {4} if hard else tokens for tokens, hard in zip(groups, is_hard, strict=True)], is_hard


def test_with_as_many_easy_as_hard_groups_it_is_scikit_learns_bernoulli_naive_bayes():
    bayes = pytest.importorskip("sklearn.naive_bayes")
    groups, is_hard = examples(60)
    predictor = TokenPredictor.untrained(40)
    for start in range(0, 50, 7):
        part = slice(start, min(start + 7, 50))
        predictor = predictor.updated(groups[part], is_hard[part], [1.0] * len(groups[part]))
    presence = np.array([[token in tokens for token in range(40)] for tokens in [*groups, set(), set()]])
    learned = [*range(50), 60, 61]  # with one group without tokens in each class
    theirs = bayes.BernoulliNB().fit(presence[learned], [*is_hard[:50], False, True])
    assert predictor.log_probabilities(groups[50:]) == pytest.approx(
        theirs.predict_log_proba(presence[50:60]), abs=1e-9
    )


def test_a_weight_counts_a_group_several_times():
    groups, is_hard = examples(6)
    weighted = TokenPredictor.untrained(40).updated(groups, is_hard, [3.0, *[1.0] * 5])
    repeated = TokenPredictor.untrained(40).updated([groups[0]] * 2 + groups, [is_hard[0]] * 2 + is_hard, [1.0] * 8)
    assert weighted == repeated


def test_tokens_that_no_group_held_do_not_decide_for_the_larger_class():
    groups = [{1, 2}, {1, 3}, {1}, {4}]
    few, many = (
        TokenPredictor.untrained(size).updated(groups, [False, False, False, True], [1.0] * 4).log_probabilities([{4}])
        for size in (8, 50_000)
    )
    assert many == pytest.approx(few, abs=1e-6)
    assert few[0, 1] > few[0, 0]


def test_before_it_has_learned_both_are_equally_likely():
    logs = TokenPredictor.untrained(8).log_probabilities([{1, 5}, {2}])
    assert logs == pytest.approx(np.full((2, 2), math.log(0.5)))


def test_learning_gives_another_predictor_and_leaves_the_first_as_it_was():
    first = TokenPredictor.untrained(8)
    second = first.updated([{1}, {2}], [True, False], [1.0, 1.0])
    assert first == TokenPredictor.untrained(8)
    easy, hard = second.log_probabilities([{1}])[0]
    assert hard > easy
