"""Negatives from several sources: how many each gives, that a step alone decides, and what fills a gap."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.datasets.collection_ids import CollectionIds
from cerank.errors import RunFailedError
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import NegativeSource
from cerank.training.sampling.mixed_negatives import divide
from cerank.training.sampling.sampler import Sampler, TrainingPool
from tests.refusals import refused

QUERIES = [f"q{n}" for n in range(6)]
RANKING = {query: [f"{query}-bm{rank}" for rank in range(1, 31)] for query in QUERIES}
MINED = {query: [f"{query}-mined{rank}" for rank in range(1, 4)] for query in QUERIES}
QRELS = {query: {f"{query}-good": 1, f"{query}-bm7": 2} for query in QUERIES}
COLLECTION = [f"c{n}" for n in range(50)] + ["q0-good"]


class Documents(dict[str, str]):
    """Documents as a dictionary; iterated as (id, text)."""

    def __iter__(self):
        return iter(self.items())


def source(kind="first-stage", share=1.0, **more):
    return NegativeSource(source=kind, share=share, **more)


def sampler(*sources, seed=1, ranking=RANKING, queries=QUERIES, **stage):
    values = {"steps": 20, "group_size": 8, "groups_per_step": 3, "window": (1, 20), "negative_sources": sources}
    pool = TrainingPool(
        query_ids=queries,
        qrels=QRELS,
        ranking=ranking,
        has_text=lambda doc: not doc.endswith("bm7"),
        sources={used.run: MINED if used.run else ranking for used in sources if used.is_ranked},
        collections={"": CollectionIds(Documents(dict.fromkeys(COLLECTION, "text")))},
    )
    return Sampler("s", Stage(**{**values, **stage}), seed, pool)


def kind_of(doc, query):
    if not doc.startswith(f"{query}-"):
        return "collection" if doc.startswith("c") else "in-batch"
    return "mined" if "mined" in doc else "first-stage"


def kinds(drawn, steps):
    return Counter(
        kind_of(doc, group.query_id) for step in steps for group in drawn.groups(step) for doc in group.doc_ids[1:]
    )


@settings(max_examples=25)
@given(
    st.integers(0, 40),
    st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0, 7.0]), min_size=1, max_size=5).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_a_division_gives_all_and_each_source_its_share_rounded_down_or_up(count, shares, offset):
    counts = divide(count, shares, offset)
    assert sum(counts) == count
    for number, share in zip(counts, shares, strict=True):
        assert abs(number - count * share / sum(shares)) < 1 + 1e-9
        assert share or not number


def test_on_average_each_source_gives_exactly_its_share():
    offsets = [(2 * n + 1) / 2000 for n in range(1000)]
    sums = [sum(column) / 1000 for column in zip(*(divide(7, [0.5, 0.3, 0.2], u) for u in offsets), strict=True)]
    assert sums == pytest.approx([3.5, 2.1, 1.4], abs=1e-9)


def test_each_source_gives_its_share_of_a_groups_negatives():
    drawn = sampler(source(share=4), source("collection", share=2), source("in-batch", share=1))
    for step in range(1, 21):
        for group, sampled in drawn.sampled_negatives(step):
            assert group.labels == (1.0, *[0.0] * 7)
            assert Counter(negative.source for negative in sampled) == {0: 4, 1: 2, 2: 1}


def test_shares_that_do_not_divide_a_group_hold_over_many_groups():
    counts = kinds(sampler(source(), source("collection")), range(1, 101))
    assert sum(counts.values()) == 2100
    assert counts["first-stage"] == pytest.approx(1050, abs=60)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_groups_depend_on_seed_stage_step_and_query_alone(steps):
    sources = (source(share=2), source("mined", run="mined.run"), source("collection"), source("in-batch"))
    used = sampler(*sources)
    asked = {step: used.groups(step) for step in steps}
    assert all(sampler(*sources).groups(step) == groups for step, groups in asked.items())
    assert sampler(*sources, seed=2).groups(1) != sampler(*sources).groups(1)


def test_no_relevant_document_and_none_twice_is_sampled_from_any_source():
    drawn = sampler(source(ranks=(5, 9)), source("collection"), source("in-batch"), group_size=12)
    for step in range(1, 30):
        for group in drawn.groups(step):
            sampled = group.doc_ids[1:]
            assert len(set(group.doc_ids)) == len(group.doc_ids)
            assert not {doc for doc in sampled if doc in QRELS[group.query_id]}


def test_each_source_keeps_to_its_own_ranks_and_its_own_sampler():
    drawn = sampler(source(ranks=(25, 30), sampler="top"), group_size=4)
    for group in drawn.groups(3):
        assert group.doc_ids[1:] == tuple(f"{group.query_id}-bm{rank}" for rank in (25, 26, 27))


def test_what_a_source_lacks_the_others_give():
    drawn = sampler(source("mined", share=7, run="mined.run"), source(share=0))
    for group in drawn.groups(1):
        assert len(group) == 8
        counts = Counter(kind_of(doc, group.query_id) for doc in group.doc_ids[1:])
        assert counts == {"mined": 3, "first-stage": 4}


def test_negatives_of_the_step_are_documents_of_its_other_groups():
    drawn = sampler(source(share=3), source("in-batch", share=4))
    for step in range(1, 10):
        groups = drawn.groups(step)
        for group in groups:
            own = [doc for doc in group.doc_ids if doc.startswith(f"{group.query_id}-")]
            foreign = set(group.doc_ids) - set(own)
            assert len(foreign) == 4
            others = [other.query_id for other in groups if other is not group]
            assert {doc.partition("-")[0] for doc in foreign} <= set(others)


def test_a_query_is_usable_if_any_source_has_a_negative_for_it():
    ranking = {query: docs for query, docs in RANKING.items() if query != "q2"}
    assert sampler(source(), ranking=ranking).sampling.without_candidates == 1
    assert sampler(source(), source("collection"), ranking=ranking).sampling.usable == 6


def test_dropped_candidates_are_never_sampled_and_the_order_of_the_other_queries_stays():
    plain = sampler(source(), group_size=4)
    gone = {"q1": frozenset(RANKING["q1"]), "q3": frozenset(RANKING["q3"][:15])}
    drawn = plain.dropping(gone)
    assert drawn.emptied == ("q1",)
    assert drawn.usable == ("q0", "q2", "q3", "q4", "q5")
    order = [group.query_id for step in (1, 2) for group in plain.groups(step)]
    filtered = [group.query_id for step in (1, 2) for group in drawn.groups(step)]
    assert filtered[:5] == [query for query in order if query != "q1"]
    sampled = [group for step in range(1, 20) for group in drawn.groups(step) if group.query_id == "q3"]
    assert sampled
    assert all(not set(group.doc_ids[1:]) & gone["q3"] for group in sampled)


def test_filters_work_without_several_sources_too():
    drawn = sampler(group_size=4).dropping({"q0": frozenset(RANKING["q0"][:17])})
    docs = {
        doc for step in range(1, 30) for group in drawn.groups(step) if group.query_id == "q0" for doc in group.doc_ids
    }
    assert docs - {"q0-good"} == {"q0-bm18", "q0-bm19", "q0-bm20"}


def test_filters_that_leave_no_query_a_negative_are_an_error():
    gone = {query: frozenset(docs) for query, docs in RANKING.items()}
    with refused(RunFailedError, "no-negative-left", 6):
        sampler(source()).dropping(gone)
    with refused(RunFailedError, "unusable-queries", 1, 6):
        sampler(source(), without_pair="refuse").dropping({"q1": gone["q1"]})


def test_what_is_shown_of_a_step_is_what_the_step_trains_on():
    drawn = sampler(source(share=3), source("collection", share=2), source("in-batch", share=2))
    for group, sampled in drawn.sampled_negatives(4):
        assert [negative.doc_id for negative in sampled] == list(group.doc_ids[1:])
        assert [negative.source for negative in sampled] == sorted(negative.source for negative in sampled)
        ranks = {negative.doc_id: negative.rank for negative in sampled if negative.source == 0}
        assert all(RANKING[group.query_id][rank - 1] == doc for doc, rank in ranks.items())
    plain = sampler(group_size=4)
    assert [group for group, _ in plain.sampled_negatives(2)] == plain.groups(2)


def test_a_stage_without_sources_samples_as_before():
    stage = Stage(steps=20, group_size=8, groups_per_step=3, window=(1, 20))
    pool = TrainingPool(query_ids=QUERIES, qrels=QRELS, ranking=RANKING, has_text=lambda doc: not doc.endswith("bm7"))
    assert [Sampler("s", stage, 1, pool).groups(step) for step in (1, 2)] == [sampler().groups(step) for step in (1, 2)]


def test_the_packed_ids_of_a_collection_are_its_ids_in_order():
    ids = CollectionIds(Documents({"a": "", "ü7": "", "d-33": ""}))
    assert [ids[place] for place in range(len(ids))] == ["a", "ü7", "d-33"]
