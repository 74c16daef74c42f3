"""How often a comparison by cross-validation errs: over all queries, with the fold as a block, and over folds.

`python -m tests.simulations.fold_errors --rounds 2000` prints the table that RESULTS.md holds. Each query of a fold has
the difference of two equal re-rankers, and the shift that the luck of its fold's two trainings gives all queries of the
fold. Two claims can be wrong. *These models*: the shifts are what the models are, and they sum to 0, so that the models
of all folds together are equal. *The recipes*: the shifts are drawn anew, with mean 0; those of two folds correlate by
`shared`, for folds have most of their training queries in common.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
from scipy.stats import ttest_1samp

from cerank.evaluation.significance import paired
from cerank.evaluation.studies.fold_blocks import fold_blocks
from tests.simulations.populations import Array, rerankers, symmetric
from tests.simulations.type_one_error import Rate, table

ALPHA = 0.05
FOLDS = 5
QUERIES = (50, 250)  # a small collection; Robust04
SHIFTS = (0.0, 0.01, 0.03)  # sd of a fold's shift, in nDCG@10; seeds of one recipe differ by .01 to .03
SHARED = (0.0, 0.5)  # correlation of the shifts of two folds
GAIN = 0.03

ALL_QUERIES = "paired t over all queries (decides)"
BLOCKED = "fold as a block (is shown)"
PLAIN = "each fold one observation"
OVER_FOLDS = "each fold one observation, Nadeau and Bengio (is shown)"


def found(folds: list[Array]) -> dict[str, bool]:
    """Return which of the tests find a difference in the differences of the queries of each fold."""
    values = [fold.tolist() for fold in folds]
    every = np.concatenate(folds)
    blocks = fold_blocks(values, 1 - ALPHA)
    return {
        ALL_QUERIES: paired([0.0] * every.size, every.tolist()).p <= ALPHA,
        BLOCKED: not blocks.low <= 0 <= blocks.high,
        PLAIN: float(ttest_1samp(blocks.differences, 0.0).pvalue) <= ALPHA,
        OVER_FOLDS: blocks.is_shown_over_folds,
    }


def rates(rounds: int, queries: int, shift: float, *, shared: float | None, gain: float = 0.0) -> dict[str, float]:
    """Return how often each test finds a difference.

    Args:
        rounds: draws.
        queries: of all folds together.
        shift: sd of a fold's shift.
        shared: correlation of the shifts of two folds; None for shifts that sum to 0, of models that are given.
        gain: the true difference.
    """
    population, random = symmetric(rerankers()), np.random.default_rng([21, queries])
    count = dict.fromkeys((ALL_QUERIES, BLOCKED, PLAIN, OVER_FOLDS), 0)
    for _ in range(rounds):
        shifts = random.standard_normal(FOLDS)
        if shared is None:
            shifts = (shifts - shifts.mean()) * math.sqrt(FOLDS / (FOLDS - 1))
        else:
            shifts = math.sqrt(1 - shared) * shifts + math.sqrt(shared) * random.standard_normal()
        drawn = population[random.integers(0, len(population), queries)] + gain
        parts = np.array_split(drawn, FOLDS)
        for name, is_found in found([part + shift * own for part, own in zip(parts, shifts, strict=True)]).items():
            count[name] += is_found
    return {name: number / rounds for name, number in count.items()}


def lines(rounds: int) -> Iterator[Rate]:
    """Count false differences under both claims, and true ones that are found."""
    for queries in QUERIES:
        for shift in SHIFTS:
            where = f"nDCG@10, 5 folds, shifts with sd {shift:g}"
            for name, rate in rates(rounds, queries, shift, shared=None).items():
                yield Rate("finds a difference of equal models", name, where, queries, rate, ALPHA, rounds)
            for shared in SHARED if shift else ():
                also = f"{where}, correlation {shared:g}"
                for name, rate in rates(rounds, queries, shift, shared=shared).items():
                    yield Rate("finds a difference of equal recipes", name, also, queries, rate, ALPHA, rounds)
            for name, rate in rates(rounds, queries, shift, shared=None, gain=GAIN).items():
                what = f"finds a difference of {GAIN:g} between models"
                yield Rate(what, name, where, queries, rate, np.nan, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    print(table(list(lines(parser.parse_args().rounds))))


if __name__ == "__main__":
    main()
