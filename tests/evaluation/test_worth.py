"""Whether a system is worth its cost: read off one interval, against scipy, at its boundaries, and in words."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy import stats

from cerank.errors import UsageError
from cerank.evaluation.answers import Cost, answers, break_even, paragraphs
from cerank.evaluation.compare import Condition, Measured, System, compare
from cerank.evaluation.verdicts.terms import Margin, Terms

GAIN = Margin(value=0.01, source="recipe", declared="2026-01-01T00:00:00+00:00", before=True)
HARM = Margin(value=0.02, source="recipe", declared="2026-01-01T00:00:00+00:00", before=True)
WHERE = Condition("c", "bm25")


def system(label: str, values: np.ndarray) -> System:
    by_query = {f"q{place}": float(value) for place, value in enumerate(values)}
    return System(label=label, measured=(Measured(condition=WHERE, qrels_sha256="x", values={"nDCG@10": by_query}),))


def compared(mean: float, error: float, *, n: int = 200, pairs: str = "stages", **terms: object):
    """Two systems whose differences have exactly this mean and this standard error."""
    random = np.random.default_rng(7)
    noise = random.normal(0, 1, n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    left = np.full(n, 0.5)
    right = left + mean + noise * error * np.sqrt(n)
    chosen = {"worth": {"nDCG@10": GAIN}, "harm": {"nDCG@10": HARM}, "pairs": pairs, **terms}
    return compare([system("first-stage", left), system("distill", right)], ["nDCG@10"], terms=Terms(**chosen))


@pytest.mark.parametrize(
    ("mean", "answer"),
    [
        (0.0300, "worth it"),  # the interval is the mean ± .0099
        (0.0150, "cannot tell"),
        (-0.0084, "not worth it"),
        (-0.0320, "harmful"),
    ],
)
def test_the_answer_is_where_the_interval_lies(mean, answer):
    error = 0.005
    row = compared(mean, error, harm={}).rows[0] if answer == "cannot tell" else compared(mean, error).rows[0]
    assert row.worth is not None
    assert row.worth.answer == answer
    half = stats.t.ppf(0.975, 199) * error
    assert (row.judgment.low, row.judgment.high) == pytest.approx((mean - half, mean + half))


def test_not_worse_is_said_where_the_gain_is_open_and_the_harm_is_not():
    row = compared(0.004, 0.005).rows[0]
    assert row.worth is not None
    assert row.worth.answer == "not worse"
    assert row.judgment.low > -HARM.value
    assert row.judgment.high > GAIN.value


def test_the_one_sided_p_are_those_of_scipy():
    comparison = compared(-0.0084, 0.0078, n=731)
    row = comparison.rows[0]
    first, second = (list(each.measured[0].values["nDCG@10"].values()) for each in comparison.systems)
    d = np.array(second) - np.array(first)
    assert row.worth is not None
    assert row.worth.p_ruled_out == pytest.approx(stats.ttest_1samp(d, 0.01, alternative="less").pvalue)
    assert row.worth.p_gain == pytest.approx(stats.ttest_1samp(d, 0.01, alternative="greater").pvalue)
    assert row.worth.p_not_worse == pytest.approx(stats.ttest_1samp(d, -0.02, alternative="greater").pvalue)
    assert row.worth.p_harmful == pytest.approx(stats.ttest_1samp(d, -0.02, alternative="less").pvalue)


def test_a_gain_ruled_out_is_said_where_a_difference_is_not_shown():
    # The README's run: a difference of -.0084 on 731 queries with a standard error of .00784.
    comparison = compared(-0.0084, 0.007844335778321108, n=731)
    row = comparison.rows[0]
    assert row.verdict == "cannot tell"
    assert row.worth is not None
    assert row.worth.answer == "not worth it"
    assert row.worth.p_ruled_out == pytest.approx(0.0096, abs=5e-5)
    text = answers(comparison)[0].text
    assert text.startswith("No, on 731 queries of c over bm25: a gain of .01 nDCG@10 is ruled out (one-sided p .0096)")
    assert "Nor is it worse" not in text  # its low end, -.0238, lies beyond -.02


def test_without_a_harm_margin_the_equivalence_margin_is_it():
    row = compared(0.004, 0.005, harm={}, margins={"nDCG@10": msgspec.structs.replace(GAIN, value=0.008)}).rows[0]
    assert row.worth is not None
    assert row.worth.harm is not None
    assert row.worth.harm.value == 0.008


@pytest.mark.parametrize(
    "terms",
    [
        {"margins": {"nDCG@10": HARM}},  # a gain below what does not matter
        {"worth": {"RR@10": GAIN}},
        {"harm": {"RR@10": HARM}},
        {"worth": {"nDCG@10": msgspec.structs.replace(GAIN, value=1.0)}},
        {"harm": {"nDCG@10": msgspec.structs.replace(HARM, value=-0.1)}},
    ],
)
def test_gains_that_no_comparison_can_use_are_refused(terms):
    with pytest.raises(UsageError):
        compared(0.0, 0.005, **terms)


def test_of_identical_rankings_nothing_is_asked():
    one = system("a", np.linspace(0, 1, 20))
    same = System(label=one.label, measured=(msgspec.structs.replace(one.measured[0], ranking_sha256="r"),))
    other = msgspec.structs.replace(same, label="b")
    row = compare([same, other], ["nDCG@10"], terms=Terms(worth={"nDCG@10": GAIN})).rows[0]
    assert row.worth is None


def test_a_late_gain_is_marked():
    late = Margin(value=0.01)
    assert compared(-0.0084, 0.005, worth={"nDCG@10": late}).rows[0].worth.is_late
    assert not compared(-0.0084, 0.005).rows[0].worth.is_late


def test_the_price_at_which_a_stage_pays_is_its_cost_over_its_gain():
    comparison = compared(0.03, 0.005)
    at, low, high = break_even(comparison.rows[0], Cost(seconds=60.0))
    row = comparison.rows[0]
    assert at == pytest.approx(60 * 0.01 / 0.03)
    assert low == pytest.approx(0.6 / row.judgment.low)
    assert high == pytest.approx(0.6 / row.judgment.high)
    assert (
        "It pays if .01 nDCG@10 is worth more than 20 s of training"
        in paragraphs(comparison, {"distill": Cost(seconds=60.0)})[0]
    )


def test_a_stage_that_loses_pays_at_no_price_or_only_at_the_high_end():
    cost = {"distill": Cost(seconds=58.0)}
    assert "never pays" in paragraphs(compared(-0.032, 0.005), cost)[0]
    assert "only if .01 nDCG@10 is worth" in paragraphs(compared(-0.0084, 0.0078, n=731), cost)[0]


def test_where_the_gain_is_open_the_queries_that_would_rule_it_out_are_told():
    row = compared(0.004, 0.005).rows[0]
    n = row.worth.queries_to_rule_out
    error = row.paired.sd / np.sqrt(n)
    critical = stats.t.ppf(0.975, n - 1)
    power = stats.nct.cdf(-critical, n - 1, -GAIN.value / error)
    assert power == pytest.approx(0.8, abs=0.005)
