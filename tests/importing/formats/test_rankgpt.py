from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError, FormatError, UsageError
from cerank.importing.import_files import Imported, ImportOptions, import_files
from tests.importing.conftest import jsonl, scores
from tests.refusals import refused


def _row(query: int, size: int = 3, positive: str = "") -> dict[str, object]:
    passages = [{"docid": f"d{query}-{n}", "rank": n, "text": f"text d{query}-{n}"} for n in range(1, size + 1)]
    positives = [{"docid": positive, "text": f"text {positive}"}] if positive else []
    retrieved = {"query_id": f"q{query}", "query": f"query {query}", "retrieved_passages": passages}
    return {**retrieved, "positive_passages": positives}


def _pair(folder: Path, rows: list[dict[str, object]], answers: object) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / "marco-train-100k.jsonl").write_text(jsonl(rows))
    (folder / "marco-train-100k-gpt3.5.json").write_text(json.dumps(answers))
    return [folder / "marco-train-100k.jsonl", folder / "marco-train-100k-gpt3.5.json"]


def test_queries_with_their_permutations_become_a_dataset_with_a_teacher(tmp_path: Path) -> None:
    files = _pair(
        tmp_path / "in", [_row(0, positive="d0-2"), _row(1, positive="other")], ["[2] > [3] > [1]", "[3] > [3]"]
    )
    found = import_files("rankgpt", files, tmp_path / "out")
    dataset = open_dataset(str(tmp_path / "out"), tmp_path)
    assert dataset.queries == {"q0": "query 0", "q1": "query 1"}
    assert dataset.qrels == {"q0": {"d0-2": 1}, "q1": {"other": 1}}
    assert len(dataset.documents) == 7
    assert dataset.documents.text("d1-3") == "text d1-3"
    assert scores(dataset, "bm25")["q0"] == {"d0-1": 3.0, "d0-2": 2.0, "d0-3": 1.0}
    assert scores(dataset, "rankgpt") == {
        "q0": {"d0-2": 3.0, "d0-3": 2.0, "d0-1": 1.0},
        "q1": {"d1-3": 3.0, "d1-1": 2.0, "d1-2": 1.0},
    }
    assert dict(found.contents.counts) == {
        "permutations repaired": 1,
        "numbers missing in permutations, appended in BM25's order": 2,
        "numbers repeated in permutations, dropped": 1,
    }
    assert found.contents.records == 2


@pytest.mark.thorough
def test_every_real_malformed_permutation_is_imported_as_one_of_its_ids(shared: Path, tmp_path: Path) -> None:
    lines = (shared / "rankgpt-malformed-permutations" / "outputs.tsv").read_text().splitlines()
    row = _row(0, 20)
    files = _pair(
        tmp_path / "in", [{**row, "query_id": f"q{n}"} for n in range(9301)], [line.split("\t")[1] for line in lines]
    )
    with zipfile.ZipFile(tmp_path / "marco-train-100k.jsonl.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(files[0], "marco-train-100k.jsonl")
        archive.writestr("__MACOSX/._marco-train-100k.jsonl", "what macOS adds")
    found = import_files("rankgpt", [tmp_path / "marco-train-100k.jsonl.zip", files[1]], tmp_path / "out")
    ranking = open_dataset(str(tmp_path / "out"), tmp_path).run("rankgpt").ranking
    assert len(ranking) == 9301
    for number in range(9301):
        assert sorted(ranking[f"q{number}"]) == sorted(f"d0-{n}" for n in range(1, 21))
        assert ranking.scores(f"q{number}") == tuple(map(float, range(20, 0, -1)))
    # Three of the 9,301 are whole and only written otherwise.
    assert dict(found.contents.counts) == {
        "permutations repaired": 9298,
        "numbers missing in permutations, appended in BM25's order": 12_366,
        "numbers repeated in permutations, dropped": 202,
    }


def test_queries_without_permutations_are_imported_with_bm25_alone(
    imported: Callable[..., tuple[Imported, Dataset]],
) -> None:
    _, dataset = imported("rankgpt", jsonl([_row(0, positive="d0-1")]))
    assert dataset.runs == ("bm25",)


def test_the_texts_may_be_left_to_a_collection(tmp_path: Path, collection: Path) -> None:
    row = {"query_id": 2, "query": "q", "positive_passages": [{"docid": 5, "text": "t"}]}
    row["retrieved_passages"] = [{"docid": "5", "text": "t"}, {"docid": 6, "text": "t"}]
    files = _pair(tmp_path / "in", [row], ["[2] > [1]"])
    import_files("rankgpt", files, tmp_path / "out", ImportOptions(collection=str(collection)))
    dataset = open_dataset(str(tmp_path / "out"), tmp_path)
    assert dataset.queries == {"2": "query 2"}
    assert dataset.documents.text("6") == "passage 6"
    assert not (tmp_path / "out" / "docs.jsonl").exists()
    assert scores(dataset, "rankgpt") == {"2": {"6": 2.0, "5": 1.0}}


def test_what_does_not_fit_together_is_refused_with_file_and_line(tmp_path: Path) -> None:
    for rows, answers, what in (
        ([_row(0), _row(1)], ["[1]"], "permutation-count jsonl:2 1"),
        ([_row(0)], ["[1]", "[2]"], "permutation-count 2 1"),
        ([_row(0), _row(0)], ["[1]", "[2]"], "id-twice q0 jsonl:2"),
        ([_row(0)], {"a": 1}, "invalid-permutations"),
        ([{"query_id": "q"}], ["[1]"], "invalid-record jsonl:1"),
        ([{**_row(0), "query_id": "a b"}], ["[1]"], "id-with-white-space jsonl:1"),
        ([{**_row(0), "retrieved_passages": [{"docid": "d", "text": " "}]}], ["[1]"], "text-missing d 1"),
        ([{**_row(0), "retrieved_passages": [{"docid": "d", "text": "t"}] * 2}], ["[1]"], "id-twice"),
    ):
        with refused(FormatError, *what.split()):
            import_files("rankgpt", _pair(tmp_path / "in", rows, answers), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_the_two_files_are_told_apart_by_their_names_in_any_order(tmp_path: Path) -> None:
    rows, answers = _pair(tmp_path / "in", [_row(0, positive="d0-1")], ["[2]"])
    import_files("rankgpt", [answers, rows], tmp_path / "out")
    assert "rankgpt" in open_dataset(str(tmp_path / "out"), tmp_path).runs
    for files in ([answers], [rows, rows], [answers, answers, rows]):
        with refused(UsageError, "queries-missing"):
            import_files("rankgpt", files, tmp_path / "other")


def test_a_query_without_text_is_dropped_and_counted(imported: Callable[..., tuple[Imported, Dataset]]) -> None:
    found, dataset = imported("rankgpt", jsonl([{**_row(0), "query": " "}, _row(1)]))
    assert list(dataset.queries) == ["q1"]
    assert dict(found.contents.counts) == {"queries without text, dropped": 1}


def test_a_file_without_any_record_is_refused(imported: Callable[..., tuple[Imported, Dataset]]) -> None:
    with refused(CerankError, "no-records"):
        imported("rankgpt", "\n\n")
