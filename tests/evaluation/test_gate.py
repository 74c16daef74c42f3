"""A gate ships, warns or cannot tell by one-sided tests, and its looks together keep alpha."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cerank.errors import UsageError
from cerank.evaluation.compare import Condition, Measured, System
from cerank.evaluation.gate import SliceMargin, gate, level_of
from cerank.evaluation.verdicts.terms import Margin

WHERE = Condition("c")
MARGIN = {"nDCG@10": Margin(value=0.02)}


def two(mean: float, error: float, n: int = 100) -> tuple[System, System]:
    noise = np.random.default_rng(3).normal(0, 1, n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    sides = np.full(n, 0.5), 0.5 + mean + noise * error * math.sqrt(n)
    made = []
    for label, values in zip(("base", "new"), sides, strict=True):
        by_query = {f"q{place}": float(value) for place, value in enumerate(values)}
        at = Measured(condition=WHERE, qrels_sha256="x", values={"nDCG@10": by_query, "RR@10": by_query})
        made.append(System(label=label, measured=(at,)))
    return made[0], made[1]


@pytest.mark.parametrize(
    ("mean", "outcome"), [(0.0, "ships"), (-0.005, "ships"), (-0.015, "worse"), (-0.03, "worse"), (0.03, "ships")]
)
def test_it_ships_what_is_not_worse_by_the_margin_and_says_worse_where_a_loss_is_shown(mean, outcome):
    assert gate(*two(mean, 0.005), margins=MARGIN).outcome == outcome


def test_few_queries_that_show_nothing_neither_ship_nor_warn():
    assert gate(*two(-0.005, 0.03), margins=MARGIN).outcome == "cannot tell"


def test_queries_that_all_tie_ship_only_where_a_rare_large_loss_could_not_easily_go_unseen():
    for n, outcome in ((5, "cannot tell"), (20, "cannot tell"), (40, "ships")):
        by_query = {f"q{place}": 0.5 for place in range(n)}
        at = Measured(condition=WHERE, qrels_sha256="x", values={"nDCG@10": by_query})
        base, new = (System(label=label, measured=(at,)) for label in ("base", "new"))
        result = gate(base, new, margins=MARGIN)
        assert (result.outcome, result.checks[0].is_unseen) == (outcome, outcome != "ships")


def test_a_loss_that_is_shown_but_lies_within_the_margin_ships():
    result = gate(*two(-0.006, 0.002), margins=MARGIN)
    assert result.checks[0].p_worse < 0.05
    assert result.outcome == "ships"


def test_the_p_are_the_one_sided_ones_of_scipy():
    base, new = two(-0.004, 0.006)
    (check,) = gate(base, new, margins=MARGIN).checks
    d = np.array(list(new.measured[0].values["nDCG@10"].values())) - 0.5
    assert check.p == pytest.approx(stats.ttest_1samp(d, -0.02, alternative="greater").pvalue)
    assert check.p_worse == pytest.approx(stats.ttest_1samp(d, 0, alternative="less").pvalue)
    assert check.low == pytest.approx(-0.004 - stats.t.ppf(0.95, 99) * 0.006)


def test_superiority_asks_for_a_gain():
    assert gate(*two(0.03, 0.005), margins={}, superior=["nDCG@10"]).outcome == "ships"
    assert gate(*two(0.004, 0.005), margins={}, superior=["nDCG@10"]).outcome == "cannot tell"
    assert gate(*two(0.004, 0.005), margins=MARGIN, superior=["nDCG@10"]).outcome == "cannot tell"


def test_an_alarm_is_adjusted_over_the_checks_and_shipping_needs_all_of_them():
    many = gate(*two(-0.01, 0.005), margins=MARGIN, superior=["RR@10"])
    alone = gate(*two(-0.01, 0.005), margins=MARGIN)
    assert many.checks[0].p_worse == pytest.approx(2 * alone.checks[0].p_worse)
    assert many.checks[0].p == alone.checks[0].p


def test_all_looks_together_spend_alpha_and_no_more():
    assert math.fsum(level_of(look) for look in range(1, 200_000)) == pytest.approx(0.05, abs=1e-6)
    assert sum(level_of(look) for look in range(1, 21)) < 0.05
    first, second = (gate(*two(-0.010, 0.005), margins=MARGIN, look=look) for look in (1, 50))
    assert (first.level, second.level) == (level_of(1), level_of(50))
    assert second.outcome == "cannot tell"


@pytest.mark.parametrize(
    "how", [{"margins": {}}, {"margins": {"nDCG@10": Margin(value=1.0)}}, {"look": -1}, {"alpha": 0}]
)
def test_a_gate_without_checks_or_with_impossible_ones_is_refused(how):
    with pytest.raises(UsageError):
        gate(*two(0.0, 0.01), **{"margins": MARGIN, **how})


def on(name: str, margin: float = 0.02) -> SliceMargin:
    return SliceMargin(slice=name, measure="nDCG@10", margin=Margin(value=margin))


def test_a_slice_is_checked_on_its_own_queries_with_its_own_margin():
    base, new = two(-0.004, 0.006)
    slices = {"first": frozenset(f"q{at}" for at in range(40)), "rest": frozenset(f"q{at}" for at in range(40, 100))}
    parts = [on("first", 0.05), on("rest", 0.03)]
    result = gate(base, new, margins=MARGIN, slices=slices, slice_margins=parts)
    d = np.array(list(new.measured[0].values["nDCG@10"].values())) - 0.5
    for check, values, margin in zip(result.checks[1:], (d[:40], d[40:]), (0.05, 0.03), strict=True):
        assert check.queries == len(values)
        assert check.p == pytest.approx(stats.ttest_1samp(values, -margin, alternative="greater").pvalue)
    assert [check.claim for check in result.checks] == [
        "not worse by 0.02",
        "not worse by 0.05 on first",
        "not worse by 0.03 on rest",
    ]


def test_a_loss_on_a_slice_stops_what_ships_on_all():
    base, new = two(0.01, 0.001)
    lost = {query: value - (0.2 if int(query[1:]) < 10 else -0.03) for query, value in _values(new).items()}
    at = Measured(condition=WHERE, qrels_sha256="x", values={"nDCG@10": lost})
    hurt = System(label="hurt", measured=(at,))
    slices = {"few": frozenset(f"q{at}" for at in range(10))}
    assert gate(base, hurt, margins=MARGIN).outcome == "ships"
    assert gate(base, hurt, margins=MARGIN, slices=slices, slice_margins=[on("few")]).outcome == "worse"


def _values(system: System) -> dict[str, float]:
    return system.measured[0].values["nDCG@10"]


@pytest.mark.parametrize(
    "slices", [{}, {"other": frozenset({"q1", "q2"})}, {"s": frozenset({"q1"})}, {"s": frozenset()}]
)
def test_a_slice_that_is_not_declared_or_has_no_queries_is_refused(slices):
    with pytest.raises(UsageError):
        gate(*two(0.0, 0.01), margins=MARGIN, slices=slices, slice_margins=[on("s")])
