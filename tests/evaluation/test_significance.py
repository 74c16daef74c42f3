"""Paired figures agree with scipy and statsmodels, and degenerate differences give numbers a person can read."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import corrected
from cerank.evaluation.significance import Paired, paired
from tests.refusals import refused

UNIT = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=60)


def graded(rng: np.random.Generator, n: int) -> tuple[list[float], list[float]]:
    left = rng.beta(2, 2, n)
    right = np.clip(left + rng.normal(0.02, 0.1, n) * rng.integers(0, 2, n), 0, 1)
    return left.tolist(), right.tolist()


@pytest.mark.parametrize("n", [2, 3, 20, 43, 6980])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_t_p_and_interval_are_those_of_scipy_and_statsmodels(n, confidence):
    left, right = graded(np.random.default_rng(n), n)
    left[0], right[0] = 0.25, 0.5
    found = paired(left, right, confidence)
    scipy = stats.ttest_rel(right, left)
    interval = scipy.confidence_interval(confidence)
    assert (found.t, found.p, found.df) == pytest.approx((scipy.statistic, scipy.pvalue, scipy.df), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    other = DescrStatsW(np.subtract(right, left))
    assert (found.t, found.p, found.df) == pytest.approx(other.ttest_mean(0), rel=1e-9)
    assert (found.low, found.high) == pytest.approx(other.tconfint_mean(1 - confidence), abs=1e-12)
    assert (found.difference, found.sd) == pytest.approx((other.mean, other.std_ddof(1)), abs=1e-12)


def test_a_hand_worked_example():
    found = paired([0.1, 0.2, 0.3, 0.4], [0.2, 0.4, 0.3, 0.5])  # differences .1 .2 0 .1: mean .1, variance .02/3
    assert found.difference == pytest.approx(0.1)
    assert found.sd == pytest.approx(math.sqrt(0.02 / 3))
    assert found.t == pytest.approx(math.sqrt(6))
    assert found.effect == pytest.approx(math.sqrt(1.5))
    assert (found.wins, found.ties, found.losses, found.n, found.df) == (3, 1, 0, 4, 3)
    assert (found.mean_left, found.mean_right) == pytest.approx((0.25, 0.35))
    assert found.high - found.difference == pytest.approx(3.182446305284263 * math.sqrt(0.02 / 3) / 2)


def test_equal_systems_give_p_one_and_no_nan():
    found = paired([0.3, 0.1 + 0.2, 0.5], [0.3, 0.3, 0.5])
    assert (found.p, found.t, found.effect, found.low, found.high) == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert (found.wins, found.ties, found.losses) == (0, 3, 0)


def test_the_same_difference_everywhere_has_no_spread_and_says_so():
    found = paired([0.1, 0.2, 0.3], [0.3, 0.4, 0.5])
    assert (found.t, found.effect, found.sd, found.p) == (None, None, 0.0, 0.25)  # 2^(1-n): the exact sign-flip test
    assert found.low is found.high is None


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ([0.1], [0.2], "too-few-queries 2 1"),
        ([], [], "too-few-queries 2 0"),
        ([0.1, 0.2], [0.2], "values-unpaired 2 1"),
        ([0.1, math.nan], [0.2, 0.3], "value-not-finite"),
        ([0.1, 0.2], [math.inf, 0.3], "value-not-finite"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(left, right, said):
    with refused(UsageError, *said.split()):
        paired(left, right)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.5])
def test_a_confidence_outside_zero_to_one_is_refused(confidence):
    with refused(UsageError, "confidence-out-of-range", 0, 1):
        paired([0.1, 0.2], [0.3, 0.1], confidence)


@given(UNIT)
def test_exchanging_the_systems_mirrors_every_figure(pairs):
    left, right = zip(*pairs, strict=True)
    there, back = paired(left, right), paired(right, left)
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    if there.low is not None:
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert there.p == pytest.approx(back.p, abs=1e-12)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)


@given(UNIT)
def test_the_interval_excludes_zero_exactly_where_p_is_below_five_percent(pairs):
    left, right = zip(*pairs, strict=True)
    found = paired(left, right)
    if found.low is not None and abs(found.p - 0.05) > 1e-9:
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


@given(UNIT)
def test_figures_survive_json_bit_for_bit(pairs):
    left, right = zip(*pairs, strict=True)
    found = paired(left, right)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Paired) == found


def test_holm_of_a_hand_worked_example():
    # sorted: .005 x 4 = .02; .01 x 3 = .03; .03 x 2 = .06; .04 x 1 = .04, raised to the .06 before it
    assert corrected([0.01, 0.04, 0.03, 0.005]).ps == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_takes_nothing_for_nothing():
    assert list(corrected([0.6, 0.9]).ps) == [1.0, 1.0]
    assert not corrected([]).ps


def test_paired_figures_are_those_of_the_reference_file(shared: Path):
    folder = shared / "trec-dl-2020-top100"
    head, *rows = (line.split("\t") for line in (folder / "ndcg10-per-query.tsv").read_text().splitlines())
    columns = {name: [float(row[place]) for row in rows] for place, name in enumerate(head) if place}
    compared = 0
    for line in (folder / "ndcg10-paired-ttest.tsv").read_text().splitlines()[1:]:
        a, b, mean_a, mean_b, t, p = line.split("\t")
        found = paired(columns[b], columns[a])
        assert (found.mean_right, found.mean_left) == pytest.approx((float(mean_a), float(mean_b)), abs=5.1e-5)
        assert found.t == pytest.approx(float(t), abs=1e-5)  # the file's values are rounded to six digits
        assert found.p == pytest.approx(float(p), rel=1e-4)
        direct = stats.ttest_rel(columns[a], columns[b])
        assert (found.t, found.p) == pytest.approx((direct.statistic, direct.pvalue), rel=1e-9)
        compared += 1
    assert compared == len(list(combinations(columns, 2))) == 10
