"""Signs of life: a process that is stuck is told from one that is slow, and says itself where it is stuck."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from cerank.worker.ranks import rank_signs
from cerank.worker.ranks.main_thread import MainThread, processor_use
from cerank.worker.ranks.rank_signs import RankSigns
from tests.rank_processes import run_ranks


def looks(main_thread_does, *, uses=None, is_device_busy=lambda: False, passed=(0.0, 2.0, 2.0, 60.0)):
    """How long the main thread has stood still at the last of some looks from another thread."""
    is_over = threading.Event()
    watch = MainThread(is_device_busy, uses)

    def look():
        try:
            return [watch.seconds_still(seconds) for seconds in passed][-1]
        finally:
            is_over.set()

    with ThreadPoolExecutor(1) as pool:
        seconds = pool.submit(look)
        main_thread_does(is_over)
    return seconds.result()


def compute(is_over):
    while not is_over.is_set():
        torch.ones(64, 64) @ torch.ones(64, 64)


def wait(is_over):
    is_over.wait()


def test_a_main_thread_that_waits_stands_still_and_one_that_computes_does_not():
    idle = lambda: (1.0, False)  # noqa: E731 - what the processor did
    assert looks(wait, uses=idle) >= 60.0
    assert looks(compute) == 0.0
    assert looks(wait, uses=idle, is_device_busy=lambda: True) == 0.0


def test_work_of_other_threads_and_a_slow_disk_count_as_work():
    assert looks(wait, uses=lambda: (1.0, True)) == 0.0
    seconds = iter((0.0, 1.0, 2.0, 30.0))
    assert looks(wait, uses=lambda: (next(seconds), False)) == 0.0
    used, is_at_work = processor_use()
    assert used > 0.0
    assert is_at_work  # this very thread


def signs_of(ranks, monkeypatch, work, exchange=None):
    """What `work` returned, and the faults that end this process; each lets the work go on."""
    monkeypatch.setattr(rank_signs, "BEAT", 0.1)
    monkeypatch.setattr(rank_signs, "STANDSTILL", 0.5)
    faults, is_over = [], threading.Event()

    def end(fault):
        faults.append(fault)
        is_over.set()

    signs = RankSigns(ranks.number, ranks.count, end, exchange or ranks.exchange, MainThread())
    signs.start()
    try:
        work(is_over)
        return faults, signs.first_error(0.0)
    finally:
        signs.stop()


def test_a_stuck_process_that_another_waits_for_ends_itself_and_says_where(tmp_path, monkeypatch):
    def work(ranks):
        return signs_of(ranks, monkeypatch, lambda is_over: (ranks.number and is_over.wait(30), ranks.gather(None)))

    (of_first, error), (of_second, _) = run_ranks(2, work, tmp_path)
    assert of_first == []
    assert [(fault.where, fault.is_own) for fault in of_second] == [("rank 1", True)]
    assert "test_rank_signs.py" in of_second[0].log
    assert (error.rank, error.what) == (1, of_second[0].what)


def test_a_process_that_is_slow_is_waited_for(tmp_path, monkeypatch):
    def work(ranks):
        def step(is_over):
            if ranks.number:
                timer = threading.Timer(1.2, is_over.set)
                timer.start()
                compute(is_over)
            ranks.gather(None)

        return signs_of(ranks, monkeypatch, step)

    assert run_ranks(2, work, tmp_path) == [([], None), ([], None)]


def test_an_exchange_of_all_that_does_not_end_ends_all(tmp_path, monkeypatch):
    def work(ranks):
        return signs_of(ranks, monkeypatch, lambda is_over: is_over.wait(30), lambda: (1, True))[0]

    for faults in run_ranks(2, work, tmp_path):
        assert [fault.where for fault in faults] == ["all ranks"]
