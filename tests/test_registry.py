"""Registries: found by name, or refused with the nearest name."""

from __future__ import annotations

import pytest

from cerank.errors import UsageError
from cerank.registry import Registry, nearest


def losses() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.add("lce")(1)
    registry.add("ranknet")(2)
    return registry


def test_an_item_is_found_by_its_name() -> None:
    assert losses().find("ranknet") == losses()["ranknet"] == 2
    assert list(losses()) == ["lce", "ranknet"]
    assert len(losses()) == 2


def test_a_slip_is_refused_with_the_nearest_name_and_the_place() -> None:
    with pytest.raises(UsageError) as caught:
        losses().find("rank_net", where="stages.distill.loss")
    assert caught.value.what == "no fruit is called 'rank_net'"
    assert caught.value.where == "stages.distill.loss"
    assert caught.value.hint == "did you mean 'ranknet'?"


def test_a_name_like_no_other_gets_them_all() -> None:
    assert nearest("zzz", ["lce", "ranknet"]) == "known: lce, ranknet"


def test_initials_are_known_and_of_many_names_only_the_nearest_are_listed() -> None:
    assert nearest("lr", ["learning_rate", "loss", "steps"]) == "did you mean 'learning_rate'?"
    hint = nearest("zzz", [f"name{number}" for number in range(70)])
    assert "70" in hint
    assert hint.count("name") < 10


def test_an_item_entered_by_decoration_stays_what_it_was() -> None:
    registry: Registry[type] = Registry("thing")

    @registry.add("own")
    class Own:
        pass

    assert registry["own"] is Own


def test_a_name_is_entered_once() -> None:
    registry = losses()
    with pytest.raises(ValueError, match="lce"):
        registry.add("lce")(3)
