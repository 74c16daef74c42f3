"""How often verdicts are false that rest on several statements at once: worth its cost, paired seeds, whole tables.

`python -m tests.simulations.verdict_errors --rounds 5000` prints the table that RESULTS.md holds. Each question draws
test collections from populations whose true differences are known, and counts what the program itself says of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from cerank.evaluation.compare import Comparison, Condition, Measured, System, compare
from cerank.evaluation.seed_variance import crossed, two_way
from cerank.evaluation.significance import estimate_of, paired
from cerank.evaluation.verdicts.terms import Margin, Terms
from cerank.evaluation.verdicts.verdict import Level, judge, worth_of
from tests.simulations.populations import Array, against_bm25, rerankers, symmetric
from tests.simulations.type_one_error import Rate, table

ALPHA = 0.05
FLIPS = 499
GAIN, HARM = 0.01, 0.02
MEASURE = "nDCG@10"
WHERE = Condition("simulated", "bm25")


def _answer(d: Array) -> str:
    """Return what is said of one comparison with a gain of .01 and a harm margin of .02."""
    estimate = estimate_of(paired(np.zeros(d.size).tolist(), d.tolist()))
    judgment = judge(estimate, Level(p=estimate.p(), corrected=estimate.p(), level=ALPHA))
    return worth_of(estimate, judgment, Margin(value=GAIN), Margin(value=HARM)).answer


def worth_at_its_boundaries(rounds: int) -> Iterator[Rate]:
    """Count false answers where the truth lies at the gain, at the harm margin, or amid both: each at most .025."""
    false = {  # true difference -> answers that are false there
        GAIN: {"not worth it", "harmful"},
        GAIN - 1e-9: {"worth it", "harmful"},
        -HARM: {"worth it", "not worse", "harmful"},
        (GAIN - HARM) / 2: {"worth it", "harmful"},
    }
    names = {GAIN: "at the gain", GAIN - 1e-9: "just below the gain", -HARM: "at the harm margin"}
    populations = {"nDCG@10, equal re-rankers": symmetric(rerankers()), "nDCG@10, skewed, mean 0": against_bm25()}
    for name, population in populations.items():
        for queries in (54, 731):
            for truth, answers in false.items():
                random = np.random.default_rng([5, queries])
                count = sum(
                    _answer(population[random.integers(0, len(population), queries)] + truth) in answers
                    for _ in range(rounds)
                )
                where = names.get(truth, "amid gain and harm margin")
                # At a boundary one end of a 95 % interval errs in .025; amid both, two ends may.
                expected = ALPHA if truth == (GAIN - HARM) / 2 and queries < 100 else ALPHA / 2
                yield Rate(
                    f"a false answer, the truth {where}",
                    "worth its cost",
                    name,
                    queries,
                    count / rounds,
                    expected,
                    rounds,
                )


def paired_seeds(rounds: int, queries: int = 43) -> Iterator[Rate]:
    """Compare claims about recipes with seeds as pairs and as two samples, where a seed moves both sides alike."""
    for n in (queries, 200):
        for shared in (0.0, 0.9):
            for true in (0.0, 0.03):
                random = np.random.default_rng([6, n])
                count = {"seeds as pairs": 0, "seeds as two samples": 0}
                for _ in range(rounds):
                    common = np.sqrt(shared) * random.normal(0, 0.02, 3)
                    sides = []
                    for mean in (0.4, 0.4 + true):
                        own = np.sqrt(1 - shared) * random.normal(0, 0.02, 3)
                        noise = random.normal(0, 0.05, (3, n))
                        sides.append(mean + (common + own)[:, None] + random.normal(0, 0.10, n)[None, :] + noise)
                    count["seeds as pairs"] += crossed(*sides).estimate.p() <= ALPHA
                    count["seeds as two samples"] += two_way(*sides).estimate.p() <= ALPHA
                for test, found in count.items():
                    what = (
                        "finds a difference of equal recipes"
                        if true == 0
                        else f"finds a difference of {true} of recipes"
                    )
                    population = f"nDCG@10, 3 seeds, {100 * shared:.0f} % of their variance shared"
                    yield Rate(what, test, population, n, found / rounds, ALPHA if true == 0 else np.nan, rounds)


def _table(sample: Array, truths: tuple[float, ...], terms: Terms) -> Comparison:
    """Compare systems that differ from the first by `truths`, on one drawn collection."""
    systems = []
    for place, truth in enumerate((0.0, *truths)):
        values = {f"q{at}": float(value) + truth for at, value in enumerate(sample[:, place])}
        at = Measured(condition=WHERE, qrels_sha256="x", values={MEASURE: values})
        systems.append(System(label=f"s{place}", measured=(at,)))
    return compare(systems, [MEASURE], terms=terms)


def whole_tables(rounds: int, queries: int = 54) -> Iterator[Rate]:
    """Count tables of four comparisons in which an interval misses its truth, or any verdict is false."""
    scores = rerankers()
    truths = (0.0, 0.02, -0.02, 0.05)  # an equal, two at the margin, and one that is better
    for method in ("max-t", "holm"):
        random = np.random.default_rng([7, queries])
        margin = Margin(value=0.02)
        missed = wrong = 0
        for _ in range(rounds):
            sample = random.permuted(scores[random.integers(0, len(scores), queries)], axis=1)
            terms = Terms(
                correction=method,
                margins={MEASURE: margin},
                worth={MEASURE: margin},
                rounds=FLIPS,
                seed=int(random.integers(2**31)),
            )
            rows = _table(sample, truths, terms).rows
            both = list(zip(rows, truths, strict=True))
            missed += any(not row.judgment.low <= truth <= row.judgment.high for row, truth in both)
            wrong += any(_is_false(row.verdict, row.worth.answer if row.worth else "", truth) for row, truth in both)
        population = "nDCG@10, five re-rankers, four pairs"
        yield Rate(
            "an interval of the table misses its truth", method, population, queries, missed / rounds, ALPHA, rounds
        )
        yield Rate("any verdict of the table is false", method, population, queries, wrong / rounds, ALPHA, rounds)


def steps_and_intervals(rounds: int, queries: int = 54) -> Iterator[Rate]:
    """Count what intervals miss that end at 0 where a stepped-down p rules it out; and what going by intervals costs.

    Three of four systems are far from the baseline, so that all of alpha is left for the fourth in the last step.
    """
    scores = rerankers()
    population = "nDCG@10, five re-rankers, three of four pairs far apart"
    for method in ("max-t", "holm"):
        for truths in ((0.0, 0.2, 0.2, 0.2), (0.04, 0.2, 0.2, 0.2)):
            random = np.random.default_rng([8, queries])
            missed = cut = by_p = by_interval = 0
            for _ in range(rounds):
                sample = random.permuted(scores[random.integers(0, len(scores), queries)], axis=1)
                terms = Terms(correction=method, rounds=FLIPS, seed=int(random.integers(2**31)))
                judgments = [row.judgment for row in _table(sample, truths, terms).rows]
                ends = [(judgment.low, judgment.high) for judgment in judgments]
                missed += not all(low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True))
                # an end that p rules out is moved to just beyond 0, on the side of the verdict
                moved = [_beyond_zero(judgment.verdict, *both) for judgment, both in zip(judgments, ends, strict=True)]
                cut += not all(low <= truth <= high for (low, high), truth in zip(moved, truths, strict=True))
                by_p += judgments[0].is_different
                by_interval += judgments[0].excludes_zero
            if truths[0] == 0:
                what = "an interval of the table misses its truth"
                yield Rate(f"{what}, as shown", method, population, queries, missed / rounds, ALPHA, rounds)
                yield Rate(f"{what}, ended at 0 by p", method, population, queries, cut / rounds, ALPHA, rounds)
                continue
            what = f"finds the nearest difference, {truths[0]:g}"
            yield Rate(f"{what}, by p (decides)", method, population, queries, by_p / rounds, np.nan, rounds)
            yield Rate(f"{what}, by the interval", method, population, queries, by_interval / rounds, np.nan, rounds)


def _beyond_zero(verdict: str, low: float, high: float) -> tuple[float, float]:
    """Return an interval that says what the verdict says."""
    if verdict == "better":
        return max(low, 1e-12), high
    return (low, min(high, -1e-12)) if verdict == "worse" else (low, high)


def _is_false(verdict: str, worth: str, truth: float, margin: float = 0.02) -> bool:
    """Return whether a verdict or an answer says what is not so."""
    return (
        (verdict == "better" and truth <= 0)
        or (verdict == "worse" and truth >= 0)
        or (verdict in {"equivalent", "different but negligible"} and abs(truth) >= margin)
        or (worth == "worth it" and truth < margin)
        or (worth == "not worth it" and truth >= margin)
        or (worth == "not worse" and truth <= -margin)
        or (worth == "harmful" and truth >= -margin)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5000)
    rounds = parser.parse_args().rounds
    together = (*whole_tables(rounds), *steps_and_intervals(rounds))
    print(table([*worth_at_its_boundaries(rounds), *paired_seeds(rounds), *together]))


if __name__ == "__main__":
    main()
