"""Queries that stand in two parts of a recipe are found by id and by text, and those of a test set are kept out."""

from __future__ import annotations

import pytest

from cerank.datasets import query_overlaps
from cerank.datasets.open_datasets import open_dataset
from cerank.datasets.query_overlaps import check_test_queries, normalized, overlaps
from cerank.errors import RecipeError
from cerank.recipes.recipe_checks import recipe_from
from tests.refusals import refused


@pytest.fixture(params=[200_000, 1, 0], autouse=True)
def kept_in_memory(request, monkeypatch):
    """Try each test with all queries in memory, with those of larger sets read again, and with none."""
    monkeypatch.setattr(query_overlaps, "MANY_QUERIES", request.param)


def write(folder, queries, document="text"):
    folder.mkdir()
    (folder / "docs.tsv").write_text(f"d\t{document}\n")
    (folder / "queries.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in queries.items()))
    (folder / "qrels").write_text("".join(f"{key} 0 d 1\n" for key in queries))
    return str(folder)


def found_in(tmp_path, train, validation, test, **recipe):
    data = {"train": train, "validation": validation, "test": [test]}
    values = {"name": "r", "chain": ["one", "two"], "data": data, **recipe}
    values["stages"] = {name: {"steps": 5, **values.get("stages", {}).get(name, {})} for name in ("one", "two")}
    whole = recipe_from(values, "test")
    names = {train, validation, test, *(stage.dataset for _, stage in whole.chained() if stage.dataset)}
    return whole, overlaps(whole, {name: open_dataset(name, tmp_path) for name in names})


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is  BM25?", "what is bm25"), ("Ｗｈａｔ", "what"), ("straße", "STRASSE"), ("a-b, c", "a b c")],
)
def test_queries_alike_but_for_case_punctuation_and_white_space_are_the_same(one, other):
    assert normalized(one) == normalized(other)


def test_queries_without_any_word_are_not_alike(tmp_path):
    one, two = write(tmp_path / "one", {"1": "??"}), write(tmp_path / "two", {"2": "!!"})
    assert found_in(tmp_path, one, one, two)[1][1:] == ()


def test_the_same_id_counts_in_the_same_collection_only(tmp_path):
    one = write(tmp_path / "one", {"1": "first", "2": "second"})
    other = write(tmp_path / "other", {"1": "another", "2": "still another"}, document="another text")
    same = write(tmp_path / "same", {"1": "first, rewritten", "3": "third"})
    assert [str(row.right.role) for row in found_in(tmp_path, one, other, other)[1]] == ["test"]  # validation is test
    rows = found_in(tmp_path, one, other, same)[1]
    (row,) = rows
    assert (row.shared, row.of, row.by_id, row.by_text) == (1, 2, 1, 0)


def test_a_text_counts_in_any_collection(tmp_path):
    one = write(tmp_path / "one", {"1": "What is it?"})
    other = write(tmp_path / "other", {"9": "what is it", "8": "else"}, document="another")
    validation = write(tmp_path / "validation", {"7": "nothing shared"})
    recipe, (row,) = found_in(tmp_path, one, validation, other)
    assert (row.shared, row.of, row.by_id, row.by_text, row.examples) == (1, 2, 0, 1, ("what is it",))
    assert row.left.stages == ("one", "two")
    with refused(RecipeError, "shared-queries", 1, 2):
        check_test_queries((row,), recipe)


def test_a_few_texts_alike_by_chance_are_told_and_not_refused(tmp_path):
    one = write(tmp_path / "one", {"1": "common words"})
    test = write(tmp_path / "test", {f"t{i}": f"query number {i}" for i in range(99)} | {"x": "Common words"}, "other")
    validation = write(tmp_path / "validation", {"7": "nothing shared"})
    recipe, (row,) = found_in(tmp_path, one, validation, test)
    assert (row.shared, row.is_refused) == (1, False)
    check_test_queries((row,), recipe)


def test_stages_that_learn_from_two_datasets_are_held_against_each_other(tmp_path):
    one, two = write(tmp_path / "one", {"1": "a", "2": "b"}), write(tmp_path / "two", {"2": "b", "3": "c"})
    validation, test = write(tmp_path / "validation", {"7": "x"}), write(tmp_path / "test", {"8": "y"})
    _, (row,) = found_in(tmp_path, one, validation, test, stages={"two": {"dataset": two}})
    assert (row.left.stages, row.right.stages, row.by_id, row.by_text) == (("one",), ("two",), 1, 1)
    assert not row.is_refused
