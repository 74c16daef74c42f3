"""A whole run whose stage trains two losses: what it samples, what it records, and what `cerank show` says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cerank.app.run_views import stage_losses
from cerank.core.metrics import StepMetrics, Validation
from cerank.core.rankings import Ranking
from cerank.errors import RecipeError
from cerank.recipes.recipe_checks import recipe_from
from cerank.training import stage_summary
from cerank.worker.joint_stage import joint_sampler, ranked_by_all
from tests.worker.small import STAGE, small_plan, small_run
from tests.worker.test_whole_runs import forked, rows_of

JOINT = {
    **STAGE,
    "steps": 10,
    "validation_loss": "yes",
    "gradient_cosine_every": 5,
    "losses": [{"name": "lce"}, {"name": "listnet", "teacher": "oracle", "weight": 0.5, "temperature": 4.0}],
}


@pytest.mark.slow
def test_a_joint_stage_trains_on_labels_and_teacher_and_records_each_loss(tmp_path):
    data = str(tmp_path / "data")
    parts = {"train": f"{data}[:50%]", "validation": f"{data}[50%:70%]", "test": [f"{data}[70%:]"]}
    plan, settings = small_plan(
        tmp_path,
        chain=["joint"],
        data={**parts, "first_stages": ["bm25", "oracle"], "depth": 8},
        stages={"joint": JOINT},
    )
    run = small_run(tmp_path, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    steps = [row for row in rows_of(run) if isinstance(row, StepMetrics)]
    assert [set(row.parts) for row in steps] == [{"lce", "listnet"}] * 10
    assert [row.step for row in steps if row.cosines] == [5, 10]
    assert all(row.loss == pytest.approx(row.parts["lce"] + 0.5 * row.parts["listnet"]) for row in steps)
    validations = [row for row in rows_of(run) if isinstance(row, Validation)]
    assert all({"loss", "lce", "listnet"} <= set(row.measures) for row in validations)
    first, second = stage_losses.of_run(run, plan)
    assert (first.name, first.weight, first.learns_from) == ("lce", 1.0, "labels")
    assert (second.name, second.weight, second.learns_from) == ("listnet", 0.5, "oracle")
    assert first.first == steps[0].parts["lce"]
    assert second.last == steps[-1].parts["listnet"]
    assert second.cosine == pytest.approx((steps[4].cosines["lce, listnet"] + steps[9].cosines["lce, listnet"]) / 2)
    summary = stage_summary.read(run.final(0, "joint"))
    assert summary is not None
    assert summary.sampling.queries == 20
    assert 0 < summary.sampling.usable <= 20


def test_candidates_are_those_that_every_teacher_ranks_of_queries_that_every_teacher_ranks():
    def ranking(**lists):
        return Ranking(lists, {query: [-float(place) for place in range(len(docs))] for query, docs in lists.items()})

    first = ranking(q1=["a", "b", "c"], q2=["a"], q3=["b"])
    kept = ranked_by_all(first, [ranking(q1=["c", "b"], q2=["a"]), ranking(q1=["b", "x", "c"])])
    assert kept == {"q1": ["b", "c"]}
    assert ranked_by_all(first, []) == first


def made_sampler(stage, candidates, teacher=None, mined=None, qrels=None, **more):
    """The sampler of a joint stage over made inputs: the first stage's candidates, and a teacher's ranking."""
    values = {"name": "r", "chain": ["a"], "stages": {"a": {"steps": 20, **stage}}}
    recipe = recipe_from(values, "test")
    dataset = SimpleNamespace(
        queries=dict.fromkeys(qrels, ""), qrels=qrels, documents={doc for row in qrels.values() for doc in row},
        members={}, weights={},
    )  # fmt: skip
    sources = SimpleNamespace(
        datasets={recipe.data.train: dataset},
        candidates=lambda _, first: candidates if first == "bm25" else mined,
        teacher=lambda *_: teacher,
    )
    return joint_sampler(sources, recipe, "a", recipe.stages["a"], None, **more)


def numbered(numbers):
    return Ranking(
        {"q1": [f"d{number}" for number in numbers]}, {"q1": [-0.5 * place for place in range(len(numbers))]}
    )


def test_places_count_in_the_first_stages_ranking_where_a_teacher_did_not_rank_all_of_it():
    losses = [{"name": "lce"}, {"name": "ranknet", "teacher": "t"}]
    teacher = numbered([number for number in range(1, 31) if number > 8 and number != 15])
    stage = {"losses": losses, "window": [11, 20], "group_size": 4}
    sampler = made_sampler(stage, numbered(range(1, 31)), teacher, qrels={"q1": {"d3": 1}})
    negatives = {doc for step in range(1, 21) for group in sampler.groups(step) for doc in group.doc_ids[1:]}
    assert negatives == {f"d{number}" for number in range(11, 21) if number != 15}


def test_a_positive_that_the_first_stage_retrieved_is_used_though_a_teacher_did_not_rank_it():
    losses = [{"name": "lce"}, {"name": "ranknet", "teacher": "t"}]
    stage = {"losses": losses, "window": [1, 20], "group_size": 2, "unretrieved": "none"}
    sampler = made_sampler(stage, numbered(range(1, 31)), numbered(range(9, 31)), qrels={"q1": {"d3": 1}})
    assert sampler.sampling.unretrieved_positives == 0
    group = sampler.groups(1)[0]
    assert group.doc_ids[0] == "d3"
    assert group.targets[0] == (1.0, 0.0)
    assert group.targets[1][0] is None


def test_negatives_of_other_sources_are_left_out_of_the_loss_of_a_teacher_that_did_not_rank_them():
    losses = [{"name": "lce"}, {"name": "ranknet", "teacher": "t"}]
    sources = [{"source": "first-stage"}, {"source": "mined", "run": "m.run"}]
    stage = {"losses": losses, "window": [1, 10], "group_size": 5, "negative_sources": sources}
    teacher, mined = numbered(range(1, 7)), numbered(range(21, 31))
    sampler = made_sampler(stage, numbered(range(1, 11)), teacher, mined=mined, qrels={"q1": {"d3": 1}})
    for step in range(1, 21):
        group = sampler.groups(step)[0]
        own = [doc for doc in group.doc_ids[1:] if int(doc[1:]) < 20]
        assert len(own) == 2
        assert set(own) <= {"d1", "d2", "d4", "d5", "d6"}  # what the teacher ranks
        assert group.targets[0] == (1.0, 0.0, 0.0, 0.0, 0.0)
        known = [target is not None for target in group.targets[1]]
        assert known == [doc in teacher["q1"] for doc in group.doc_ids]


def test_a_filter_drops_candidates_before_a_teacher_ranks_what_is_sampled():
    losses = [{"name": "lce"}, {"name": "ranknet", "teacher": "t"}]
    stage = {"losses": losses, "window": [1, 10], "group_size": 4}
    asked = []

    def filtered(sampler):
        asked.append(sampler.sampled_queries)
        return sampler.dropping({"q1": frozenset({"d4", "d5"})})

    sampler = made_sampler(
        stage, numbered(range(1, 11)), numbered(range(1, 11)), qrels={"q1": {"d3": 1}}, filtered=filtered
    )
    assert asked == [("q1",)]
    negatives = {doc for step in range(1, 21) for group in sampler.groups(step) for doc in group.doc_ids[1:]}
    assert negatives == {f"d{number}" for number in (1, 2, 6, 7, 8, 9, 10)}
    assert all(None not in sampler.groups(step)[0].targets[1] for step in range(1, 21))


@pytest.mark.parametrize(
    ("key", "value"),
    [("negative_sources", [{"source": "collection"}]), ("false_negatives", {"near_duplicates": 0.9})],
)
def test_a_stage_that_learns_from_teachers_alone_has_no_negatives_to_choose(key, value):
    losses = [{"name": "ranknet", "teacher": "t"}, {"name": "margin-mse", "teacher": "t"}]
    values = {"name": "r", "chain": ["a"], "stages": {"a": {"steps": 20, "losses": losses, key: value}}}
    with pytest.raises(RecipeError) as caught:
        recipe_from(values, "test")
    assert f"stages.a.{key}" in str(caught.value)


def test_a_joint_stage_on_labels_alone_has_the_queries_of_a_stage_with_that_loss():
    qrels = {"q1": {"p1": 1}, "q2": {"p2": 1}}
    mined = Ranking({"q1": ["d5", "d6"], "q2": ["d7", "d8"]}, {"q1": [2.0, 1.0], "q2": [2.0, 1.0]})
    stage = {"losses": [{"name": "lce"}], "group_size": 2, "negative_sources": [{"source": "mined", "run": "m.run"}]}
    sampler = made_sampler(stage, numbered([1, 2]), mined=mined, qrels=qrels)
    assert sampler.usable == ("q1", "q2")


def test_the_embedding_teacher_ranks_the_queries_that_come_in_place_of_one_that_another_could_not_rank():
    queries = [f"q{number}" for number in range(60)]
    candidates = Ranking(
        {query: ["p", "d1", "d2", "d3"] for query in queries}, {query: [0.7, 0.5, 0.2, 0.1] for query in queries}
    )
    losses = [{"name": "lce"}, *({"name": "kl", "teacher": teacher} for teacher in ("embedding", "mine"))]
    values = {
        "name": "r",
        "chain": ["a"],
        "stages": {"a": {"steps": 5, "groups_per_step": 2, "group_size": 2, "window": [1, 4], "losses": losses}},
        "teachers": {"mine": {"kind": "cross-encoder", "model": "m", "depth": 4}},
    }
    recipe = recipe_from(values, "test")
    dataset = SimpleNamespace(
        queries=dict.fromkeys(queries, ""), qrels={query: {"p": 1} for query in queries},
        documents={"p", "d1", "d2", "d3"}, members={}, weights={},
    )  # fmt: skip
    failed: list[str] = []
    embedded: list[Ranking] = []

    def teacher(_key, view, asked):
        if view.teacher == "mine":  # its first query fails, for good
            failed.extend(asked[:1] if not failed else ())
            return candidates.only([query for query in asked if query not in failed])
        if not embedded:  # as in a run, which writes the list once
            embedded.append(candidates.only(asked))
        return embedded[0]

    sources = SimpleNamespace(datasets={recipe.data.train: dataset}, candidates=lambda *_: candidates, teacher=teacher)
    sampler = joint_sampler(sources, recipe, "a", recipe.stages["a"], None)
    assert len(sampler.sampled_queries) == 10
    assert failed[0] not in sampler.sampled_queries
    assert set(sampler.sampled_queries) <= set(embedded[0])
