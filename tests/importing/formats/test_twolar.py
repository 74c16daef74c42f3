"""TWOLAR's lists: the order of the list is the teacher's, whatever its ranks say, in parquet as in JSONL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars
import pytest

from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError, MissingError
from cerank.importing.import_files import Imported, import_files
from tests.importing.conftest import jsonl, scores
from tests.refusals import refused


def listed(query: str, *documents: str, ranks: tuple[int, ...] = ()) -> dict[str, object]:
    numbers = ranks or tuple(range(1, len(documents) + 1))
    passages = [
        {"docid": doc, "text": f"text of {doc}", "rank": rank} for doc, rank in zip(documents, numbers, strict=True)
    ]
    return {"query_id": query, "query": f"what is {query}", "retrieved_passages": passages}


def test_a_list_is_the_teachers_ranking_in_its_own_order(
    imported: Callable[..., tuple[Imported, Dataset]],
) -> None:
    rows = [listed("q1", "7", "3", "5"), listed("q2", "3", "9", ranks=(2, 1))]
    found, dataset = imported("twolar", jsonl(rows))
    assert scores(dataset, "twolar") == {"q1": {"7": 3.0, "3": 2.0, "5": 1.0}, "q2": {"3": 2.0, "9": 1.0}}
    assert dataset.queries == {"q1": "what is q1", "q2": "what is q2"}
    assert dataset.documents.text("5") == "text of 5"
    assert [count for _, count in found.contents.counts] == [1]  # q2's ranks


def test_parquet_is_recognized_and_gives_the_same(tmp_path: Path) -> None:
    rows = [listed("q1", "7", "3"), listed("q2", "3", "9")]
    polars.DataFrame(rows).write_parquet(tmp_path / "train.parquet")
    (tmp_path / "train.jsonl").write_text(jsonl(rows))
    import_files("auto", [tmp_path / "train.parquet"], tmp_path / "a")
    import_files("twolar", [tmp_path / "train.jsonl"], tmp_path / "b")
    one, other = (scores(open_dataset(str(tmp_path / name), tmp_path), "twolar") for name in "ab")
    assert one == other == {"q1": {"7": 2.0, "3": 1.0}, "q2": {"3": 2.0, "9": 1.0}}


def test_a_passage_without_text_is_an_error_with_its_place(tmp_path: Path) -> None:
    row = listed("q1", "7")
    row["retrieved_passages"] = [{"docid": "8"}]
    (tmp_path / "x.jsonl").write_text(json.dumps(listed("q0", "7")) + "\n" + json.dumps(row) + "\n")
    with refused(FormatError, "text-missing", "x.jsonl:2", "8"):
        import_files("twolar", [tmp_path / "x.jsonl"], tmp_path / "out")


def test_recipes_name_the_imported_dataset_and_hear_how_to_make_it(tmp_path: Path) -> None:
    with refused(MissingError, "folder-missing", "twolar"):
        open_dataset("twolar", tmp_path)
    (tmp_path / "x.jsonl").write_text(jsonl([listed("q1", "7", "3"), listed("q2", "3", "9")]))
    import_files("twolar", [tmp_path / "x.jsonl"], tmp_path / "imported" / "twolar")
    dataset = open_dataset("twolar[:1]", tmp_path)
    assert (dataset.name, len(dataset.queries)) == ("twolar[:1]", 1)
    assert dataset.runs == ("twolar",)


@pytest.mark.parametrize("text", ['{"query_id": "1", "query": "x"}\n', '{"query": "x", "retrieved_passages": []}\n'])
def test_a_row_that_lacks_a_key_is_an_error(text: str, imported: Callable[..., object]) -> None:
    with pytest.raises(FormatError):
        imported("twolar", text)
