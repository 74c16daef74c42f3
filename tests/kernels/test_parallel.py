"""Batches side by side: the same bits by any number of threads, and torch as it was before."""

from __future__ import annotations

import threading

import pytest
import torch

from cerank.inference.rerank import Scorer
from cerank.kernels.parallel import run_in_threads
from cerank.tokenization.tokens import even_batches

from .test_packing import Ids, alone, close, forward_of, model_of, pairs_of, scored


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2"])
def test_scores_are_the_same_bits_by_any_number_of_threads(kind, precision, threads):
    pairs = pairs_of([3 + at * 37 % 190 for at in range(40)])
    scorer = Scorer(model_of(kind), Ids(kind != "modernbert"), "cpu", precision)
    found = []
    for number in (1, 2, 4):
        threads(number)
        found += [scorer.score_pairs(pairs), scorer.score_pairs(pairs)]
        assert torch.get_num_threads() == number
    assert len({str(scores) for scores in found}) == 1


def test_every_item_is_done_once_in_the_callers_modes_with_kernels_of_one_thread(threads):
    threads(3)
    done, seen, met = [], set(), threading.Barrier(3, timeout=300)

    def work(item):
        if item < 3:
            met.wait()  # only passes where three are at it at once
        done.append(item)
        seen.add((torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))

    with torch.inference_mode():
        run_in_threads(work, range(50))
    assert sorted(done) == list(range(50))
    assert seen == {(1, True, False)}
    assert torch.get_num_threads() == 3
    with torch.no_grad():
        run_in_threads(lambda _: seen.add(torch.is_grad_enabled()), range(2))
    assert True not in seen


def test_kernels_use_the_threads_asked_for_whichever_lane_came_first(threads):
    threads(6)
    both = threading.Barrier(2, timeout=300)
    seen = []

    def work(_):
        both.wait()  # two lanes have been set up, and neither has computed
        seen.append(torch.get_num_threads())
        both.wait()

    run_in_threads(work, range(2), 3)
    assert seen == [3, 3]
    assert torch.get_num_threads() == 6


@pytest.mark.parametrize("number", [1, 2])
def test_an_exception_of_one_item_is_raised_and_ends_the_rest(number, threads):
    threads(number)
    done = []

    def work(item):
        done.append(item)
        if item == 1:
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError, match="full"):
        run_in_threads(work, range(10_000))
    assert len(done) < 10_000
    assert torch.get_num_threads() == number


def test_threads_that_start_later_have_their_kernels_threads_again(threads):
    threads(2)
    run_in_threads(lambda _: None, range(4))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [([], 0), ([3], 1), ([0, 0], 1), ([100] * 300, 16), ([100] * 24, 4), ([30, 250] * 1600, 256)],
)
def test_batches_hold_about_as_many_tokens_each_and_no_more_than_allowed(lengths, batches):
    found = even_batches(lengths, 2048)
    assert len(found) == batches
    assert sorted(at for batch in found for at in batch) == list(range(len(lengths)))
    sizes = [sum(lengths[at] for at in batch) for batch in found]
    assert max(sizes, default=0) < 2048 + max(lengths, default=0)
    assert max(sizes, default=0) - min(sizes, default=0) <= 2 * max(lengths, default=0)
    order = [lengths[at] for batch in found[::-1] for at in batch]
    assert order == sorted(order)


def test_a_batch_of_one_length_attends_as_its_pairs_alone():
    forward = forward_of(model_of("bert"))
    for lengths in ((9,), (9, 9), (9, 9, 9), (3, 3), (17, 17), (16, 16), (5, 9, 9)):
        with torch.inference_mode():
            close(scored(forward, pairs_of(lengths)), alone(forward, pairs_of(lengths)))
