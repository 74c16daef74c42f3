"""How often errs what spans several tests or collections: pooled means, many looks, skewed tables, ties.

`python -m tests.simulations.studies --rounds 2000` prints the table that RESULTS.md holds. Draws are vectorised, and
what is counted is what the program itself says of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.special import stdtr

from cerank.evaluation.compare import Measured, System, compare
from cerank.evaluation.gate import level_of
from cerank.evaluation.multiple_testing import corrected
from cerank.evaluation.studies.random_effects import pool
from cerank.evaluation.verdicts.terms import Terms
from tests.simulations.populations import Array, against_bm25, rerankers, symmetric
from tests.simulations.type_one_error import Rate, table
from tests.simulations.verdict_errors import MEASURE, WHERE

ALPHA = 0.05
TAUS = (0.0, 0.01, 0.03)  # sd of the true differences between collections


def pooled(rounds: int, sizes: tuple[int, ...] = (3, 10)) -> Iterator[Rate]:
    """Count pooled intervals that miss the mean of all collections, and predictions that miss a new collection."""
    population = symmetric(rerankers())
    for count in sizes:
        for tau in TAUS:
            random = np.random.default_rng([8, count])
            queries = np.resize([43, 54, 50, 200, 76], count)
            missed = narrow = unseen = 0
            for _ in range(rounds):
                truths = random.normal(0.0, tau, count)
                drawn = [
                    population[random.integers(0, len(population), n)] + true
                    for n, true in zip(queries, truths, strict=True)
                ]
                means, errors = [d.mean() for d in drawn], [d.std(ddof=1) / np.sqrt(d.size) for d in drawn]
                result = pool(means, errors)
                missed += result.estimate.p() <= ALPHA
                narrow += pool(means, errors, is_never_narrower=False).estimate.p() <= ALPHA
                low, high = result.prediction or (-np.inf, np.inf)
                unseen += not low <= random.normal(0.0, tau) <= high
            where = f"nDCG@10, {count} collections, tau {tau:g}"
            many = int(queries.sum())
            what = "the pooled interval misses the mean over collections"
            yield Rate(what, "Hartung-Knapp, never narrower (decides)", where, many, missed / rounds, ALPHA, rounds)
            yield Rate(what, "Hartung-Knapp", where, many, narrow / rounds, ALPHA, rounds)
            what = "the prediction misses a new collection"
            yield Rate(what, "k - 2 degrees of freedom", where, many, unseen / rounds, ALPHA, rounds)


def gates(rounds: int, looks: tuple[int, ...] = (20, 200), queries: int = 54) -> Iterator[Rate]:
    """Count sequences of looks at one set of queries with any false alarm, or any false shipping.

    Each look is another system that is as good as the one in use (an alarm is false), or worse by just the margin
    (shipping is false); all looks share the queries and the base's scores.
    """
    scores = rerankers()
    # As many systems as looks: on each query the base and each look draw one of the five equal re-rankers' scores.
    for many in looks:
        levels = {
            "each look at .05": np.full(many, ALPHA),
            "6 / (pi k)^2": np.array([level_of(k + 1) for k in range(many)]),
        }
        found = dict.fromkeys(levels, 0)
        random = np.random.default_rng([9, many])
        for _ in range(rounds):
            rows = scores[random.integers(0, len(scores), queries)]
            picks = random.integers(0, 5, (many, queries))
            d = rows[np.arange(queries), picks] - rows[:, :1][:, 0]
            sd = d.std(axis=1, ddof=1)
            error = np.where(sd > 0, sd, np.inf) / np.sqrt(queries)
            p = stdtr(
                queries - 1, d.mean(axis=1) / error
            )  # one-sided, for a loss; by symmetry that of a false shipping
            for name, level in levels.items():
                found[name] += bool((p <= level).any())
        for name, count in found.items():
            what = f"any false alarm in {many} looks"
            yield Rate(what, name, "nDCG@10, equal re-rankers", queries, count / rounds, ALPHA, rounds)


def repeated_tables(rounds: int, looks: tuple[int, ...] = (20, 60), queries: int = 54) -> Iterator[Rate]:
    """Count sequences of looks with any false verdict by `--family looks`: each look compares another equal system.

    A verdict is judged as its own table said, with the looks up to it as its family, and as the last table would, with
    all of them. In the second kind of sequence every system is made from what was seen: half of its queries are taken
    from the best so far, and it stays the best if its mean is higher.
    """
    scores = rerankers()
    for kind in ("systems that owe nothing to the looks", "each made from the best so far"):
        for many in looks:
            random = np.random.default_rng([12, many])
            found = dict.fromkeys(
                ("each table at .05", "as each table said", "all as the last table says (promised)"), 0
            )
            for _ in range(rounds):
                rows = scores[random.integers(0, len(scores), queries)]
                drawn = np.take_along_axis(rows, random.integers(0, 5, (many, queries)).T, axis=1).T
                if kind.startswith("each"):
                    best = drawn[0]
                    for at in range(1, many):
                        drawn[at] = np.where(random.random(queries) < 0.5, best, drawn[at])
                        best = drawn[at] if drawn[at].mean() > best.mean() else best
                ps = _t_tests(drawn - rows[:, 0])
                said = [corrected([p], "holm", family=look).ps[0] for look, p in enumerate(ps, 1)]
                last = [corrected([p], "holm", family=many).ps[0] for p in ps]
                for name, of in zip(found, (ps, said, last), strict=True):
                    found[name] += bool((np.asarray(of) <= ALPHA).any())
            for name, count in found.items():
                what = f"any false verdict in {many} looks"
                where = f"nDCG@10, equal re-rankers, {kind}"
                yield Rate(what, name, where, queries, count / rounds, ALPHA, rounds)


def _t_tests(d: Array) -> Array:
    """Return two-sided p of the last axis."""
    n = d.shape[-1]
    sd = d.std(axis=-1, ddof=1)
    error = np.where(sd > 0, sd, np.inf) / np.sqrt(n)
    return np.asarray(2 * stdtr(n - 1, -np.abs(d.mean(axis=-1)) / error))


def skewed_tables(rounds: int, tests: int = 6) -> Iterator[Rate]:
    """Count tables of skewed nulls that depend on each other in which max-t or Holm finds something."""
    population = against_bm25()
    for queries in (43, 200):
        for method in ("max-t", "holm"):
            random = np.random.default_rng([10, queries])
            found = 0
            for _ in range(rounds):
                common = population[random.integers(0, len(population), queries)]
                own = population[random.integers(0, len(population), (tests, queries))]
                sample = np.where(random.random((tests, queries)) < 0.5, common, own)  # half of each is shared
                systems = [
                    _system("base", np.zeros(queries)),
                    *(_system(f"s{at}", row) for at, row in enumerate(sample)),
                ]
                terms = Terms(correction=method, rounds=499, seed=int(random.integers(2**31)))
                rows = compare(systems, [MEASURE], terms=terms).rows
                found += any(row.verdict in {"better", "worse"} for row in rows)
            where = f"nDCG@10, skewed, mean 0, {tests} tests"
            yield Rate("finds any difference among skewed nulls", method, where, queries, found / rounds, ALPHA, rounds)


def _system(label: str, gains: Array) -> System:
    values = {f"q{at}": 0.5 + float(gain) for at, gain in enumerate(gains)}
    return System(label=label, measured=(Measured(condition=WHERE, qrels_sha256="x", values={MEASURE: values}),))


def few_and_tied(rounds: int) -> Iterator[Rate]:
    """Count false differences on few queries most of which tie: by the program's rule, and by the t-test alone."""
    population = symmetric(rerankers())
    for queries, share in ((10, 0.5), (10, 0.8), (20, 0.5), (20, 0.8), (43, 0.8)):
        random = np.random.default_rng([11, queries, round(100 * share)])
        d = population[random.integers(0, len(population), (rounds, queries))]
        d = np.where(random.random(d.shape) < share, 0.0, d)
        by_rule = 0
        for row in d:
            both = compare([_system("base", np.zeros(queries)), _system("new", row)], [MEASURE]).rows[0]
            by_rule += both.verdict in {"better", "worse"}
        where = f"nDCG@10, equal re-rankers, {100 * share:.0f} % more ties"
        what = "finds a difference on few queries with ties"
        yield Rate(what, "t, or exact sign flips (decides)", where, queries, by_rule / rounds, ALPHA, rounds)
        alone = float((_t_tests(d) <= ALPHA).mean())
        yield Rate(what, "paired t alone", where, queries, alone, ALPHA, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    print(
        table(
            [
                *pooled(rounds),
                *gates(rounds),
                *repeated_tables(rounds),
                *skewed_tables(rounds // 4),
                *few_and_tied(rounds),
            ]
        )
    )


if __name__ == "__main__":
    main()
