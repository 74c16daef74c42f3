"""Losses that are for some sets of a mixture alone: which groups each reads, and what a set counts."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch

from cerank.core.groups import Group
from cerank.core.rankings import Ranking
from cerank.errors import RecipeError
from cerank.planning.stage_keys import stage_key_by_names
from cerank.recipes.loss_specs import LOSSES
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Stage
from cerank.recipes.sections.loss_parts import LossPart
from cerank.training.losses import loss_of
from cerank.training.objective import Objective
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.sampler import TrainingPool
from cerank.worker.joint_stage import ranked_by_all
from tests.refusals import refused

PARTS = (LossPart(name="lce", sets=("ours",)), LossPart(name="ranknet", weight=0.5, sets=("theirs",)))
STAGE = Stage(steps=4, group_size=3, groups_per_step=4, losses=PARTS)
QUERIES = [f"{number}:q{at}" for number in "12" for at in range(6)]
RANKING = {query: [f"{query[0]}:d{at}" for at in range(5)] for query in QUERIES}


def sampler():
    pool = TrainingPool(
        query_ids=QUERIES,
        qrels={query: {f"{query[0]}:d1": 1} for query in QUERIES},
        ranking=RANKING,
        has_text=lambda _: True,
        shares={"1": 1.0, "2": 1.0},
    )
    return JointSampler("s", STAGE, 5, pool, {}, sets=[frozenset("1"), frozenset("2")])


def test_each_loss_has_targets_in_the_groups_of_its_sets_alone():
    groups = [group for step in range(1, 5) for group in sampler().groups(step)]
    assert {group.query_id[0] for group in groups} == {"1", "2"}
    for group in groups:
        own, other = group.targets if group.query_id.startswith("1:") else reversed(group.targets)
        assert tuple(own) == group.labels
        assert tuple(other) == (None, None, None)
    assert sampler().describe_unknown() == ""


def test_every_group_counts_alike_whichever_loss_it_has():
    objective = Objective(STAGE)
    ours = Group("1:q", ("a", "b"), (1.0, 0.0), ((1.0, 0.0), (None, None)))
    theirs = Group("2:q", ("a", "b"), (1.0, 0.0), ((None, None), (1.0, 0.0)))
    groups = [ours, theirs, theirs, theirs]
    lce, ranknet = objective.group_weights(groups, torch.device("cpu"))
    assert lce.tolist() == [0.25, 0.0, 0.0, 0.0]
    assert ranknet.tolist() == [0.0, 0.25, 0.25, 0.25]
    losses, _ = objective.group_losses(torch.tensor([[1.0, 0.0]] * 4), groups)
    values = [(loss * of_loss).sum() for loss, of_loss in zip(losses, (lce, ranknet), strict=True)]
    of_pair = math.log1p(math.exp(-1.0))
    assert float(objective.total(values)) == pytest.approx(0.25 * of_pair + 0.5 * 0.75 * of_pair, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, needs in LOSSES.items() if needs.has_pairs or not needs.options])
def test_a_group_of_another_set_adds_no_gradient_to_a_loss(name):
    scores = torch.tensor([[1.0, -1.0, 0.5], [0.3, 0.2, 0.1]], requires_grad=True)
    labels = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    known = torch.tensor([[True] * 3, [False] * 3])
    loss = loss_of(LossPart(name=name))(scores, labels, known)
    (loss * torch.tensor([1.0, 0.0])).sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[1].tolist() == [0.0, 0.0, 0.0]


def test_only_the_teachers_of_a_querys_own_set_must_rank_it():
    def ranking(lists):
        return Ranking(lists, {query: [-float(place) for place in range(len(docs))] for query, docs in lists.items()})

    first = ranking({"1:a": ["1:x", "1:y"], "2:a": ["2:x", "2:y"], "2:b": ["2:x", "2:y"]})
    teacher = ranking({"2:a": ["2:y"]})
    assert ranked_by_all(first, [teacher], [frozenset("2")]) == {"1:a": ["1:x", "1:y"], "2:a": ["2:y"]}
    assert ranked_by_all(first, [teacher]) == {"2:a": ["2:y"]}


def recipe(losses, train="ours * 2 + theirs", **stage):
    values = {"name": "r", "chain": ["a"], "data": {"train": train}, "stages": {"a": {"steps": 1, **stage}}}
    values["stages"]["a"]["losses"] = losses
    return recipe_from(values, "test")


OURS, THEIRS = {"name": "lce", "sets": ["ours"]}, {"name": "bce", "sets": ["theirs"]}


@pytest.mark.parametrize(
    ("losses", "changes", "mistake"),
    [
        ([OURS], {}, "stages.a.losses: no loss is for the set 'theirs'"),
        ([OURS, {**THEIRS, "sets": ["their"]}], {}, "stages.a.losses[1].sets: 'their' is no set"),
        ([{**OURS, "sets": ["ours", "ours"]}, THEIRS], {}, "stages.a.losses[0].sets: a set appears twice"),
        ([OURS, THEIRS], {"train": "ours"}, "stages.a.losses: losses have sets"),
        ([OURS, THEIRS], {"validation_loss": "yes"}, "stages.a.validation_loss"),
        ([{"name": "ranknet", "sets": ["ours"], "mean_over": "pairs"}, THEIRS], {}, "stages.a.losses[0].mean_over"),
        (
            [{"name": "ranknet", "teacher": "x.run", "sets": ["ours"]}, {"name": "kl", "teacher": "y.run"}],
            {},
            "stages.a.losses[0].sets",
        ),
    ],
)
def test_losses_that_do_not_fit_the_sets_are_refused(losses, changes, mistake):
    with refused(RecipeError, "recipe", mistake.partition(":")[0]):
        recipe(losses, **changes)


def test_which_sets_a_loss_is_for_is_part_of_a_stages_key():
    first, turned = recipe([OURS, THEIRS]), recipe([{**OURS, "sets": ["theirs"]}, {**THEIRS, "sets": ["ours"]}])
    assert stage_key_by_names(first, 0) != stage_key_by_names(turned, 0)
    plain = msgspec.structs.replace(first.stages["a"], losses=(LossPart(name="lce"),))
    assert stage_key_by_names(msgspec.structs.replace(first, stages={"a": plain}), 0) != stage_key_by_names(first, 0)
