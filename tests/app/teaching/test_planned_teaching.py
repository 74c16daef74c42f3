"""What the teachers of several runs take together, before anything is asked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.app.teaching import planned_teaching
from cerank.app.teaching.planned_teaching import TeachingPlace
from cerank.recipes.schema import Recipe
from tests.worker.small import STAGE, small_plan

_SERVER = "http://127.0.0.1:9/v1"


def _recipe(folder: Path, prices: Path) -> tuple[Recipe, TeachingPlace]:
    short = {**STAGE, "steps": 4, "validate_every": 4}
    teacher = {"model": "m", "server": _SERVER, "prices": str(prices)}
    plan, settings = small_plan(
        folder,
        chain=["distill"],
        stages={"distill": {**short, "loss": "ranknet", "source": "teacher", "teacher": "both"}},
        teachers={
            "zephyr": {"kind": "listwise", "window": 4, "stride": 2, **teacher},
            "judge": {"kind": "graded", **teacher},
            "both": {"kind": "ensemble", "members": ["zephyr", "judge"], "depth": 6},
        },
    )
    return plan.recipe, TeachingPlace(settings.lab, settings.cache, "cpu", 1)


def test_answers_that_runs_share_count_once_and_each_teacher_has_a_row(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[models.m]\ninput = 1000.0\noutput = 1000.0\ndate = 2026-11-01\n")
    recipe, place = _recipe(tmp_path, prices)
    single = planned_teaching.of_recipes([recipe], place)
    assert [row.estimate.name for row in single.teachers] == ["zephyr", "judge"]  # an ensemble is its members
    zephyr, judge = (row.estimate for row in single.teachers)
    assert 0 < zephyr.queries <= 8  # four steps of two queries
    assert (zephyr.calls, judge.calls) == (zephyr.queries * 2 + 1, zephyr.queries * 6 + 1)
    named = msgspec.structs.replace(recipe, name="the same")
    both = planned_teaching.of_recipes([recipe, named], place)
    assert [row.estimate for row in both.teachers] == [zephyr, judge]
    assert both.teachers[0].use == f"{recipe.name}, the same"
    seeds = [msgspec.structs.replace(recipe, seed=seed) for seed in (1, 2, 3)]
    each = [planned_teaching.of_recipes([one], place).teachers[0].estimate for one in seeds]
    together = planned_teaching.of_recipes(seeds, place).teachers[0].estimate
    assert max(one.queries for one in each) < together.queries < sum(one.queries for one in each)
    assert together.calls == together.queries * 2 + 1
    words = planned_teaching.total_in_words(single)
    assert f"{zephyr.calls + judge.calls:,} calls" in words
    assert zephyr.cost is not None
    assert judge.cost is not None
    assert f"{zephyr.cost + judge.cost:.2f} USD" in words
    assert planned_teaching.table(single.teachers, "x").rows[0][1] == "zephyr"


def test_what_cannot_be_counted_is_named_and_does_not_hide_the_rest(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("")
    recipe, place = _recipe(tmp_path, prices)
    gone = msgspec.structs.replace(
        recipe, name="gone", data=msgspec.structs.replace(recipe.data, train=str(tmp_path / "no-such-folder"))
    )
    found = planned_teaching.of_recipes([gone, recipe], place)
    assert list(found.unknown) == ["gone"]
    assert len(found.teachers) == 2
    assert "zephyr, judge" in planned_teaching.total_in_words(found)  # without a price


def test_a_model_labels_the_queries_that_the_shares_of_a_mixture_give(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("")
    recipe, place = _recipe(tmp_path, prices)
    train = f"{tmp_path / 'data'}[:2] * 1000 + {tmp_path / 'apart'}"  # nearly all groups are of the two queries
    labeled = msgspec.structs.replace(
        recipe.stages["distill"], loss="lce", source="labels", teacher="", labels_by="judge"
    )
    data = msgspec.structs.replace(recipe.data, train=train)
    mixture = msgspec.structs.replace(recipe, data=data, stages={"distill": labeled})
    (judge,) = planned_teaching.of_recipes([mixture], place).teachers
    assert judge.estimate.queries == 2
