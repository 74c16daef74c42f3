"""`[[stages.NAME.losses]]`: what is read, what is refused, and that recipes without it keep their identity."""

from __future__ import annotations

import pytest

from cerank import recipes
from cerank.errors import RecipeError
from cerank.planning.workload import count_work
from cerank.recipes.loss_specs import loss_mistakes
from cerank.recipes.plan import without_defaults
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.rendering import render
from cerank.recipes.schema import Stage
from tests.refusals import refused

LCE, KL = {"name": "lce"}, {"name": "kl", "teacher": "embedding"}


def recipe(*losses, **stage):
    return recipe_from(
        {"name": "r", "chain": ["s"], "stages": {"s": {"steps": 5, "losses": list(losses), **stage}}}, "here"
    )


def problems(*losses, **stage):
    """Return the key path of each mistake."""
    try:
        return [line.partition(": ")[0] for line in loss_mistakes(recipe(*losses, **stage))]
    except RecipeError as error:
        return [line.partition(": ")[0] for line in error.what.split("\n")]


def test_several_losses_with_their_weights_and_options_are_read():
    stage = recipe(LCE, {**KL, "weight": 0.25, "temperature": 2.0}).stages["s"]
    assert [(part.name, part.weight, part.teacher) for part in stage.parts] == [
        ("lce", 1.0, ""), ("kl", 0.25, "embedding")]  # fmt: skip
    assert stage.parts[1].options() == {"temperature": 2.0}
    assert problems(LCE, KL) == []


@pytest.mark.parametrize(
    ("losses", "stage", "place"),
    [
        ([{**LCE, "weight": 0.0}], {}, "stages.s.losses[0].weight"),
        ([LCE, {**KL, "weight": -1.0}], {}, "stages.s.losses[1].weight"),
        ([{**LCE, "wieght": 1.0}], {}, "stages.s.losses[0].wieght"),
        ([{"weight": 1.0}], {}, "stages.s.losses[0].name"),
        ([{"name": "lse"}], {}, "stages.s.losses[0].name"),
        ([{**LCE, "margin": 1.0}], {}, "stages.s.losses[0].margin"),
        ([{**KL, "teacher": ""}], {}, "stages.s.losses[0].teacher"),
        ([{**LCE, "teacher": "embedding"}], {}, "stages.s.losses[0].teacher"),
        ([{"name": "ranknet", "targets": "scores", "teacher": "a.run"}], {}, "stages.s.losses[0].targets"),
        ([{"name": "ranknet", "targets": "ranks"}], {}, "stages.s.losses[0].targets"),
        ([{"name": "kl", "teacher": "ranks.json"}], {}, "stages.s.losses[0].teacher"),
        ([{**KL, "mean_over": "pairs"}], {}, "stages.s.losses[0].mean_over"),
        ([LCE, LCE], {}, "stages.s.losses"),
        ([LCE, KL], {"loss": "lce"}, "stages.s.loss"),
        ([LCE, KL], {"source": "labels"}, "stages.s.source"),
        ([LCE, KL], {"teacher": "embedding"}, "stages.s.teacher"),
        ([LCE], {"gradient_cosine_every": 5}, "stages.s.gradient_cosine_every"),
        ([], {"gradient_cosine_every": 5}, "stages.s.gradient_cosine_every"),
        ([KL], {"in_batch": 2}, "stages.s.in_batch"),
        ([KL], {"labels_by": "judge"}, "stages.s.labels_by"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_place(losses, stage, place):
    assert place in problems(*losses, **stage)


def test_the_same_loss_may_learn_from_labels_and_from_two_teachers():
    ranknet = {"name": "ranknet"}
    taught = [{**ranknet, "teacher": "embedding"}, {**ranknet, "teacher": "a.run"}]
    made = recipe(ranknet, *taught)
    assert loss_mistakes(made) == []
    assert [name for name, _ in made.sources_of("s")] == ["s", "s", "s 2"]


def test_an_unknown_teacher_kind_is_refused_for_each_loss():
    values = {
        "name": "r",
        "chain": ["s"],
        "teachers": {"writer": {"kind": "queries", "model": "m", "server": "http://localhost:1"}},
        "stages": {"s": {"steps": 5, "losses": [LCE, {"name": "ranknet", "teacher": "writer"}]}},
    }
    with refused(RecipeError, "recipe", "stages.s"):
        recipe_from(values, "here")


def test_losses_are_no_part_of_a_stage_that_has_none():
    assert without_defaults(Stage(steps=5)) == {"steps": 5}
    joint = without_defaults(recipe(LCE, {**KL, "weight": 2.0}).stages["s"])
    assert joint == {"steps": 5, "losses": ({"name": "lce"}, {"name": "kl", "teacher": "embedding", "weight": 2.0})}


@pytest.mark.parametrize("full", [False, True])
def test_a_joint_recipe_reads_back_as_it_was_written(full, tmp_path):
    written = tmp_path / "mine.toml"
    written.write_text(render(recipes.load("joint").recipe, full))
    assert recipes.load(str(written)).recipe == recipes.load("joint").recipe


def test_a_mistake_in_a_list_of_losses_is_found_at_its_line(tmp_path):
    written = tmp_path / "mine.toml"
    written.write_text('extends = "joint"\n[[stages.joint.losses]]\nname = "lce"\nweigth = 2\n')
    with refused(RecipeError, "recipe", f"{written}:4", "weigth"):
        recipes.load(str(written))
    second = '[[stages.joint.losses]]\nname = "kl"\nteacher = "embedding"\nweigth = 2\n'
    written.write_text(f'extends = "joint"\n[[stages.joint.losses]]\nname = "lce"\n{second}')
    with refused(RecipeError, "recipe", f"{written}:7", "weigth"):
        recipes.load(str(written))


def test_losses_take_the_place_of_the_loss_of_an_extended_recipe(tmp_path):
    file = tmp_path / "both.toml"
    own = '[[stages.contrastive.losses]]\nname = "lce"\n[[stages.contrastive.losses]]\nname = "bce"\nweight = 0.5\n'
    file.write_text(f'extends = "contrastive"\nname = "both"\n{own}')
    stage = recipes.load(str(file)).recipe.stages["contrastive"]
    assert [part.name for part in stage.losses] == ["lce", "bce"]
    assert stage.steps == recipes.load("contrastive").recipe.stages["contrastive"].steps
    file.write_text(f'extends = "contrastive"\nname = "both"\n[stages.contrastive]\nloss = "lce"\n{own}')
    with refused(RecipeError, "recipe", "stages.contrastive.loss"):
        recipes.load(str(file))


def test_passes_for_the_cosines_of_gradients_are_counted_before_anything_is_trained():
    plain, read = (recipe(LCE, KL, gradient_cosine_every=every, group_size=4, groups_per_step=2) for every in (0, 2))
    queries = {plain.data.train: 50, plain.data.validation: 20, plain.data.test[0]: 30}
    pairs = [count_work(each, queries)[0].pairs for each in (plain, read)]
    assert pairs == [5 * 2 * 4, 5 * 2 * 4 + 2 * 2 * (2 * 4)]  # two of five steps, a pass more for each of two losses
