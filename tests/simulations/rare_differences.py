"""How often "equivalent" is said of few queries that differ, though rare, large differences make up the margin.

`python -m tests.simulations.rare_differences --rounds 20000` prints the table that RESULTS.md holds. A query differs by
`size`, always in one direction, with such a probability that the mean difference of all queries is just the margin, so
that "equivalent" is false; all others tie. It is the worst that rare differences can do: nothing else is seen.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator

import numpy as np

from cerank.evaluation.compare import Measured, System, compare
from cerank.evaluation.significance import FEW, SignFlips, estimate_of, paired
from cerank.evaluation.verdicts.terms import Margin, Terms
from tests.simulations.type_one_error import Rate, table
from tests.simulations.verdict_errors import MEASURE, WHERE

ALPHA = 0.05
MARGINS = (0.01, 0.02)
SIZES = (0.1, 0.25, 0.5)  # of one query's difference
QUERIES = (5, 30, 54, 200)

Gains = tuple[float, ...]  # the differences of those queries that differ
Rule = Callable[[Gains, int, float], bool]  # differences, queries, margin -> whether the two are called equivalent


@functools.cache
def as_it_decides(gains: Gains, queries: int, margin: float) -> bool:
    """Return whether the program itself calls two systems equivalent that differ so."""
    sides = []
    for label, changes in (("a", [0.0] * queries), ("b", [*gains, *[0.0] * (queries - len(gains))])):
        values = {f"q{at}": 0.5 + change for at, change in enumerate(changes)}
        sides.append(
            System(label=label, measured=(Measured(condition=WHERE, qrels_sha256="x", values={MEASURE: values}),))
        )
    terms = Terms(margins={MEASURE: Margin(value=margin)}, confidence=1 - ALPHA)
    return compare(sides, [MEASURE], terms=terms).rows[0].verdict == "equivalent"


@functools.cache
def by_flips_alone(gains: Gains, queries: int, margin: float) -> bool:
    """Return whether the exact test of flipped signs, or the t-test where many differ, alone shows equivalence."""
    if len(gains) < FEW:
        test = SignFlips(values=gains, n=queries, least=-0.5, most=0.5)
    else:
        test = estimate_of(paired([0.0] * queries, [*gains, *[0.0] * (queries - len(gains))]))
    return max(test.p_above(-margin), test.p_below(margin)) <= ALPHA


def of_thirty_queries(gains: Gains, queries: int, margin: float) -> bool:
    """Return the same, where fewer than ten differ only of 30 queries and more."""
    return (len(gains) >= FEW or queries >= 30) and by_flips_alone(gains, queries, margin)


RULES: dict[str, Rule] = {
    "sign flips alone": by_flips_alone,
    "sign flips, 30 queries and more": of_thirty_queries,
    "holds with one query more (decides)": as_it_decides,
}


def false_equivalences(rounds: int) -> Iterator[Rate]:
    """Count "equivalent" where the mean difference is the margin, by the size of the rare differences."""
    for margin in MARGINS:
        for size in SIZES:
            for queries in QUERIES:
                random = np.random.default_rng([11, queries])
                counts = random.binomial(queries, margin / size, rounds)
                for name, rule in RULES.items():
                    said = sum(rule((size,) * int(count), queries, margin) for count in counts)
                    where = f"a difference of {size:g} in {100 * margin / size:.3g} % of queries, margin {margin:g}"
                    yield Rate("is called equivalent and is not", name, where, queries, said / rounds, ALPHA, rounds)


def true_equivalences(rounds: int) -> Iterator[Rate]:
    """Count "equivalent" where the mean difference is 0: one query in fifty gains .1, another loses it."""
    for margin in MARGINS:
        for queries in QUERIES:
            random = np.random.default_rng([12, queries])
            draws = random.multinomial(queries, [0.02, 0.02, 0.96], rounds)[:, :2]
            for name, rule in RULES.items():
                said = sum(rule((0.1,) * int(up) + (-0.1,) * int(down), queries, margin) for up, down in draws)
                where = f"gains and losses of .1 in 2 % of queries each, margin {margin:g}"
                yield Rate("is called equivalent and is", name, where, queries, said / rounds, np.nan, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    rounds = parser.parse_args().rounds
    print(table([*false_equivalences(rounds), *true_equivalences(rounds)]))


if __name__ == "__main__":
    main()
