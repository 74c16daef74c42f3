"""A path in a recipe's file is one from that file's folder, wherever cerank is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank import recipes
from cerank.app import plans
from cerank.errors import RecipeError
from cerank.recipes.paths import resolve_beside

TOML = """
name = "mine"
base = "./base"
chain = ["a"]
[data]
train = "sets/train[:60%]"
validation = "../other#dev[:9]"
test = ["./sets/test", "pydocs/test"]
first_stages = ["bm25", "runs/first.run.gz"]
[stages.a]
steps = 1
first_stage = "own.run"
teacher = "missing/teacher.run"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("sets/train", "sets/test", "runs", "bm25"):
        (folder / name).mkdir(parents=True)
    for name in ("runs/first.run.gz", "own.run"):
        (folder / name).write_bytes(b"")
    path = folder / "mine.toml"
    path.write_text(TOML)
    return path


def test_paths_of_a_file_are_found_beside_it_from_any_working_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sets" / "train").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    recipe = plans.absolute(recipes.load(str(file)).recipe)
    here = file.parent
    assert recipe.base == str(here / "base")
    assert recipe.data.train == f"{here}/sets/train[:60%]"
    assert recipe.data.validation == f"{tmp_path}/other#dev[:9]"
    assert recipe.data.test == (f"{here}/sets/test", "pydocs/test")
    assert recipe.data.first_stages == ("bm25", f"{here}/runs/first.run.gz")
    assert recipe.stages["a"].first_stage == f"{here}/own.run"
    assert recipe.stages["a"].teacher == "missing/teacher.run"


def test_a_path_of_an_option_is_one_from_the_working_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sets" / "train").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    loaded = recipes.load(str(file), ["data.train=./sets/train"])
    assert plans.absolute(loaded.recipe).data.train == str(elsewhere / "sets" / "train")


def test_a_file_that_is_extended_keeps_its_own_folder(file: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.toml"
    child.write_text('extends = "project/mine.toml"\nname = "child"\n[data]\nvalidation = "./dev"\n')
    recipe = recipes.load(str(child)).recipe
    assert recipe.base == str(file.parent / "base")
    assert recipe.data.validation == str(tmp_path / "dev")


@pytest.mark.parametrize("name", ["bm25", "minilm", "", "pydocs/train", "beir/nq", "/abs", "~/x", "a\0b", "x" * 5000])
def test_what_is_no_path_stays_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "bm25").write_bytes(b"")
    assert resolve_beside(name, tmp_path) == name


def test_wrong_types_are_left_to_the_checks(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\nchain = ["a"]\ndata = 3\nstages = 4\nbase = 5\n')
    with pytest.raises(RecipeError) as caught:
        recipes.load(str(path))
    assert all(f"{key}: " in caught.value.what for key in ("base", "data", "stages"))


@pytest.mark.parametrize("name", ["./coll[fold=1/{}]", "pydocs/train[fold!=1,2/{}]", "./a[fold=1/{}] * 2 + ./b"])
def test_a_file_of_folds_is_found_beside_the_recipe_and_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folds.json").write_text("[]")
    for folder in ("coll", "a", "b"):
        (tmp_path / folder).mkdir()
    expected = name.replace("./", f"{tmp_path}/").format(tmp_path / "folds.json")
    for file in ("folds.json", "./folds.json", str(tmp_path / "folds.json")):
        path = tmp_path / "own.toml"
        path.write_text(f'name = "r"\nchain = ["a"]\n[data]\ntrain = "{name.format(file)}"\n[stages.a]\nsteps = 1\n')
        assert recipes.load(str(path)).recipe.data.train == expected
        monkeypatch.chdir(tmp_path)
        given = recipes.load("contrastive", [f"data.train={name.format(file)}"]).recipe
        assert plans.absolute(given).data.train == expected
    assert resolve_beside("pydocs/train[fold=1/5]", tmp_path) == "pydocs/train[fold=1/5]"
