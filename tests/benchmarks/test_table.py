"""What the benchmark says of what it measured."""

from __future__ import annotations

from collections import Counter

from cerank.bench.interleaved_rounds import TaskResponse
from cerank.bench.text_samples import generated_sample
from tests.benchmarks.arena import first_lists, grown
from tests.benchmarks.parts import agreement, equal
from tests.benchmarks.table import Row, printed, ratio


def answers(*seconds: float) -> list[TaskResponse]:
    return [TaskResponse(pairs=60, seconds=one) for one in seconds]


def test_a_ratio_is_the_median_of_those_within_a_turn() -> None:
    row = ratio("x", answers(1, 10, 2), answers(2, 19, 4), 2.0, "")
    assert (row.measured, row.is_held) == ("2.00x [1.90, 2.00]", True)
    assert ratio("x", answers(1, 1), answers(1, 1), 2.0, "").is_held is False


def test_a_peer_that_lacks_turns_gives_a_reason_and_no_verdict() -> None:
    row = ratio("x", answers(1, 1), answers(1), 2.0, "died of SIGKILL")
    assert (row.measured, row.verdict) == ("died of SIGKILL", "not measured")


def test_rankings_that_differ_are_counted_with_how_far_the_swapped_are_apart() -> None:
    scores, ranking = equal([[3.0, 2.0, 1.0], [1.0, 1.00001]], [[3.0, 2.0, 1.0], [1.00001, 1.0]], "m")
    assert scores.is_held
    assert (ranking.is_held, ranking.measured) == (
        False,
        "1 of 2 lists; those that changed places are 1.0e-05 apart at most",
    )
    assert [row.is_held for row in equal([[3.0, 2.0]], [[3.0, 2.1]], "m")] == [False, True]


def test_agreement_is_the_mean_over_lists_and_not_over_all_pairs_at_once() -> None:
    row = agreement("tau", [[1.0, 2.0], [10.0, 20.0]], [[5.0, 6.0], [2.0, 1.0]], ">= .99")
    assert (row.measured, row.is_held) == ("0.0000 (mean over 2 lists; lowest -1.0000)", False)


def test_sizes_of_work_have_the_same_mix_of_texts() -> None:
    sample = generated_sample(50, 10)
    small, large = grown(sample, 40, 10, 40), grown(sample, 200, 10, 40)
    assert (small.pairs, large.pairs, len(large.documents)) == (40, 200, 200)
    assert Counter(large.texts()) == {text: 5 * count for text, count in Counter(small.texts()).items()}


def test_lists_of_any_length_read_the_same_passages() -> None:
    sample = generated_sample(20, 10)
    short, long = grown(sample, 40, 4, 40), grown(sample, 40, 40, 40)
    assert [len(docs) for docs in long.lists.values()] == [40]
    assert sorted(short.documents.values()) == sorted(long.documents.values())


def test_first_lists_stay_whole() -> None:
    assert [len(docs) for docs in first_lists(generated_sample(50, 10), 15).lists.values()] == [10, 10]


def test_goals_stand_in_a_table_of_their_own_with_a_verdict() -> None:
    rows = [Row("a", ">= 2x", "3x", True), Row("b", "", "7"), Row("c", ">= 2x", "1x", False)]
    goals, _, rest = printed(rows).partition("\n\n")
    assert goals.splitlines()[2:] == ["| a | >= 2x | 3x | held |", "| c | >= 2x | 1x | **missed** |"]
    assert "| b | 7 |" in rest
