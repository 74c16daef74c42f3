"""Populations of per-query scores that look like those of real re-rankers, to draw test collections from.

Rankings are simulated document by document and measured, so scores are bounded, discrete, skewed and often equal,
as real ones are. Where the mean difference is said to be 0, it is 0 in the population to the last bit but rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

QUERIES = 20_000
CANDIDATES = 30
SYSTEMS = 5
_DISCOUNT = 1 / np.log2(np.arange(2, 12))


def _ndcg(grades: Array, scores: Array) -> Array:
    """nDCG@10 of (queries, candidates) grades ranked by scores; 0 for a query without a relevant document."""
    order = np.argsort(-scores, axis=1)[:, :10]
    gained = (np.take_along_axis(grades, order, axis=1) * _DISCOUNT).sum(axis=1)
    ideal = (-np.sort(-grades, axis=1)[:, :10] * _DISCOUNT).sum(axis=1)
    return np.divide(gained, ideal, out=np.zeros_like(gained), where=ideal > 0)


def _rr(grades: Array, scores: Array) -> Array:
    """RR@10 of (queries, candidates) binary grades."""
    order = np.argsort(-scores, axis=1)[:, :10]
    found = np.take_along_axis(grades, order, axis=1) > 0
    return np.where(found.any(axis=1), 1 / (1 + found.argmax(axis=1)), 0.0)


def graded(random: np.random.Generator) -> Array:
    """Grades 0 to 3, (queries, candidates); how many are relevant differs much from query to query."""
    rich = random.beta(0.8, 2.0, (QUERIES, 1))
    draws = random.random((QUERIES, CANDIDATES))
    return (draws < rich).astype(float) + (draws < 0.6 * rich) + (draws < 0.3 * rich)


def systems(
    random: np.random.Generator, grades: Array, measure: Callable[[Array, Array], Array], noise: float
) -> Array:
    """(queries, systems) scores of equally good re-rankers that read the same documents, each with noise of its own."""
    hard = random.gamma(2.0, 0.7, (QUERIES, 1))  # how much of the ranking of a query is luck for everyone
    common = grades + hard * random.standard_normal(grades.shape)
    own = (measure(grades, common + noise * random.standard_normal(grades.shape)) for _ in range(SYSTEMS))
    return np.stack(list(own), axis=1)


@functools.cache  # five questions ask for it
def rerankers(seed: int = 1) -> Array:
    """nDCG@10 of five equal re-rankers."""
    random = np.random.default_rng(seed)
    return systems(random, graded(random), _ndcg, 0.42)


@functools.cache
def reciprocal(seed: int = 2) -> Array:
    """RR@10 of five equal re-rankers, one relevant document a query, as MS MARCO's development queries have."""
    random = np.random.default_rng(seed)
    grades = np.zeros((QUERIES, CANDIDATES))
    grades[:, 0] = 2.0
    return systems(random, grades, _rr, 0.55)


@functools.cache
def against_bm25(seed: int = 3) -> Array:
    """Differences (queries,) of a re-ranker from a weak first stage, less their mean: mean 0 and skewed."""
    random = np.random.default_rng(seed)
    grades = graded(random)
    weak = grades + 1.6 * random.standard_normal(grades.shape)
    strong = 0.5 * weak + 1.1 * grades + 0.6 * random.standard_normal(grades.shape)
    d = _ndcg(grades, strong) - _ndcg(grades, weak)
    return d - d.mean()


def symmetric(scores: Array) -> Array:
    """The differences of the first two systems and their mirror image: mean 0 exactly."""
    d = scores[:, 1] - scores[:, 0]
    return np.concatenate([d, -d])
