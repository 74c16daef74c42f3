"""Predict from a group's tokens whether its loss will reach the threshold: Bernoulli naive Bayes, learned as it goes.

Invariant: a predictor never changes; `updated` returns another one, so that a step which is done again starts equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


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

        A group without tokens counts as seen in each class. Laplace's ones are divided between the classes by size:
        with 1 in each, the thousands of tokens that no group held would by themselves decide for the larger class.

        Args:
            groups: the token ids of each group, each once.
        """
        counts = np.frombuffer(self.presence).reshape(2, self.vocabulary)
        totals = np.array(self.weights) + 1.0
        smoothing = 2 * totals / totals.sum()
        shares = (counts + smoothing[:, None]) / (totals + 2 * smoothing)[:, None]
        present, absent = np.log(shares), np.log1p(-shares)
        prior = np.log(totals / totals.sum())
        nothing, gains = prior + absent.sum(axis=1), present - absent
        joint = np.array([nothing + gains[:, np.fromiter(tokens, int)].sum(axis=1) for tokens in groups]).reshape(-1, 2)
        joint -= np.logaddexp(joint[:, 0], joint[:, 1])[:, None]
        return joint

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
