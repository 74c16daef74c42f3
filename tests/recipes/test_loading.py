"""Loading recipes: shipped ones, a person's own, those they extend, and the command line's word over all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank import recipes
from cerank.errors import CerankError, FormatError, RecipeError, UsageError
from cerank.recipes.sections.filter_specs import FilterSpec

CHAINS = {
    "contrastive": ("contrastive",),
    "contrastive-lora-8": ("contrastive",),
    "contrastive-filtered": ("contrastive",),
    "contrastive-random-subset": ("contrastive",),
    "contrastive-lora-64": ("contrastive",),
    "contrastive-continued": ("contrastive", "continued"),
    "distill": ("distill",),
    "distill-longer": ("longer",),
    "joint": ("joint",),
    "contrastive-then-distill": ("contrastive", "distill"),
    "distill-then-contrastive": ("distill", "contrastive"),
    "ecir2025-cl": ("cl",),
    "ecir2025-kd": ("kd",),
    "ecir2025-cl-kd": ("cl", "kd"),
    "ecir2025-kd-cl": ("kd", "cl"),
    "labels-only": ("contrastive",),
    "labels-then-llm": ("contrastive", "distill"),
    "llm-labels-only": ("contrastive",),
    "llm-only": ("distill",),
    "llm-then-labels": ("distill", "contrastive"),
    "rank-distillm": ("pre-finetune", "finetune"),
    "rank-distillm-adr-mse": ("pre-finetune", "finetune"),
    "rank-distillm-bm25": ("pre-finetune", "finetune"),
    "rank-distillm-kd": ("finetune",),
    "rank-distillm-kd-bm25": ("finetune",),
    "rank-distillm-kd-rankgpt": ("finetune",),
    "rank-distillm-kd-twolar": ("finetune",),
    "rank-distillm-large": ("pre-finetune", "finetune"),
    "rank-distillm-pre-finetune": ("pre-finetune",),
    "rank-distillm-rankgpt": ("pre-finetune", "finetune"),
    "rank-distillm-twolar": ("pre-finetune", "finetune"),
}


def written(folder: Path, text: str, name: str = "own.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(name: str, overrides: Sequence[str] = (), kind: type[CerankError] = RecipeError) -> CerankError:
    with pytest.raises(kind) as caught:
        recipes.load(name, overrides)
    return caught.value


def test_the_shipped_recipes_are_those_of_the_matrices() -> None:
    assert {name: recipes.load(name).recipe.chain for name in recipes.shipped()} == CHAINS


def test_the_arms_with_a_language_model_see_as_many_pairs_as_the_one_with_labels_alone() -> None:
    pairs = {
        name: sum(stage.steps * stage.groups_per_step * stage.group_size for _, stage in loaded.chained())
        for name in recipes.load_matrix("labels-or-llm").matrix.recipes
        for loaded in [recipes.load(name).recipe]
    }
    assert pairs == dict.fromkeys(pairs, 6144)
    assert len(pairs) == 5
    assert dict(recipes.load("llm-labels-only").recipe.chained())["contrastive"].labels_by == "judge"


@pytest.mark.parametrize("name", CHAINS)
def test_a_shipped_recipe_is_called_as_its_file_and_described(name: str) -> None:
    loaded = recipes.load(name)
    assert loaded.recipe.name == loaded.source == name
    assert loaded.recipe.description


def test_the_shipped_recipes_differ_in_their_chain_only() -> None:
    own = [name for name in CHAINS if ("contrastive" in name and "lora" not in name) or name == "distill"]
    read = [recipes.load(name).recipe for name in own]
    both = {name: read[0].stages[name] for name in ("contrastive", "distill")}
    unfiltered = [
        {name: msgspec.structs.replace(recipe.stages[name], filter=FilterSpec()) for name in both} for recipe in read
    ]
    assert all(stages == both for stages in unfiltered)
    assert {name for recipe in read for name in recipe.stages} == {*both, "continued"}
    assert all(recipe.evaluate == read[0].evaluate for recipe in read)
    assert all(recipe.data == read[0].data and recipe.seed == read[0].seed for recipe in read)


def test_the_bytes_of_the_given_file_are_kept(tmp_path: Path) -> None:
    text = '# mine\r\nextends = "distill"\r\nname = "é"\r\n'
    path = tmp_path / "own.toml"
    path.write_bytes(text.encode())
    assert recipes.load(str(path)).toml == text.encode()


def test_a_recipe_extends_another_by_a_path_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    written(tmp_path, 'extends = "distill"\nseed = 7\n[stages.distill]\nclip = 0.5', "parent.toml")
    child = written(tmp_path / "inner", 'extends = "../parent.toml"\n[stages.distill]\nwarmup = 0.3', "child.toml")
    recipe = recipes.load(child).recipe
    stage, shipped = recipe.stages["distill"], recipes.load("distill").recipe.stages["distill"]
    assert (recipe.seed, stage.clip, stage.warmup) == (7, 0.5, 0.3)
    assert stage.learning_rate == shipped.learning_rate


def test_what_was_merged_holds_no_extends_and_no_defaults(tmp_path: Path) -> None:
    merged = recipes.load(written(tmp_path, 'extends = "distill"'), ["seed=3"]).merged
    assert "extends" not in merged
    assert merged["seed"] == 3
    assert "weight_decay" not in str(merged)


def test_recipes_that_extend_one_another_in_a_circle_are_refused(tmp_path: Path) -> None:
    written(tmp_path, '\nextends = "b.toml"', "a.toml")
    written(tmp_path, 'extends = "./a.toml"', "b.toml")
    error = refused(str(tmp_path / "a.toml"), kind=UsageError)
    assert "circle" in error.what
    assert error.where == f"{tmp_path / 'b.toml'}:1"


def test_a_chain_of_recipes_has_an_end(tmp_path: Path) -> None:
    for number in range(12):
        written(tmp_path, f'extends = "{number + 1}.toml"', f"{number}.toml")
    assert "more than 8" in refused(str(tmp_path / "0.toml"), kind=UsageError).what


@pytest.mark.parametrize("value", ["3", '""', '["distill"]', "true"])
def test_extends_takes_one_name(tmp_path: Path, value: str) -> None:
    error = refused(written(tmp_path, f"\n\nextends = {value}"), kind=FormatError)
    assert error.where.endswith("own.toml:3")


def test_an_unknown_name_gets_the_nearest_and_how_to_give_a_path() -> None:
    error = refused("distil", kind=UsageError)
    assert error.code == "recipe-not-found"
    assert "'distill'" in error.hint
    assert ".toml" in error.hint


@pytest.mark.parametrize("name", ["", "..", "loading", "__init__", "distill.tom"])
def test_no_other_file_of_the_package_is_a_recipe(name: str) -> None:
    refused(name, kind=UsageError)


@pytest.mark.parametrize("make", ["missing", "folder", "nul"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, make: str) -> None:
    path = str(tmp_path / "own.toml")
    if make == "folder":
        Path(path).mkdir()
    if make == "nul":
        path = written(tmp_path, r'extends = "a\u0000.toml"')
    assert "cannot read" in refused(path, kind=UsageError).what


def test_toml_that_does_not_parse_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refused(written(tmp_path, 'extends = "distill"\n[stages\n'), kind=FormatError)
    assert error.where.endswith("own.toml:2")


def test_every_mistake_comes_with_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    text = 'extends = "distill"\nsede = 1\n\n[stages.distill]\nlearning_rat = 1\nwindow = [1, 0]\n'
    error = refused(written(tmp_path, text), ["base=3"])
    lines = error.what.split("\n")
    assert any(line.startswith("line 2: sede: unknown key; did you mean 'seed'?") for line in lines)
    assert any(line.startswith("line 5: stages.distill.learning_rat: unknown key; did you mean") for line in lines)
    assert any(line.startswith("line 6: stages.distill.window[1]: expected") for line in lines)
    assert any(line.startswith("on the command line: base: expected 'str'") for line in lines)
    assert error.where.rpartition(":")[2] in {"2", "5", "6"}


def test_a_mistake_in_a_parent_names_the_parent(tmp_path: Path) -> None:
    parent = written(tmp_path, 'extends = "distill"\nseed = "x"', "parent.toml")
    error = refused(written(tmp_path, 'extends = "parent.toml"'))
    assert error.where == f"{parent}:2"


def test_a_mistake_between_keys_names_the_line_of_their_table(tmp_path: Path) -> None:
    error = refused(written(tmp_path, 'extends = "distill"\n\n[stages.distill]\nepochs = 2\n'))
    assert error.where.endswith("own.toml:3")
    assert error.what.startswith("stages.distill: ")


def test_overrides_are_toml_or_else_bare_words() -> None:
    recipe = recipes.load(
        "contrastive-then-distill",
        [
            "base=electra",
            "stages.distill.learning_rate=3e-6",
            'chain=["distill"]',
            "name=2026-01-01",
            "data.depth = 20",
        ],
    ).recipe
    assert (recipe.base, recipe.chain, recipe.name, recipe.data.depth) == ("electra", ("distill",), "2026-01-01", 20)
    assert recipe.stages["distill"].learning_rate == 3e-6


def test_an_override_may_be_empty_or_hold_an_equals_sign() -> None:
    recipe = recipes.load("distill", ["description=", "base=./a=b"]).recipe
    assert (recipe.description, recipe.base) == ("", "./a=b")


def test_an_override_cannot_smuggle_in_a_second_key() -> None:
    assert recipes.load("distill", ["base='x'\nseed = 9"]).recipe.seed != 9


def test_overrides_win_over_changes_and_the_last_wins() -> None:
    recipe = recipes.load("distill", ["seed=2", "seed=3"], {"seed": 1, "base": "bert"}).recipe
    assert (recipe.seed, recipe.base) == (3, "bert")


@pytest.mark.parametrize("text", ["seed", "=3", ".a=3", "a..b=3", "", "a.b.c.d.e.f.g.h.i=1"])
def test_a_malformed_override_is_refused(text: str) -> None:
    assert refused("distill", [text], kind=UsageError).where == "--set"


def test_a_slip_in_a_stages_name_is_no_new_stage() -> None:
    error = refused("distill", ["stages.distil.learning_rate=1e-5", "seed=x"])
    assert "stages.distil:" in error.what
    assert "'distill'" in error.what
    assert "seed" in error.what


def test_a_stage_that_the_chain_names_may_be_added() -> None:
    recipe = recipes.load("distill", ["stages.again.steps=5", 'chain=["distill", "again"]']).recipe
    assert recipe.stages["again"].steps == 5


@given(st.text(max_size=30))
def test_any_override_gives_a_recipe_or_an_error_for_a_person(text: str) -> None:
    for override in (text, f"base={text}", f"stages.distill.window={text}", f"{text}=1"):
        with contextlib.suppress(CerankError):
            assert recipes.load("distill", [override]).recipe.chain


def test_words_of_a_command_line_that_are_no_utf8_are_refused() -> None:
    assert "not UTF-8" in refused("distill", ["base=\udcff"]).what


def test_a_file_that_declares_a_matrix_is_told_from_a_recipe(tmp_path: Path) -> None:
    written = tmp_path / "grid.toml"
    written.write_text('name = "grid"\nrecipes = ["contrastive", "distill"]\n')
    with pytest.raises(UsageError) as caught:
        recipes.load(str(written))
    assert (caught.value.code, caught.value.where) == ("is-matrix", str(written))
    assert "--matrix" in caught.value.hint


def test_a_recipe_file_that_is_not_there_gets_a_hint_at_its_neighbor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text("")
    for name in ("tiny.tml", "./tinny.toml", "tiny"):
        with pytest.raises(UsageError) as caught:
            recipes.load(name)
        assert "./tiny.toml" in caught.value.hint


def test_a_file_that_declares_a_sweep_is_told_from_a_recipe_and_a_matrix(tmp_path: Path) -> None:
    written = tmp_path / "tuning.toml"
    written.write_text(
        'name = "tuning"\nrecipes = ["contrastive"]\n[search]\n"stages.*.learning_rate" = [1e-5, 2e-5]\n'
    )
    for load in (recipes.load, recipes.load_matrix):
        with pytest.raises(UsageError) as caught:
            load(str(written))
        assert (caught.value.code, caught.value.where) == ("is-sweep", str(written))
        assert f"cerank sweep {written}" in caught.value.hint


def test_all_that_is_wrong_is_told_at_once_structure_and_stages_and_losses(tmp_path: Path) -> None:
    text = """
name = "x"
chain = ["one"]
[stages.one]
loss = "lcee"
group_size = "8"
learning_rate = 1e-12
steps = 10
window = [9, 3]
"""
    told = refused(written(tmp_path, text)).what.splitlines()
    keys = [line.partition(": ")[2].partition(": ")[0] for line in told]
    assert keys == [f"stages.one.{key}" for key in ("group_size", "window", "loss", "learning_rate")]


def test_a_chain_that_names_no_stage_hides_no_mistake_of_the_others(tmp_path: Path) -> None:
    text = 'name = "x"\nchain = ["one", "two"]\n[stages.one]\nsteps = 1\nloss = "lcee"\n'
    told = refused(written(tmp_path, text)).what
    assert "chain" in told
    assert "stages.one.loss" in told
