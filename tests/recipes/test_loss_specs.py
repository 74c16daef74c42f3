"""What a loss can learn from is known before anything is launched, and what it cannot is refused with a way out."""

from __future__ import annotations

import pytest

from cerank.recipes.loss_specs import LOSSES, loss_mistakes, target_of
from cerank.recipes.recipe_checks import SMALLEST_RATE, rate_mistakes, recipe_from
from cerank.recipes.schema import Stage

TEACHER = {"source": "teacher", "teacher": "some.run"}


def mistakes(**stage):
    recipe = recipe_from({"name": "r", "chain": ["s"], "stages": {"s": {"steps": 5, **stage}}}, "test")
    return "\n".join(loss_mistakes(recipe))


@pytest.mark.parametrize(
    ("stage", "mistake"),
    [
        ({"loss": "lce", **TEACHER}, 'loss "lce" learns from "labels", not "teacher"'),
        ({"loss": "mse"}, 'loss "mse" learns from "teacher", not "labels"'),
        ({"loss": "weighted-ranknet-teacher"}, 'learns from "teacher", not "labels"'),
        ({"loss": "margin-mse", "source": "teacher", "teacher": "p.json"}, "permutations have none; give a TREC run"),
        ({"loss": "kl", "source": "teacher", "teacher": "p.json"}, "or a loss on ranks: ranknet, "),
        ({"loss": "ranknet", "targets": "scores", **TEACHER}, "takes no scores; those that do: kl, margin-mse, mse"),
        ({"loss": "mse", "targets": "ranks", **TEACHER}, "takes no ranks; those that do: ranknet, "),
        ({"loss": "lce", "mean_over": "pairs"}, "has no pairs to pool; those that do: ranknet, "),
        ({"loss": "rank-net"}, "did you mean 'ranknet'?"),
    ],
)
def test_a_loss_that_cannot_learn_from_its_targets_is_refused_with_a_way_out(stage, mistake):
    assert mistake in mistakes(**stage)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_has_a_source_it_passes_with(name):
    for source in LOSSES[name].sources:
        given = TEACHER if source == "teacher" else {}
        assert not mistakes(loss=name, **given)


@pytest.mark.parametrize(
    ("stage", "target"),
    [
        (Stage(), "positives"),
        (Stage(loss="ranknet"), "grades"),
        (Stage(loss="ranknet", source="teacher"), "ranks"),
        (Stage(loss="mse", source="teacher"), "scores"),
        (Stage(loss="adr-mse"), "grades"),
        (Stage(loss="unknown", source="teacher"), "ranks"),
    ],
)
def test_what_a_stages_labels_say_follows_from_its_loss_and_source(stage, target):
    assert target_of(stage) == target


def with_rate(rate, force=()):
    values = {"name": "r", "chain": ["s"], "force": list(force), "stages": {"s": {"steps": 5, "learning_rate": rate}}}
    return recipe_from(values, "test")


def test_the_smallest_rate_is_half_the_spacing_of_float32_at_a_weight_of_0_02():
    import torch

    weight = torch.tensor(0.02)
    spacing = (torch.nextafter(weight, torch.tensor(1.0)) - weight).item()
    assert spacing / 2 == SMALLEST_RATE
    assert weight + 0.9 * SMALLEST_RATE == weight
    assert weight + 1.1 * SMALLEST_RATE != weight


def test_a_rate_below_it_is_refused_and_its_rule_is_told():
    (mistake,) = rate_mistakes(with_rate(6e-12))
    assert mistake.startswith("stages.s.learning_rate: 6e-12 cannot move float32 weights")
    assert 'force = ["learning_rate"]' in mistake
    assert rate_mistakes(with_rate(6e-12, ["learning_rate"])) == []
    assert rate_mistakes(with_rate(1e-8)) == []
