"""From a step to its groups: what is drawn, what never is, and that it depends on nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.data.sampler import Sampler
from cerank.domain.recipe import Stage
from cerank.errors import RunFailedError

STAGE = Stage(steps=10, group_size=4, groups_per_step=2, window=(1, 6))
RANKING = {f"q{i}": [f"d{(i + j) % 12}" for j in range(10)] for i in range(6)}
QRELS = {f"q{i}": {f"d{i}": 1, f"d{(i + 3) % 12}": 0} for i in range(6)}


def sampler(stage=STAGE, qrels=QRELS, ranking=RANKING, queries=None, seed=1, texts=None):
    has_text = (lambda doc: True) if texts is None else texts.__contains__
    ids = list(ranking) if queries is None else queries
    return Sampler("s", stage, seed, query_ids=ids, qrels=qrels, ranking=ranking, has_text=has_text)


def changed(**values):
    return msgspec.structs.replace(STAGE, **values)


def test_a_group_is_one_positive_and_negatives_from_the_window_that_are_not_relevant():
    for step in range(1, 20):
        for group in sampler().groups(step):
            assert group.labels == (1.0, 0.0, 0.0, 0.0)
            assert group.doc_ids[0] in QRELS[group.query_id]
            window = RANKING[group.query_id][:6]
            assert set(group.doc_ids[1:]) <= set(window) - {doc for doc, g in QRELS[group.query_id].items() if g >= 1}
            assert len(set(group.doc_ids)) == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_groups_of_a_step_do_not_depend_on_which_steps_were_asked_for_before(steps):
    used = sampler()
    asked = {step: used.groups(step) for step in steps}
    assert all(sampler().groups(step) == groups for step, groups in asked.items())


def test_each_epoch_takes_every_usable_query_once_in_an_order_of_its_own():
    drawn = sampler()
    epochs = [[g.query_id for step in range(first, first + 3) for g in drawn.groups(step)] for first in (1, 4, 7)]
    assert all(sorted(epoch) == sorted(RANKING) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_another_seed_draws_other_groups():
    assert [sampler(seed=1).groups(s) for s in range(1, 6)] != [sampler(seed=2).groups(s) for s in range(1, 6)]


def test_a_positive_that_the_first_stage_did_not_find_is_used_and_counted():
    qrels = {query: {"d99": 2} for query in RANKING}
    drawn = sampler(qrels=qrels)
    assert drawn.supply.unretrieved_positives == 6
    assert all(group.doc_ids[0] == "d99" and group.labels[0] == 2.0 for group in drawn.groups(1))


def test_a_positive_without_a_text_is_no_positive():
    drawn = sampler(texts={f"d{i}" for i in range(1, 12)})
    assert (drawn.supply.without_positive, drawn.supply.usable) == (1, 5)


def test_queries_that_lack_something_are_counted_by_what_they_lack_and_left_out():
    qrels = {**QRELS, "q0": {}, "q1": dict.fromkeys(RANKING["q1"], 1)}
    ranking = {query: docs for query, docs in RANKING.items() if query != "q2"}
    drawn = sampler(qrels=qrels, ranking=ranking, queries=sorted(RANKING))
    supply = drawn.supply
    assert (supply.queries, supply.usable) == (6, 3)
    assert (supply.without_candidates, supply.without_positive, supply.without_negative) == (1, 1, 1)
    assert {g.query_id for step in range(1, 30) for g in drawn.groups(step)} == {"q3", "q4", "q5"}


def test_it_refuses_such_queries_where_the_recipe_says_so():
    with pytest.raises(RunFailedError, match="1 of 6 training queries lack a pair"):
        sampler(changed(without_pair="refuse"), qrels={**QRELS, "q0": {}})


def test_it_refuses_data_without_any_usable_query_and_says_what_is_missing():
    with pytest.raises(RunFailedError, match=r"none of the 6 training queries.*6 no document of grade 3"):
        sampler(changed(relevance=3))


def test_several_positives_come_as_far_as_there_are_any():
    qrels = {query: {"d20": 1, "d21": 1, "d22": 1} for query in RANKING}
    (group, _) = sampler(changed(positives=2), qrels=qrels).groups(1)
    assert group.labels == (1.0, 1.0, 0.0, 0.0)


def test_a_relevance_threshold_makes_lower_grades_negatives():
    qrels = {query: {"d20": 2, docs[0]: 1} for query, docs in RANKING.items()}
    drawn = sampler(changed(relevance=2, window=(1, 2), group_size=3), qrels=qrels)
    group = drawn.groups(1)[0]
    assert group.doc_ids[0] == "d20"
    assert set(group.doc_ids[1:]) == set(RANKING[group.query_id][:2])


def test_top_negatives_are_the_first_of_the_window_that_are_not_relevant():
    for group in sampler(changed(negatives="top", window=(2, 6))).groups(1):
        relevant = {doc for doc, grade in QRELS[group.query_id].items() if grade >= 1}
        expected = [doc for doc in RANKING[group.query_id][1:6] if doc not in relevant][:3]
        assert list(group.doc_ids[1:]) == expected


def test_a_teachers_group_keeps_its_order_and_counts_down_from_the_size():
    stage = changed(source="teacher", teacher="t", loss="ranknet")
    for step in range(1, 10):
        for group in sampler(stage).groups(step):
            places = [RANKING[group.query_id].index(doc) for doc in group.doc_ids]
            assert places == sorted(places)
            assert max(places) < 6
            assert group.labels == (4.0, 3.0, 2.0, 1.0)


def test_short_lists_give_smaller_groups_and_are_counted():
    drawn = sampler(
        changed(source="teacher", teacher="t"), ranking={"q0": ["a", "b", "c"], "q1": ["a"], "q2": list("abcdef")}
    )
    assert (drawn.supply.usable, drawn.supply.short, drawn.supply.without_negative) == (2, 1, 1)
    assert {len(group) for step in range(1, 9) for group in drawn.groups(step)} == {3, 4}


def test_epochs_become_steps():
    assert sampler(changed(steps=0, epochs=1.5)).steps == 5  # 1.5 x 6 queries / 2 a step, rounded up
    assert sampler().steps == 10
