import pytest

from cerank.errors import RecipeError
from cerank.recipes.matrix_schema import Matrix, matrix_from


def test_a_matrix_needs_a_name_and_recipes_alone():
    assert matrix_from({"name": "m", "recipes": ["a"]}, "here") == Matrix(name="m", recipes=("a",))


def test_every_mistake_is_said_at_once_with_its_key():
    values = {"name": " ", "recipes": ["a", "a"], "seeds": [1, 1], "baseline": "b"}
    with pytest.raises(RecipeError) as caught:
        matrix_from(values, "m.toml")
    assert caught.value.where == "m.toml"
    said = caught.value.what
    assert [line.partition(":")[0] for line in said.split("\n")] == ["name", "recipes", "seeds", "baseline"]


@pytest.mark.parametrize("values", [{"recipes": ["a"]}, {"name": "m", "recipes": []}, {"name": "m", "recipe": ["a"]}])
def test_what_is_no_matrix_is_refused(values):
    with pytest.raises(RecipeError):
        matrix_from(values, "m.toml")
