"""Several processes that carry out one run: what they tell each other, and sums whose bits do not depend on them."""

from __future__ import annotations

import pytest
import torch

from cerank.core.ranks import Ranks
from cerank.errors import RunFailedError
from tests.rank_processes import run_ranks
from tests.refusals import refused

SHARDS = torch.randn(8, 37, generator=torch.Generator().manual_seed(3)) * torch.logspace(-3, 3, 37)


def tree_of(rows):
    rows = [row.clone() for row in rows]
    while len(rows) > 1:
        rows = [left + right for left, right in zip(rows[::2], rows[1::2], strict=True)]
    return rows[0]


def test_two_processes_agree_gather_and_deal_out_numbers_once(tmp_path):
    def work(ranks):
        messages = []
        if ranks.is_first:
            ranks.tell(b"train")
            ranks.tell(b"")
            ranks.tell(b"end")
        else:
            for order in ranks.orders():
                messages.append(order)
                if order == b"end":
                    break
        with ranks.first_one_first():
            seen = (tmp_path / "written").exists()
            if ranks.is_first:
                (tmp_path / "written").touch()
        return (
            messages,
            seen,
            ranks.agree(f"rank {ranks.number}"),
            ranks.gather(ranks.number),
            ranks.any("too little memory" if ranks.number else ""),
            ranks.any(""),
            list(ranks.claim("chunks", 7)),
        )

    first, second = run_ranks(2, work, tmp_path)
    assert first[0] == []
    assert second[0] == [b"train", b"", b"end"]
    assert (first[1], second[1]) == (False, True)
    assert first[2:6] == second[2:6] == ("rank 0", [0, 1], "rank 1: too little memory", "")
    assert sorted(first[6] + second[6]) == list(range(7))


def test_a_sum_over_processes_has_the_bits_of_one_process(tmp_path):
    def work(ranks):
        mine = SHARDS.chunk(ranks.count)[ranks.number]
        same = ranks.sum_tree(tree_of(mine))
        losses = ranks.gather_tensor(mine[:, 0])
        return same.tolist(), losses.flatten().tolist()

    expected = tree_of(SHARDS).tolist(), SHARDS[:, 0].tolist()
    assert run_ranks(2, work, tmp_path) == [expected] * 2
    assert SHARDS.sum(0).tolist() != expected[0]  # so that another order would be noticed


def test_processes_with_other_weights_stop_the_run(tmp_path):
    def work(ranks):
        ranks.check_equal(torch.tensor([5, 6]), "stages.s")
        with refused(RunFailedError, "ranks-differ", "rank 1", "stages.s"):
            ranks.check_equal(torch.tensor([5, 6 + ranks.number]), "stages.s")
        return True

    assert run_ranks(2, work, tmp_path) == [True, True]


def test_a_single_process_agrees_with_itself():
    ranks = Ranks()
    with ranks.first_one_first():
        assert ranks.agree(3) == 3
    assert list(ranks.claim("chunks", 3)) == [0, 1, 2]
    assert torch.equal(ranks.sum_tree(SHARDS[0]), SHARDS[0])
    assert ranks.gather_tensor(SHARDS[0]).shape == (1, 37)


def test_a_process_that_ends_breaks_the_waiting_of_the_others(tmp_path):
    with pytest.raises(AssertionError) as raised:
        run_ranks(2, lambda ranks: 1 // (1 - ranks.number), tmp_path)
    first, second = str(raised.value).split("rank 1:")
    assert "gloo" in first
    assert "ZeroDivisionError" in second
