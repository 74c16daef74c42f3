"""What TPE tries next and which trials ASHA stops, where Optuna is installed; and what is said where it is not."""

from __future__ import annotations

import importlib.util

import pytest

from cerank.app.sweeps import adaptive_search
from cerank.errors import MissingError
from cerank.recipes.search_space import SearchRange
from tests.refusals import refused

SEARCH = {
    "rate": SearchRange(log_uniform=(1e-6, 1e-2)),
    "size": SearchRange(integer=(2, 9)),
    "window": SearchRange(choices=([1, 8], [1, 100])),
}


def settings(rate: float, size: int = 4) -> dict[str, object]:
    return {"rate": rate, "size": size, "window": [1, 8]}


def test_without_optuna_the_extra_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused(MissingError, "optuna-missing", "tpe", "cerank[sweep]"):
        adaptive_search.check_library("tpe")


def test_tpe_asks_for_values_of_the_space_and_always_for_the_same() -> None:
    pytest.importorskip("optuna")
    earlier = [(settings(10.0**-power), float(power == 3)) for power in range(2, 7)]
    rows = [adaptive_search.suggest(SEARCH, earlier, 1, number) for number in range(6, 16)]
    for row in rows:
        assert 1e-6 <= row["rate"] <= 1e-2
        assert row["size"] in range(2, 10)
        assert row["window"] in ([1, 8], [1, 100])
    assert rows == [adaptive_search.suggest(SEARCH, earlier, 1, number) for number in range(6, 16)]
    assert rows != [adaptive_search.suggest(SEARCH, earlier, 2, number) for number in range(6, 16)]


def test_tpe_learns_where_values_are_larger() -> None:
    pytest.importorskip("optuna")
    earlier = [(settings(10.0 ** -(2 + place / 5)), -abs(place - 5.0)) for place in range(20)]  # best at 1e-3
    near = [adaptive_search.suggest({"rate": SEARCH["rate"]}, earlier, seed, 21)["rate"] for seed in range(20)]
    assert sum(10**-3.5 < rate < 10**-2.5 for rate in near) > 10  # a quarter of the range, drawn at random 5 of 20


def test_tpe_learns_nothing_from_a_trial_without_a_value() -> None:
    pytest.importorskip("optuna")
    earlier = [(settings(1e-3), 0.5), (settings(1e-4), 0.4)]
    failed = [earlier[0], (settings(1e-5), None), (settings(1e-6), float("nan")), earlier[1]]
    assert adaptive_search.suggest(SEARCH, failed, 1, 5) == adaptive_search.suggest(SEARCH, earlier, 1, 5)


@pytest.mark.parametrize(
    ("values", "reduction", "stop"),
    [
        ([0.05, 0.9], 2, 1),  # second of two at the first rung
        ([0.2, 0.1], 2, 2),  # best of three at the first rung, worst at the second
        ([0.2, 0.3, 0.0, 0.9], 2, 0),  # best at both rungs; the third validation is none
        ([0.2, 0.3, 0.0, 0.1], 2, 4),  # and the fourth is one
        ([0.2, 0.0], 3, 0),  # with three the second validation is no rung
        ([0.2, 0.0, 0.1], 3, 3),
        ([], 2, 0),
    ],
)
def test_asha_stops_what_is_not_among_the_best_at_a_rung(values: list[float], reduction: int, stop: int) -> None:
    pytest.importorskip("optuna")
    assert adaptive_search.stopped_after([[0.1, 0.2, 0.3, 0.4]], values, reduction) == stop


def test_asha_lets_the_first_trial_pass() -> None:
    pytest.importorskip("optuna")
    assert adaptive_search.stopped_after([], [0.3, 0.2, 0.1, 0.0], 2) == 0
