"""From a step to its groups: what is drawn, what never is, and that it depends on nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.core.rankings import ordered
from cerank.errors import RunFailedError
from cerank.recipes.schema import Stage
from cerank.training.sampling.sampler import Sampler, TeacherTies, TrainingPool
from tests.refusals import refused

STAGE = Stage(steps=10, group_size=4, groups_per_step=2, window=(1, 6))
RANKING = {f"q{i}": [f"d{(i + j) % 12}" for j in range(10)] for i in range(6)}
QRELS = {f"q{i}": {f"d{i}": 1, f"d{(i + 3) % 12}": 0} for i in range(6)}


def sampler(stage=STAGE, qrels=QRELS, ranking=RANKING, queries=None, seed=1, texts=None, scores=None):
    has_text = (lambda doc: True) if texts is None else texts.__contains__
    ids = list(ranking) if queries is None else queries
    pool = TrainingPool(query_ids=ids, qrels=qrels, ranking=ranking, has_text=has_text, scores=scores)
    return Sampler("s", stage, seed, pool)


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


@settings(max_examples=30)
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
    assert drawn.sampling.unretrieved_positives == 6
    assert all(group.doc_ids[0] == "d99" and group.labels[0] == 2.0 for group in drawn.groups(1))


def test_a_positive_without_a_text_is_no_positive():
    drawn = sampler(texts={f"d{i}" for i in range(1, 12)})
    assert (drawn.sampling.without_positive, drawn.sampling.usable) == (1, 5)


def test_queries_that_lack_something_are_counted_by_what_they_lack_and_left_out():
    qrels = {**QRELS, "q0": {}, "q1": dict.fromkeys(RANKING["q1"], 1)}
    ranking = {query: docs for query, docs in RANKING.items() if query != "q2"}
    drawn = sampler(qrels=qrels, ranking=ranking, queries=sorted(RANKING))
    supply = drawn.sampling
    assert (supply.queries, supply.usable) == (6, 3)
    assert (supply.without_candidates, supply.without_positive, supply.without_negative) == (1, 1, 1)
    assert {g.query_id for step in range(1, 30) for g in drawn.groups(step)} == {"q3", "q4", "q5"}


def test_it_refuses_such_queries_where_the_recipe_says_so():
    with refused(RunFailedError, "unusable-queries", 1, 6):
        sampler(changed(without_pair="refuse"), qrels={**QRELS, "q0": {}})


def test_it_refuses_data_without_any_usable_query_and_says_what_is_missing():
    with refused(RunFailedError, "no-usable-query", 6):
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


def test_documents_that_a_teacher_scores_alike_share_the_label_of_the_first_of_them():
    stage = changed(source="teacher", teacher="t", loss="ranknet", group_size=6, window=(1, 6))
    ranked = ordered({"q0": {"a": 5.0, "b": 3.0, "c": 3.0, "d": 3.0, "e": 1.0, "f": 1.0}})
    drawn = sampler(stage, ranking=ranked, scores=ranked.scores)
    (group, *_) = drawn.groups(1)
    assert group.doc_ids[0] == "a"
    assert group.labels == (6.0, 5.0, 5.0, 5.0, 2.0, 2.0)
    assert group.pairs == 15 - 3 - 1  # of three that tie three pairs, of two one
    assert drawn.teacher_ties() == TeacherTies(tied=4, pairs=15, lists=1)


def test_a_teacher_without_ties_has_none():
    stage = changed(source="teacher", teacher="t", loss="ranknet", group_size=6, window=(1, 6))
    ranked = ordered({"q0": {"a": 5.0, "b": 3.0, "c": 2.0}})
    drawn = sampler(stage, ranking=ranked, scores=ranked.scores)
    assert drawn.groups(1)[0].labels == (3.0, 2.0, 1.0)
    assert drawn.teacher_ties() == TeacherTies(tied=0, pairs=3, lists=0)


def test_short_lists_give_smaller_groups_and_are_counted():
    drawn = sampler(
        changed(source="teacher", teacher="t"), ranking={"q0": ["a", "b", "c"], "q1": ["a"], "q2": list("abcdef")}
    )
    assert (drawn.sampling.usable, drawn.sampling.undersized, drawn.sampling.without_negative) == (2, 1, 1)
    assert {len(group) for step in range(1, 9) for group in drawn.groups(step)} == {3, 4}


def test_epochs_become_steps():
    assert sampler(changed(steps=0, epochs=1.5)).steps == 5  # 1.5 x 6 queries / 2 a step, rounded up
    assert sampler().steps == 10


def several(stage, count=20, **data):
    drawn = sampler(stage, **data)
    return [group for step in range(1, count + 1) for group in drawn.groups(step)]


def test_log_random_draws_ranks_by_one_over_the_rank():
    ranking = {"q": [f"d{i}" for i in range(1, 101)]}
    stage = changed(negatives="log-random", window=(1, 100), group_size=2, groups_per_step=1)
    ranks = [int(g.doc_ids[1][1:]) for g in several(stage, 4000, qrels={"q": {"x": 1}}, ranking=ranking)]
    total = sum(1 / rank for rank in range(1, 101))
    for low, high in ((1, 3), (4, 10), (11, 40), (41, 100)):
        expected = sum(1 / rank for rank in range(low, high + 1)) / total
        share = sum(low <= rank <= high for rank in ranks) / len(ranks)
        assert share == pytest.approx(expected, abs=0.025)


def test_log_random_never_draws_a_document_twice():
    for group in several(changed(negatives="log-random", group_size=6)):
        assert len(set(group.doc_ids)) == len(group.doc_ids)


def test_top_positives_are_those_the_first_stage_ranks_first_and_unretrieved_ones_come_last():
    qrels = {"q": {"d99": 1, "d4": 2, "d2": 1}}
    ranking = {"q": [f"d{i}" for i in range(10)]}
    for count, expected in ((1, ["d2"]), (2, ["d2", "d4"]), (3, ["d2", "d4", "d99"])):
        stage = changed(positives_by="top", positives=count, group_size=6, groups_per_step=1)
        assert list(several(stage, 1, qrels=qrels, ranking=ranking)[0].doc_ids[:count]) == expected


def test_unretrieved_positives_may_be_left_out_as_the_papers_code_does_and_are_counted():
    qrels = {**QRELS, "q0": {"d99": 1}, "q1": {"d1": 1, "d98": 1}}
    drawn = sampler(changed(unretrieved="none"), qrels=qrels)
    assert (drawn.sampling.without_positive, drawn.sampling.dropped_positives) == (1, 2)
    assert drawn.sampling.unretrieved_positives == 0
    assert not {"d98", "d99"} & {doc for step in range(1, 30) for g in drawn.groups(step) for doc in g.doc_ids}


def test_a_positive_below_the_window_counts_as_not_retrieved():
    ranking = {"q": [f"d{i}" for i in range(10)]}
    with pytest.raises(RunFailedError, match="1 without a positive"):
        sampler(changed(unretrieved="none", window=(1, 6)), qrels={"q": {"d7": 1}}, ranking=ranking)


def test_judged_documents_that_were_not_retrieved_become_negatives_where_asked_for():
    qrels = {"q": {"d1": 1, "j1": 0, "j2": 0}}
    stage = changed(unretrieved="judged", negatives_from="judged", groups_per_step=1)
    (group,) = several(stage, 1, qrels=qrels, ranking={"q": ["d0", "d1", "d2"]})
    assert (group.doc_ids[0], set(group.doc_ids[1:])) == ("d1", {"j1", "j2"})
    (alone,) = several(stage, 1, qrels=qrels, ranking={}, queries=["q"])
    assert set(alone.doc_ids) == {"d1", "j1", "j2"}


def test_negatives_are_the_judged_ones_or_the_unjudged_ones_where_asked_for():
    for group in several(changed(negatives_from="judged")):
        judged = {doc for doc, grade in QRELS[group.query_id].items() if grade < 1}
        assert set(group.doc_ids[1:]) <= judged
    for group in several(changed(negatives_from="unjudged")):
        assert not set(group.doc_ids[1:]) & set(QRELS[group.query_id])


def test_negatives_may_be_taken_from_below_the_lowest_positive_only():
    ranking, qrels = {"q": [f"d{i}" for i in range(10)]}, {"q": {"d1": 1, "d6": 1}}
    stage = changed(below_positives="yes", window=(1, 10), groups_per_step=1)
    for group in several(stage, qrels=qrels, ranking=ranking):
        assert set(group.doc_ids[1:]) == {"d7", "d8", "d9"}
    unretrieved = {"q": {"d1": 1, "d99": 1}}  # all that was retrieved stands above it
    with pytest.raises(RunFailedError, match="1 without a negative"):
        sampler(stage, qrels=unretrieved, ranking=ranking)


def test_a_group_that_is_short_below_the_lowest_positive_fills_up_from_just_above_it():
    ranking, qrels = {"q": [f"d{i}" for i in range(8)]}, {"q": {"d6": 1}}
    stage = changed(below_positives="fill", window=(1, 10), groups_per_step=1)
    for group in several(stage, qrels=qrels, ranking=ranking):
        assert set(group.doc_ids[1:]) == {"d4", "d5", "d7"}


def test_in_batch_negatives_come_from_the_other_queries_and_are_never_positives_of_this_one():
    qrels = {**QRELS, "q0": {"d0": 1, "d1": 1, "d2": 1}}  # positives of q1 and q2, too
    stage = changed(in_batch=5, groups_per_step=6)
    plain = several(changed(groups_per_step=6), 10, qrels=qrels)
    for group, before in zip(several(stage, 10, qrels=qrels), plain, strict=True):
        assert group.doc_ids[: len(before)] == before.doc_ids
        added = group.doc_ids[len(before) :]
        assert 1 <= len(added) <= 5
        assert not set(added) & {doc for doc, grade in qrels[group.query_id].items() if grade >= 1}
        assert len(set(group.doc_ids)) == len(group.doc_ids)
        assert group.labels[len(before) :] == (0.0,) * len(added)


@settings(max_examples=60)
@given(
    st.sampled_from(["random", "top", "log-random"]),
    st.sampled_from(["all", "judged", "unjudged"]),
    st.sampled_from(["no", "yes", "fill"]),
    st.sampled_from(["positives", "none", "judged"]),
    st.sampled_from(["random", "top"]),
    st.integers(1, 3),
    st.integers(0, 3),
    st.dictionaries(st.sampled_from([f"d{i}" for i in range(14)]), st.integers(-1, 3), min_size=1),
)
def test_no_group_lacks_a_pair_and_no_positive_is_ever_a_negative(
    how, source, below, unretrieved, by, positives, in_batch, judged
):
    stage = changed(
        negatives=how,
        negatives_from=source,
        below_positives=below,
        unretrieved=unretrieved,
        positives_by=by,
        positives=positives,
        in_batch=in_batch,
    )
    qrels = dict.fromkeys(RANKING, judged)
    try:
        drawn = sampler(stage, qrels=qrels)
    except RunFailedError:
        return
    for group in drawn.groups(1) + drawn.groups(2):
        assert group.pairs > 0
        assert len(set(group.doc_ids)) == len(group.doc_ids)
        for doc, label in zip(group.doc_ids, group.labels, strict=True):
            assert (label > 0) == (judged.get(doc, 0) >= 1)


def test_a_loss_on_scores_gets_the_teachers_own():
    stage = changed(source="teacher", teacher="t", loss="margin-mse", window=(2, 6))
    scores = {query: [100.0 - 3 * place**2 for place in range(10)] for query in RANKING}
    drawn = Sampler(
        "s",
        stage,
        1,
        TrainingPool(
            query_ids=list(RANKING), qrels={}, ranking=RANKING, has_text=lambda _: True, scores=scores.__getitem__
        ),
    )
    for group in drawn.groups(1):
        places = [RANKING[group.query_id].index(doc) for doc in group.doc_ids]
        assert group.labels == tuple(100.0 - 3 * place**2 for place in places)
        assert places == sorted(places)


def test_scores_that_are_ranks_in_disguise_are_refused():
    stage = changed(source="teacher", teacher="t", loss="mse")
    with refused(RunFailedError, "teacher-without-scores"):
        Sampler(
            "s",
            stage,
            1,
            TrainingPool(
                query_ids=list(RANKING),
                qrels={},
                ranking=RANKING,
                has_text=lambda _: True,
                scores=lambda query: [float(10 - place) for place in range(10)],
            ),
        )


@pytest.mark.parametrize(("steps", "count"), [(2, 4), (3, 6), (40, 6)])
def test_a_teacher_that_ranks_only_the_drawn_queries_gives_the_groups_of_one_that_ranks_all(steps, count):
    stage = changed(steps=steps, source="teacher", loss="ranknet", teacher="t")
    taught = {query: sorted(docs[:6]) for query, docs in RANKING.items()}
    first = sampler(stage, ranking={query: docs[:6] for query, docs in RANKING.items()})
    assert len(first.sampled_queries) == count
    assert set(first.sampled_queries) == {
        group.query_id for step in range(1, steps + 1) for group in first.groups(step)
    }
    some = first.with_teacher(
        {query: taught[query] for query in first.sampled_queries},
        lambda query: [float(9 - place) for place in range(len(taught[query]))],
    )
    every = sampler(stage, ranking=taught)
    assert [some.groups(step) for step in range(1, steps + 1)] == [every.groups(step) for step in range(1, steps + 1)]
    assert some.sampling == every.sampling


def test_in_batch_negatives_are_of_the_querys_own_set_of_a_mixture():
    queries = [f"{number}:q{place}" for number in (1, 2) for place in range(4)]
    pool = TrainingPool(
        query_ids=queries,
        qrels={query: {f"{query[:2]}p{query[3:]}": 1} for query in queries},
        ranking={query: [f"{query[:2]}d{place}" for place in range(6)] for query in queries},
        has_text=lambda _: True,
        shares={"1": 1.0, "2": 1.0},
    )
    drawn = Sampler("s", Stage(steps=3, group_size=3, groups_per_step=6, in_batch=4), 1, pool)
    groups = drawn.groups(1) + drawn.groups(2)
    assert {group.query_id[:2] for group in groups} == {"1:", "2:"}
    assert any(len(group) > 3 for group in groups)
    assert all(doc.startswith(group.query_id[:2]) for group in groups for doc in group.doc_ids)


def test_in_batch_negatives_are_none_that_a_filter_dropped_for_the_query():
    pool = TrainingPool(
        query_ids=["q0", "q1"],
        qrels={"q0": {"p0": 1}, "q1": {"p1": 1}},
        ranking={"q0": ["x", "y0"], "q1": ["x", "y1"]},
        has_text=lambda _: True,
    )
    stage = Stage(steps=3, group_size=3, groups_per_step=2, in_batch=3)
    groups = Sampler("s", stage, 1, pool).dropping({"q0": frozenset({"x"})}).groups(1)
    assert {group.query_id: set(group.doc_ids) for group in groups} == {
        "q0": {"p0", "y0", "p1", "y1"},
        "q1": {"p1", "x", "y1", "p0", "y0"},
    }


def test_a_query_that_is_left_out_leaves_the_order_of_the_others():
    queries = [f"q{number}" for number in range(200)]
    every = sampler(
        changed(steps=10),
        ranking=dict.fromkeys(queries, RANKING["q0"]),
        qrels=dict.fromkeys(queries, QRELS["q0"]),
    )
    order = [group.query_id for step in range(1, 101) for group in every.groups(step)]
    gone = every.sampled_queries[3:5]
    fewer = every.leaving_out(gone[:1]).leaving_out(gone[1:])
    expected = [query for query in order if query not in gone]
    assert [group.query_id for step in range(1, 100) for group in fewer.groups(step)] == expected
    assert len(set(fewer.sampled_queries) - set(every.sampled_queries)) == 2
    assert (fewer.sampling.queries, fewer.sampling.usable) == (198, 198)


def test_queries_that_a_teacher_could_not_rank_are_not_said_to_be_emptied_by_filters():
    every = sampler(changed(steps=10))
    with refused(RunFailedError, "no-usable-query", len(every.usable)):
        every.leaving_out(every.usable)


def test_the_sampled_queries_of_a_mixture_are_those_of_its_groups():
    queries = [f"1:q{place}" for place in range(10)] + [f"2:q{place}" for place in range(100)]
    pool = TrainingPool(
        query_ids=queries,
        qrels={query: {f"{query[:2]}p": 1} for query in queries},
        ranking={query: [f"{query[:2]}d{place}" for place in range(6)] for query in queries},
        has_text=lambda _: True,
        shares={"1": 9.0, "2": 1.0},
    )
    drawn = Sampler("s", Stage(epochs=1.0, group_size=3, groups_per_step=2), 1, pool)
    used = {group.query_id for step in range(1, drawn.steps + 1) for group in drawn.groups(step)}
    assert set(drawn.sampled_queries) == used
    assert len(used) < 30
