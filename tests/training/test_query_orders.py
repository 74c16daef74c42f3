"""The computed order of queries: every query once an epoch, the same groups after a resume, and nothing stored."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from cerank.recipes.schema import Stage
from cerank.training.sampling.sampler import Sampler, TrainingPool


def sampler(
    queries: int = 23,
    *,
    order: str = "computed",
    unusable: Sequence[str] = (),
    shares: Mapping[str, float] = {},
    **more,
) -> Sampler:
    ids = [f"{1 + (2 * at >= queries)}:q{at}" if shares else f"q{at}" for at in range(queries)]
    own = {query: f"{query.partition(':')[0]}:" if shares else "" for query in ids}
    stage = Stage(**{"epochs": 3.0, "group_size": 4, "groups_per_step": 1, "query_order": order, **more})
    pool = TrainingPool(
        query_ids=ids,
        qrels={query: {f"{own[query]}d{at % 9}": 1} for at, query in enumerate(ids) if query not in unusable},
        ranking={query: [f"{own[query]}d{doc}" for doc in range(9)] for query in ids},
        has_text=lambda _: True,
        shares=shares,
    )
    return Sampler("s", stage, 1, pool)


def order_of(drawn: Sampler, groups: range) -> list[str]:
    return [drawn.groups(step)[0].query_id for step in groups]


def test_each_epoch_takes_every_usable_query_once_in_an_order_of_its_own():
    drawn = sampler(unusable=["q3", "q22"])
    assert drawn.steps == 63
    epochs = [order_of(drawn, range(first, first + 21)) for first in (1, 22, 43)]
    assert all(sorted(epoch) == sorted(drawn.usable) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert order_of(sampler(order="shuffled"), range(1, 24)) != order_of(sampler(), range(1, 24))


def test_a_resumed_run_samples_the_groups_that_an_uninterrupted_one_does():
    whole = sampler()
    groups = {step: whole.groups(step) for step in range(1, 70)}
    for first in (69, 1, 24, 40):
        resumed = sampler()
        assert [resumed.groups(step) for step in range(first, 70)] == [groups[step] for step in range(first, 70)]


def test_queries_that_filters_emptied_are_passed_over_and_the_others_keep_their_order():
    plain = sampler()
    before = order_of(plain, range(1, 70))
    gone = {query: frozenset(f"d{doc}" for doc in range(9)) for query in ("q2", "q7", "q11", "q20")}
    filtered = plain.dropping(gone)
    assert filtered.emptied == tuple(gone)
    assert order_of(filtered, range(1, 58)) == [query for query in before if query not in gone]


@pytest.mark.parametrize("emptied", [(), ("1:q0", "2:q15", "2:q20")])
def test_a_mixture_gives_each_set_its_share_and_goes_through_it_again_and_again(emptied):
    drawn = sampler(shares={"1": 1.0, "2": 3.0})
    gone = {query: frozenset(f"{query[0]}:d{doc}" for doc in range(9)) for query in emptied}
    drawn = drawn.dropping(gone) if gone else drawn
    seen = Counter(order_of(drawn, range(1, 17 * len(drawn.usable) + 1)))
    of_set = {number: [count for query, count in seen.items() if query[0] == number] for number in "12"}
    assert set(seen) == set(drawn.usable)
    assert sum(of_set["1"]) == pytest.approx(17 * len(drawn.usable) / 4, abs=3)
    assert all(max(counts) - min(counts) <= 1 for counts in of_set.values())
    assert order_of(sampler(shares={"1": 1.0, "2": 3.0}), range(300, 320)) == order_of(
        sampler(shares={"1": 1.0, "2": 3.0}), range(300, 320)
    )


def test_sampled_queries_are_those_of_the_first_groups():
    drawn = sampler(epochs=0.0, steps=9)
    assert set(drawn.sampled_queries) == set(order_of(drawn, range(1, 10)))
    assert len(drawn.sampled_queries) == 9


class _Computed(Mapping[str, tuple[str, ...]]):
    """Lists of millions of queries that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.ids = _Ids(count)

    def __getitem__(self, query: str) -> tuple[str, ...]:
        at = int(query[1:])
        return tuple(f"d{at + doc}" for doc in range(6))

    def __iter__(self):
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


class _Grades(_Computed):
    def __getitem__(self, query: str) -> dict[str, int]:  # type: ignore[override]
        at = int(query[1:])
        return {f"d{at}": 1} if at % 5 else {}


class _Ids(Sequence[str]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at):
        if at >= self.count:
            raise IndexError(at)
        return f"q{at}"


def peak_of(order: str, queries: int) -> int:
    stage = Stage(epochs=1.0, group_size=4, groups_per_step=16, window=(1, 6), query_order=order)
    grades, ranking = _Grades(queries), _Computed(queries)
    pool = TrainingPool(query_ids=grades.ids, qrels=grades, ranking=ranking, has_text=lambda _: True)
    tracemalloc.start()
    drawn = Sampler("s", stage, 1, pool)
    drawn.groups(1)
    drawn.groups(drawn.steps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.sampling.usable == queries - queries // 5
    return peak


def test_a_computed_order_keeps_a_few_bits_a_query():
    peak_of("computed", 4_000)  # what Python keeps for later use is there already
    few, many = peak_of("computed", 4_000), peak_of("computed", 24_000)
    assert (many - few) / 20_000 < 1.5  # bytes
