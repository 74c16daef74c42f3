"""A curriculum: the order of a stage's queries, which are the same ones as without it."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from cerank.core.rankings import Ranking
from cerank.errors import RunFailedError
from cerank.recipes.schema import Stage
from cerank.recipes.sections.curriculum_specs import CurriculumSpec, curriculum_mistakes
from cerank.recipes.sections.loss_parts import LossPart
from cerank.training.optimization.curriculum import confidence, in_order
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.sampler import Sampler, TrainingPool
from tests.refusals import refused

QUERIES = [f"q{number}" for number in range(10)]
DOCUMENTS = [f"d{number}" for number in range(6)]
MARGINS = {query: float((7 * number) % 10) for number, query in enumerate(QUERIES)}
TAUGHT = Ranking(
    dict.fromkeys(QUERIES, DOCUMENTS),
    {query: [MARGINS[query] + 1.5, 1.0, 0.5, 0.25, 0.125, 0.0] for query in QUERIES},
)
STAGE = Stage(
    steps=12, group_size=4, groups_per_step=2, source="teacher", teacher="t.run", loss="ranknet",
    curriculum=CurriculumSpec(kind="confident-first", share=0.5),
)  # fmt: skip


def sampler(stage=STAGE, ranking=TAUGHT):
    pool = TrainingPool(query_ids=QUERIES, qrels={}, ranking=ranking, has_text=lambda _: True, scores=ranking.scores)
    return Sampler("s", stage, 5, pool)


def queries(of, steps=range(1, 13)):
    return [group.query_id for step in steps for group in of.groups(step)]


def margins_by_step(names):
    """The least margin of each step of two: the surest of a step may come again in the next one."""
    return [min(MARGINS[query] for query in names[at : at + 2]) for at in range(0, len(names), 2)]


def test_the_first_steps_have_the_same_queries_the_surest_first_and_later_ones_are_as_before():
    plain = sampler()
    ordered, what = in_order(plain, STAGE.curriculum, "stages.s.curriculum")
    before, after = queries(plain), queries(ordered)
    assert Counter(after[:12]) == Counter(before[:12])
    assert sorted(margins_by_step(after[:12]), reverse=True) == margins_by_step(after[:12])
    assert after[12:] == before[12:]
    assert before[:12] != after[:12]
    assert "6 of 12" in what


def test_a_query_that_several_passes_sample_waits_for_another_step_than_its_own():
    stage = msgspec.structs.replace(STAGE, steps=15, curriculum=CurriculumSpec(kind="confident-first", share=1.0))
    plain = sampler(stage)
    ordered, _ = in_order(plain, stage.curriculum, "s")
    steps = [queries(ordered, [step]) for step in range(1, 16)]
    assert all(len(set(step)) == 2 for step in steps)
    assert Counter(query for step in steps for query in step) == Counter(queries(plain, range(1, 16)))
    best = sorted(QUERIES, key=lambda query: -MARGINS[query])
    assert steps[:3] == [best[:2]] * 3
    assert steps[-3:] == [best[-2:]] * 3


def test_a_step_has_the_same_groups_whichever_was_asked_for_before():
    ordered, _ = in_order(sampler(), STAGE.curriculum, "s")
    again, _ = in_order(sampler(), STAGE.curriculum, "s")
    assert [again.groups(step) for step in (9, 3)] == [ordered.groups(step) for step in (9, 3)]
    assert ordered.sampled_queries == sampler().sampled_queries


def test_a_stage_with_several_losses_takes_its_first_teacher():
    losses = (LossPart(name="lce"), LossPart(name="ranknet", teacher="t.run"))
    stage = msgspec.structs.replace(STAGE, source="labels", teacher="", losses=losses)
    qrels = {query: {"d1": 1} for query in QUERIES}
    pool = TrainingPool(query_ids=QUERIES, qrels=qrels, ranking=TAUGHT, has_text=lambda _: True)
    ordered, _ = in_order(JointSampler("s", stage, 5, pool, {"t.run": TAUGHT}), stage.curriculum, "s")
    margins = margins_by_step(queries(ordered, range(1, 7)))
    assert margins == sorted(margins, reverse=True)


def test_a_teacher_whose_scores_are_ranks_is_refused():
    ranks = Ranking(TAUGHT, {query: [6.0, 5.0, 4.0, 3.0, 2.0, 1.0] for query in QUERIES})
    with refused(RunFailedError, "teacher-without-scores", "stages.s.curriculum"):
        in_order(sampler(ranking=ranks), STAGE.curriculum, "stages.s.curriculum")


def test_a_list_of_one_document_says_nothing():
    assert confidence("margin", [3.0]) < confidence("margin", [1.0, 1.0]) == 0.0


@pytest.mark.parametrize(
    ("spec", "teachers", "key"),
    [
        (CurriculumSpec(share=0.2), ("t.run",), "share"),
        (CurriculumSpec(by="spread"), ("t.run",), "by"),
        (STAGE.curriculum, (), "kind"),
        (STAGE.curriculum, ("permutations.json",), "kind"),
        (STAGE.curriculum, ("t.run",), ""),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused(spec, teachers, key):
    assert [mistake.partition(":")[0] for mistake in curriculum_mistakes("at", spec, teachers)] == (
        [f"at.{key}"] if key else []
    )
