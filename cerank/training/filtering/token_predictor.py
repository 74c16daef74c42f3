"""Predict from a group's tokens whether its loss will reach the threshold: Bernoulli naive Bayes, learned as it goes.

Invariant: a predictor never changes; `updated` returns another one, so that a step which is done again starts equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

_SMOOTHING = 1.0  # added to each count, of tokens and of classes: Laplace's


class TokenPredictor(msgspec.Struct, frozen=True):
    """Counts of the tokens that are present in easy and in hard groups.

    Args:
        vocabulary: number of token ids.
        presence: float64 (2, vocabulary) as bytes: weight of the easy, then of the hard groups that hold each token.
        weights: weight of all easy, and of all hard groups.
    """

    vocabulary: int
    presence: bytes
    weights: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def untrained(cls, vocabulary: int) -> TokenPredictor:
        """Return a predictor that has seen nothing."""
        return cls(vocabulary, bytes(2 * 8 * vocabulary))

    def log_probabilities(self, groups: Sequence[Iterable[int]]) -> NDArray[np.float64]:
        """Return (groups, 2): the log of each group's probability to be easy and to be hard.

        Args:
            groups: the token ids of each group, each once.
        """
        counts = np.frombuffer(self.presence).reshape(2, self.vocabulary)
        totals = np.array(self.weights)
        present = np.log(counts + _SMOOTHING) - np.log(totals + 2 * _SMOOTHING)[:, None]
        absent = np.log1p(-np.exp(present))
        prior = np.log(totals + _SMOOTHING) - math.log(totals.sum() + 2 * _SMOOTHING)
        nothing, gains = prior + absent.sum(axis=1), present - absent
        joint = np.array([nothing + gains[:, np.fromiter(tokens, int)].sum(axis=1) for tokens in groups]).reshape(-1, 2)
        return joint - np.logaddexp(joint[:, 0], joint[:, 1])[:, None]

    def updated(
        self, groups: Sequence[Iterable[int]], is_hard: Sequence[bool], weights: Sequence[float]
    ) -> TokenPredictor:
        """Return the predictor after it has learned which groups are hard; a weight counts a group several times."""
        if not groups:
            return self
        counts = np.frombuffer(self.presence).reshape(2, self.vocabulary).copy()
        totals = list(self.weights)
        for tokens, hard, weight in zip(groups, is_hard, weights, strict=True):
            counts[int(hard), np.fromiter(tokens, int)] += weight
            totals[int(hard)] += weight
        return TokenPredictor(self.vocabulary, counts.tobytes(), (totals[0], totals[1]))
