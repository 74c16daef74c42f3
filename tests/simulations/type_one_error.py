"""How often each test errs where there is nothing, and sees where there is something.

`python -m tests.simulations.type_one_error` prints a Markdown table. `--rounds` test collections are drawn for each
line; the last column is two Monte Carlo standard errors of the expected rate.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cerank.evaluation import multiple_testing, power, secondary_tests, seed_variance
from cerank.evaluation.significance import estimate_of, p_equivalent, paired
from tests.simulations.populations import Array, against_bm25, reciprocal, rerankers, symmetric

ALPHA = 0.05
FLIPS = 999


class Rate(NamedTuple):
    """One line: how often something was found, and how often it should be."""

    question: str
    test: str
    population: str
    queries: int
    rate: float
    expected: float  # nominal for errors, predicted for power
    rounds: int

    @property
    def tolerance(self) -> float:
        """Two standard errors of a rate of `rounds` draws, were the expected one true."""
        return 2 * math.sqrt(self.expected * (1 - self.expected) / self.rounds)


def two_way_bootstrap(
    left: np.ndarray, right: np.ndarray, confidence: float = 0.95, *, rounds: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of resampling queries and seeds (Owen, Ann. Appl. Stat. 2007).

    Too narrow for few seeds that differ much (simulated Type I error .07 with five, .12 with three, where the closed
    form has .04 and .05): `two_way` is the default for that reason.
    """
    first, second = np.atleast_2d(left), np.atleast_2d(right)
    random = np.random.default_rng(seed)
    n = first.shape[1]
    step = max(4_000_000 // (n * (first.shape[0] + second.shape[0])), 1)
    resampled = []
    for start in range(0, rounds, step):
        count = min(step, rounds - start)
        queries = random.integers(0, n, (count, n))
        means = []
        for side in (first, second):
            by_seed = side[:, queries].mean(axis=2)  # (seeds, count)
            seeds = random.integers(0, side.shape[0], (side.shape[0], count))
            means.append(np.take_along_axis(by_seed, seeds, axis=0).mean(axis=0))
        resampled.append(means[1] - means[0])
    low, high = np.quantile(np.concatenate(resampled), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _t(d: Array) -> bool:
    return paired(np.zeros(d.size).tolist(), d.tolist()).p <= ALPHA


def _bca(d: Array) -> bool:
    found = secondary_tests.bca(d, rounds=FLIPS)
    return not found.low <= 0 <= found.high


TESTS: dict[str, Callable[[Array], bool]] = {
    "paired t (decides)": _t,
    "Fisher's randomization": lambda d: secondary_tests.randomization(d, rounds=FLIPS) <= ALPHA,
    "BCa interval without 0": _bca,
    "Wilcoxon (Pratt)": lambda d: secondary_tests.wilcoxon(d) <= ALPHA,
    "sign": lambda d: secondary_tests.sign(d) <= ALPHA,
}


def _draws(population: Array, queries: int, rounds: int, seed: int) -> Iterator[Array]:
    random = np.random.default_rng([seed, queries])
    return (population[random.integers(0, len(population), queries)] for _ in range(rounds))


def single_tests(rounds: int, sizes: tuple[int, ...] = (43, 200)) -> Iterator[Rate]:
    """Type I error of each test at .05 where the mean difference is 0."""
    populations = {
        "nDCG@10, equal re-rankers": symmetric(rerankers()),
        "RR@10, equal re-rankers": symmetric(reciprocal()),
        "nDCG@10, skewed, mean 0": against_bm25(),
    }
    for name, population in populations.items():
        for queries in sizes:
            found = dict.fromkeys(TESTS, 0)
            for d in _draws(population, queries, rounds, 1):
                for test, is_different in TESTS.items():
                    found[test] += is_different(d)
            for test, count in found.items():
                yield Rate("finds a difference where there is none", test, name, queries, count / rounds, ALPHA, rounds)


def corrections(rounds: int, queries: int = 54) -> Iterator[Rate]:
    """How often anything is found among ten pairs of five equal systems."""
    scores = rerankers()
    random = np.random.default_rng(2)
    methods: tuple[multiple_testing.Correction, ...] = ("none", "bonferroni", "holm", "bh")
    found: dict[str, int] = dict.fromkeys([*methods, "max-t"], 0)
    pairs = [(i, j) for i in range(scores.shape[1]) for j in range(i)]
    for sample in _draws(scores, queries, rounds, 3):
        values = random.permuted(sample, axis=1)
        d = np.column_stack([values[:, i] - values[:, j] for i, j in pairs])
        ps = [paired(np.zeros(queries).tolist(), column.tolist()).p for column in d.T]
        for method in methods:
            found[method] += min(multiple_testing.corrected(ps, method).ps) <= ALPHA
        found["max-t"] += min(multiple_testing.max_t([d], rounds=FLIPS, seed=int(random.integers(2**31))).ps) <= ALPHA
    name = "nDCG@10, ten pairs of five equals"
    for method, count in found.items():
        yield Rate("finds any difference among ten of none", method, name, queries, count / rounds, ALPHA, rounds)


def equivalence(rounds: int) -> Iterator[Rate]:
    """TOST where the true difference is the margin itself: it errs at most in .05, at .05 with enough queries."""
    populations = {"nDCG@10, equal re-rankers": symmetric(rerankers()), "nDCG@10, skewed, mean 0": against_bm25()}
    for name, population in populations.items():
        sd = float(population.std())
        for queries, margin in ((54, 0.02), (54, 0.05), (200, 0.05), (1000, 0.02)):
            count = sum(
                p_equivalent(estimate_of(paired(np.zeros(queries).tolist(), (d + margin).tolist())), margin) <= ALPHA
                for d in _draws(population, queries, rounds, 4)
            )
            predicted = power.power_of_equivalence(queries, margin, sd, true=margin)
            question = "says equivalent where the difference is the margin"
            yield Rate(question, f"TOST, margin {margin:g}", name, queries, count / rounds, predicted, rounds)


def powers(rounds: int) -> Iterator[Rate]:
    """How often a difference (or equivalence) is seen that was planned to be seen in 80 of 100."""
    population = symmetric(rerankers())
    sd, name = float(population.std()), "nDCG@10, equal re-rankers, shifted"
    for queries in (43, 200, 1000):
        shift = power.smallest_difference(queries, sd)
        seen = sum(_t(d + shift) for d in _draws(population, queries, rounds, 5))
        yield Rate(
            "sees the smallest difference planned for",
            f"paired t, {shift:.4f}",
            name,
            queries,
            seen / rounds,
            0.8,
            rounds,
        )
        margin = power.smallest_margin(queries, sd)
        within = sum(
            p_equivalent(estimate_of(paired(np.zeros(queries).tolist(), d.tolist())), margin) <= ALPHA
            for d in _draws(population, queries, rounds, 6)
        )
        yield Rate(
            "shows the smallest margin planned for", f"TOST, {margin:.4f}", name, queries, within / rounds, 0.8, rounds
        )


def several_seeds(rounds: int, queries: int = 43) -> Iterator[Rate]:
    """Two equal recipes with several seeds each: with no, little and much spread of their seeds."""
    population = symmetric(rerankers())
    random = np.random.default_rng(7)
    for members, spread in ((5, 0.0), (5, 0.01), (5, 0.03), (3, 0.03)):
        found = {"stacked as queries (refused)": 0, "means of seeds, paired t": 0, "recipes, closed form": 0}
        found["recipes, two-way bootstrap"] = 0
        for d in _draws(population, queries, rounds, 8):
            left, right = (
                random.normal(0, 0.06, (members, queries)) + spread * random.standard_normal((members, 1))
                for _ in range(2)
            )
            right += 0.8 * d  # what one recipe does better on a query whatever the seed; 0 on average
            found["stacked as queries (refused)"] += _t((right - left).ravel())
            found["means of seeds, paired t"] += _t((right - left).mean(axis=0))
            found["recipes, closed form"] += seed_variance.two_way(left, right).estimate.p() <= ALPHA
            low, high = two_way_bootstrap(left, right, rounds=299, seed=int(random.integers(2**31)))
            found["recipes, two-way bootstrap"] += not low <= 0 <= high
        name = f"nDCG@10, {members} seeds with sd {spread:.2f}"
        for test, count in found.items():
            question = "finds a difference of equal recipes"
            yield Rate(question, test, name, queries, count / rounds, ALPHA, rounds)


def table(rates: list[Rate]) -> str:
    """A Markdown table."""
    lines = ["| question | test | population | queries | rate | expected | ± |", "|---|---|---|---:|---:|---:|---:|"]
    for rate in rates:
        numbers = f"{rate.queries} | {rate.rate:.3f} | {rate.expected:.3f} | {rate.tolerance:.3f}"
        lines.append(f"| {rate.question} | {rate.test} | {rate.population} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="test collections drawn for each line")
    rounds = parser.parse_args().rounds
    rates = [*single_tests(rounds), *corrections(rounds), *equivalence(rounds), *powers(rounds), *several_seeds(rounds)]
    print(table(rates))


if __name__ == "__main__":
    main()
