"""A run whose ids are not those of the collection is refused before anything is scored with it."""

from __future__ import annotations

import pytest

from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from cerank.retrieval.first_stage import candidates
from tests.refusals import refused
from tests.worker.small import small_plan, write_dataset


@pytest.mark.parametrize(
    ("query", "document", "code"), [("q1", "msmarco_7", "no-known-candidate"), ("topic-9", "d1", "no-ranked-query")]
)
def test_a_run_of_another_collection_is_refused_with_ids_of_both_sides(tmp_path, query, document, code):
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "other.run"
    run.write_text(f"{query} Q0 {document} 1 2.0 t\n{query} Q0 {document}x 2 1.0 t\n")
    dataset = open_dataset(str(folder), tmp_path / "cache")
    with refused(UsageError, code) as caught:
        candidates(dataset, str(run), 10, tmp_path / "cache")
    assert (query if code == "no-ranked-query" else document) in caught.value.hint
    assert "q0" in caught.value.hint or code != "no-ranked-query"


def test_a_run_that_knows_some_of_the_documents_is_taken(tmp_path):
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "other.run"
    run.write_text("q1 Q0 elsewhere 1 2.0 t\nq1 Q0 d1 2 1.0 t\n")
    dataset = open_dataset(str(folder), tmp_path / "cache")
    assert candidates(dataset, str(run), 10, tmp_path / "cache")["q1"] == ("elsewhere", "d1")


def test_a_run_of_another_collection_is_refused_when_a_recipe_is_planned(tmp_path):
    plan, _ = small_plan(tmp_path / "fits")
    other = tmp_path / "other.run"
    other.write_text("topic-9 Q0 d1 1 2.0 t\n")
    given = plan.recipe.data
    data = {"train": given.train, "validation": given.validation, "test": list(given.test), "depth": 8}
    with refused(UsageError, "no-ranked-query") as caught:
        small_plan(tmp_path / "foreign", data=data | {"first_stages": ["bm25", str(other)]})
    assert "topic-9" in caught.value.hint
    first = open_dataset(given.test[0], tmp_path / "cache").query_ids[0]  # which those of a part are follows its path
    assert f"called {first}," in caught.value.hint
    assert not (tmp_path / "foreign" / "lab").exists()
