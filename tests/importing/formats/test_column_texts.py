"""Training data as sentence-transformers, Tevatron 2, ColBERT and RLHN publish it becomes the same dataset folder."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError
from cerank.importing.dataset_writer import text_id
from cerank.importing.import_files import Imported, ImportOptions, import_files

CAT, DOG, A_CAT, A_DOG, A_BIRD = map(text_id, ("cat", "dog", "a cat", "a dog", "a bird"))


def _imported(folder: Path, rows: list[object], name: str = "sentence-transformers", **options: str) -> Imported:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_files(name, [path], folder / "out", ImportOptions(**options))


def _opened(folder: Path):  # type: ignore[no-untyped-def]  # a Dataset
    return open_dataset(str(folder / "out"), folder / "cache")


TRIPLETS: list[object] = [
    {"anchor": "cat", "positive": "a cat", "negative": "a dog"},
    {"anchor": "dog", "positive": "a dog", "negative": "a cat"},
]


def test_triplets_give_judgments_and_a_run_of_negatives(tmp_path: Path) -> None:
    _imported(tmp_path, TRIPLETS)
    dataset = _opened(tmp_path)
    assert dataset.queries == {CAT: "cat", DOG: "dog"}
    assert dataset.qrels == {CAT: {A_CAT: 1}, DOG: {A_DOG: 1}}
    assert dict(dataset.run("negatives").ranking) == {CAT: (A_DOG,), DOG: (A_CAT,)}


@pytest.mark.parametrize("keys", [("negative_1", "negative_2"), ("negative", "negative2"), ("neg_0", "neg_1")])
def test_numbered_negatives_keep_their_order(tmp_path: Path, keys: tuple[str, str]) -> None:
    _imported(tmp_path, [{"query": "cat", "answer": "a cat", keys[0]: "a dog", keys[1]: "a bird"}])
    assert dict(_opened(tmp_path).run("negatives").ranking) == {CAT: (A_DOG, A_BIRD)}


def test_parquet_gives_the_same_folder_as_json_lines(tmp_path: Path) -> None:
    _imported(tmp_path, TRIPLETS)
    pl.DataFrame(TRIPLETS).write_parquet(tmp_path / "train.parquet")
    import_files("sentence-transformers", [tmp_path / "train.parquet"], tmp_path / "packed")
    for name in ("docs.jsonl", "queries.jsonl", "qrels", "runs/negatives.run"):
        assert (tmp_path / "packed" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_folder_that_datasets_saved_gives_the_same_as_json_lines(tmp_path: Path) -> None:
    _imported(tmp_path, TRIPLETS)
    saved = tmp_path / "saved"
    saved.mkdir()
    pl.DataFrame(TRIPLETS).write_ipc_stream(saved / "data-00000-of-00001.arrow")
    import_files("sentence-transformers", [saved], tmp_path / "other")
    assert (tmp_path / "other/qrels").read_bytes() == (tmp_path / "out/qrels").read_bytes()


def test_labeled_pairs_give_grades_and_negatives(tmp_path: Path) -> None:
    rows: list[object] = [
        {"query": "cat", "passage": "a cat", "label": 1},
        {"query": "cat", "passage": "a dog", "label": 0},
    ]
    _imported(tmp_path, rows)
    dataset = _opened(tmp_path)
    assert dataset.qrels == {CAT: {A_CAT: 1, A_DOG: 0}}
    assert dict(dataset.run("negatives").ranking) == {CAT: (A_DOG,)}


@pytest.mark.parametrize("label", ["score", "similarity", "label"])
def test_scores_become_a_teacher(tmp_path: Path, label: str) -> None:
    rows: list[object] = [
        {"sentence1": "cat", "sentence2": "a cat", label: 0.9},
        {"sentence1": "cat", "sentence2": "a dog", label: 0.25},
    ]
    _imported(tmp_path, rows)
    ranking = _opened(tmp_path).run("teacher").ranking
    assert ranking[CAT] == (A_CAT, A_DOG)
    assert ranking.scores(CAT) == pytest.approx((0.9, 0.25), abs=1e-7)


def test_a_list_of_documents_with_labels_is_a_ranked_list(tmp_path: Path) -> None:
    _imported(tmp_path, [{"query": "cat", "docs": ["a cat", "a dog", "a bird"], "labels": [1, 0, 0]}])
    dataset = _opened(tmp_path)
    assert dataset.qrels == {CAT: {A_CAT: 1, A_DOG: 0, A_BIRD: 0}}


def test_margins_keep_their_difference(tmp_path: Path) -> None:
    _imported(tmp_path, [{"query": "cat", "positive": "a cat", "negative": "a dog", "score": 4.5}])
    ranking = _opened(tmp_path).run("teacher").ranking
    first, second = ranking.scores(CAT)
    assert first - second == 4.5


@pytest.mark.parametrize("row", [{"text": "x"}, {"query": "cat"}, {"query": "cat", "positive": 3}, {"query": 3}])
def test_what_is_no_training_row_is_refused_with_its_line(tmp_path: Path, row: object) -> None:
    with pytest.raises(FormatError) as caught:
        _imported(tmp_path, [row])
    assert caught.value.where.endswith("train.jsonl:1")


def test_tevatron_2_names_documents_of_a_collection(tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    collection.mkdir()
    (collection / "docs.tsv").write_text("7\ta cat\n8\ta dog\n")
    (collection / "queries.tsv").write_text("1\tcat\n")
    (collection / "qrels").write_text("1 0 7 1\n")
    row = {
        "query_id": "1",
        "query_text": "cat",
        "query_image": None,
        "positive_document_ids": ["7"],
        "negative_document_ids": ["8"],
    }
    _imported(tmp_path, [row], "tevatron-ids", collection=str(collection))
    dataset = _opened(tmp_path)
    assert dataset.qrels == {"1": {"7": 1}}
    assert dict(dataset.run("negatives").ranking) == {"1": ("8",)}


def test_colbert_triples_with_and_without_scores(tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    collection.mkdir()
    (collection / "docs.tsv").write_text("7\ta cat\n8\ta dog\n9\ta bird\n")
    (collection / "queries.tsv").write_text("0\tcat\n1\tdog\n")
    (collection / "qrels").write_text("0 0 7 1\n")
    _imported(tmp_path, [[0, 7, 8, 9], [1, [8, 12.5], [7, -3.0]]], "colbert-triples", collection=str(collection))
    dataset = _opened(tmp_path)
    assert dataset.qrels == {"0": {"7": 1}, "1": {"8": 1}}
    assert dict(dataset.run("negatives").ranking) == {"0": ("8", "9"), "1": ("7",)}
    assert dataset.run("teacher").ranking.scores("1") == (12.5, -3.0)


def test_rlhn_is_tevatron_s_form(tmp_path: Path) -> None:
    row = {
        "query_id": "q1",
        "query": "cat",
        "subset": "msmarco",
        "positive_passages": [{"docid": "7", "text": "a cat", "title": ""}],
        "negative_passages": [{"docid": "8", "text": "a dog", "title": "-"}],
    }
    pl.DataFrame([row]).write_parquet(tmp_path / "rlhn.parquet")
    import_files("tevatron", [tmp_path / "rlhn.parquet"], tmp_path / "out")
    assert _opened(tmp_path).qrels == {"q1": {"7": 1}}


def test_what_training_data_lacks_is_counted(tmp_path: Path) -> None:
    rows: list[object] = [
        {"query": "cat", "pos": ["a cat"], "neg": ["a dog"], "pos_scores": [0.9], "neg_scores": [0.1]},
        {"query": "dog", "pos": [], "neg": ["a cat"]},
        {"query": "bird", "pos": ["a bird"], "neg": []},
    ]
    counts = dict(_imported(tmp_path, rows, "flag-embedding").contents.counts)
    assert counts["queries without a positive"] == 1
    assert counts["queries without negatives"] == 1
    assert counts["queries without teacher scores"] == 2


@pytest.mark.parametrize(
    ("format_name", "content"),
    [
        ("msmarco-text-triples", "query\tpositive\tnegative\ncat\ta cat\ta dog\n"),
        ("ensemble-scores-text", "pos_score\tneg_score\tquery\tpositive\tnegative\n3.5\t1.0\tcat\ta cat\ta dog\n"),
    ],
)
def test_a_header_line_is_no_triple(tmp_path: Path, format_name: str, content: str) -> None:
    (tmp_path / "t.tsv").write_text(content)
    imported = import_files(format_name, [tmp_path / "t.tsv"], tmp_path / "out")
    assert _opened(tmp_path).queries == {CAT: "cat"}
    assert dict(imported.contents.counts)["header lines, passed over"] == 1
    assert imported.contents.records == 1
