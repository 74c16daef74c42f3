"""When runs are done on several nodes: chains in order, shared stages once, the longest chain first."""

from __future__ import annotations

import pytest

from cerank.app.matrix import cluster_forecast
from cerank.planning.node_schedule import START_MINUTES, StageTask, schedule, tasks_of
from cerank.planning.shared_speed import Rate, shared_work
from cerank.planning.workload import WorkItem


def task(key: str, minutes: float, after: str = "") -> StageTask:
    return StageTask(key, minutes - START_MINUTES, after)


def test_a_chain_takes_its_sum_on_however_many_nodes() -> None:
    found = schedule([task("a", 10), task("b", 20, "a"), task("c", 30, "b")], 64)
    assert (found.minutes, found.busy_minutes, found.longest_minutes, found.nodes) == (60, 60, 60, 1)


def test_a_stage_that_several_runs_share_is_done_once() -> None:
    runs = [task("a", 10), task("b", 20, "a"), task("a", 10), task("c", 20, "a")]
    assert schedule(runs, 2).minutes == 30
    assert schedule(runs, 2).busy_minutes == 50
    assert schedule(runs, 1).minutes == 50


def test_the_longest_chain_begins_first() -> None:
    tasks = [task("a", 10), task("b", 10), task("c", 10), task("d", 15, "c"), task("e", 15, "d")]
    assert schedule(tasks, 2).minutes == 40  # not 50: c begins at once
    assert schedule([task(str(number), 7) for number in range(10_000)], 64).minutes == pytest.approx(157 * 7)
    assert schedule([], 8).minutes == 0


def test_the_work_of_a_run_is_divided_among_the_devices_of_a_node() -> None:
    work = [
        WorkItem("train a", 1, 1, "a", 8.0),
        WorkItem("re-rank t by a", 1, 1, "a", 2.0),
        WorkItem("train b", 1, 1, "b", 4.0),
        WorkItem("re-rank t by baseline", 1, 1, "baseline", 6.0),
    ]
    shared = shared_work(work, 2, {})
    assert tasks_of([("a", "k1"), ("b", "k2")], shared) == [StageTask("k1", 8.0), StageTask("k2", 2.0, "k1")]
    unknown = [*work, WorkItem("validate b", 1, 1, "b", None)]
    assert tasks_of([("a", "k1"), ("b", "k2")], unknown) is None


def test_devices_that_were_timed_together_count_as_they_were_timed() -> None:
    work = [
        WorkItem("teacher a", 5, 0, "a", 3.0),
        WorkItem("train a", 10, 600, "a", 4.0),
        WorkItem("re-rank t by a", 2, 1200, "a", 2.0),
        WorkItem("train b", 10, 600, "b", 4.0),
    ]
    timed = shared_work(work, 2, {"a": Rate(train=2.0, score=5.0)})
    assert [part.minutes for part in timed] == [3.0, 600 / 2 / 60, 1200 / 5 / 60, 2.0]
    assert shared_work(work, 1, {}) == tuple(work)
    measured = cluster_forecast.in_words([task("a", 60)], 1, 2, 0.0, is_measured=True)
    assert "lower bound" in cluster_forecast.in_words([task("a", 60)], 1, 2, 0.0)
    assert "lower bound" not in measured


def test_the_forecast_names_time_hours_money_and_what_holds_it_up() -> None:
    tasks = [task("a", 60), task("b", 60, "a"), task("c", 60, "a")]
    words = cluster_forecast.in_words(tasks, 8, 4, 2.5)
    for figure in ("2 h", "12.00 device hours", "30.00", "2 nodes", "4 devices"):
        assert figure in words
    assert "30.00" not in cluster_forecast.in_words(tasks, 8, 4, 0.0)
    assert "unknown" in cluster_forecast.in_words(None, 2, 1, 0.0)
