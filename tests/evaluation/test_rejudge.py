"""A published table judged again: its numbers give the t-test back, and the guide's example stands as it says."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cerank import guides
from cerank.errors import UsageError
from cerank.evaluation.rejudge import ClaimsTable, PublishedClaim, rejudge


def claim(**changed: object) -> PublishedClaim:
    return PublishedClaim(
        **{"what": "b against a", "queries": 43, "p": 0.03, "difference": 0.02, "says": "better", **changed}
    )


def test_difference_queries_and_p_give_the_t_test_back():
    d = np.random.default_rng(2).normal(0.03, 0.1, 54)
    test = stats.ttest_1samp(d, 0)
    (found,) = rejudge(ClaimsTable(claims=(claim(queries=54, p=float(test.pvalue), difference=float(d.mean())),)))
    assert found.error == pytest.approx(d.std(ddof=1) / np.sqrt(54))
    assert (found.judgment.low, found.judgment.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_p_is_adjusted_over_the_whole_table_as_holm_does():
    ps = [0.001, 0.014, 0.03, 0.2, 0.66]
    found = rejudge(ClaimsTable(claims=tuple(claim(what=f"{p}", p=p) for p in ps)))
    assert [each.judgment.p_corrected for each in found] == pytest.approx(multipletests(ps, method="holm")[1])
    assert [each.stands for each in found] == [True, False, False, False, False]


def test_on_par_stands_only_where_equivalence_is_shown():
    narrow = claim(queries=5000, p=0.5, difference=0.0005, says="on par")
    wide = claim(queries=43, p=0.66, difference=-0.009, says="on par")
    found = rejudge(ClaimsTable(margin=0.02, claims=(narrow, wide)))
    assert [each.stands for each in found] == [True, False]
    assert [each.stands for each in rejudge(ClaimsTable(claims=(narrow, wide)))] == [False, False]


def test_both_means_are_as_good_as_their_difference():
    (one,) = rejudge(ClaimsTable(claims=(claim(),)))
    (other,) = rejudge(ClaimsTable(claims=(claim(difference=None, left=0.7, right=0.72),)))
    assert other.difference == pytest.approx(one.difference)
    assert other.error == pytest.approx(one.error)


@pytest.mark.parametrize(
    "changed",
    [
        {"p": 1.2},
        {"p": 0.0},
        {"p": -0.1},
        {"p": 1.0},
        {"difference": 0.0},
        {"difference": None},
        {"difference": None, "left": 0.7},
    ],
)
def test_numbers_that_no_test_can_give_are_refused_with_the_claim_that_has_them(changed):
    with pytest.raises(UsageError) as caught:
        rejudge(ClaimsTable(claims=(claim(**changed),)))
    assert caught.value.where == "b against a"


def test_the_example_of_the_guide_comes_to_what_the_guide_says():
    text = guides.find("verdicts").markdown
    block = re.search(r"```toml\n(title = .*?)```", text, re.DOTALL)
    assert block is not None
    found = rejudge(msgspec.toml.decode(block[1], type=ClaimsTable))
    assert f"{sum(each.stands for each in found)} of {len(found)} claims stand" in text
