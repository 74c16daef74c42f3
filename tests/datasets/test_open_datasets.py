from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from cerank.datasets.open_datasets import catalog, describe, open_dataset
from cerank.errors import CerankError, FormatError, MissingError, UsageError
from tests.refusals import refused

DOCS = '{"doc_id": "d1", "title": "One", "text": "first"}\n{"doc_id": "d2", "text": "second"}\n'
QUERIES = "q1\twhat is one\nq2\twhat is two\nq3\tnever judged\n"
QRELS = "q1 0 d1 1\nq1 0 gone 1\nq2 0 d2 2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    (path / "runs").mkdir(parents=True)
    (path / "docs.jsonl").write_text(DOCS)
    (path / "queries.tsv").write_text(QUERIES)
    (path / "qrels").write_text(QRELS)
    (path / "runs" / "first.run").write_text("q1 Q0 d2 1 2.0 t\n")
    return path


def _beir(path: Path) -> Path:
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "One", "text": "first", "metadata": {}}\n{"_id": "d2", "text": "second"}\n'
    )
    (path / "queries.jsonl").write_text('{"_id": "q1", "text": "what is one"}\n{"_id": "q2", "text": "what is two"}\n')
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    return path


def test_a_folder_has_its_judged_queries_its_texts_and_its_runs(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(folder), tmp_path)
    assert dataset.queries == {"q1": "what is one", "q2": "what is two"}
    assert dataset.qrels == {"q1": {"d1": 1, "gone": 1}, "q2": {"d2": 2}}
    assert dataset.documents.texts(["d2", "d1"]) == ["second", "One first"]
    assert (len(dataset.documents), "d1" in dataset.documents, "gone" in dataset.documents) == (2, True, False)
    assert list(dataset.documents) == [("d1", "One first"), ("d2", "second")]
    assert dataset.judged_without_text() == 1
    assert dataset.runs == ("first",)
    assert dict(dataset.run("first").ranking) == {"q1": ("d2",)}


def test_an_unknown_document_and_an_unknown_run_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(folder), tmp_path)
    with refused(MissingError, "document-not-found", "gone"):
        dataset.documents.text("gone")
    with refused(UsageError, "run-file-not-found", "first"):
        dataset.run("frist")


def test_beirs_layout_opens_its_test_split_and_any_other_by_name(tmp_path: Path) -> None:
    path = _beir(tmp_path / "beir")
    assert open_dataset(str(path), tmp_path).qrels == {"q1": {"d1": 1}}
    train = open_dataset(f"{path}#train", tmp_path)
    assert (train.queries, train.qrels) == ({"q2": "what is two"}, {"q2": {"d2": 1}})
    assert train.documents.text("d1") == "One first"
    with refused(UsageError, "qrels-not-found", "train"):
        open_dataset(f"{path}#trian", tmp_path)


def test_other_qrels_beside_the_first_are_a_split_too(folder: Path, tmp_path: Path) -> None:
    (folder / "qrels.binary").write_text("q1 0 d1 0\n")
    assert open_dataset(f"{folder}#binary", tmp_path).qrels == {"q1": {"d1": 0}}
    assert open_dataset(str(folder), tmp_path).qrels["q1"] == {"d1": 1, "gone": 1}


def test_gzip_everywhere_and_tab_separated_documents_read_alike(folder: Path, tmp_path: Path) -> None:
    plain = open_dataset(str(folder), tmp_path)
    packed = tmp_path / "packed"
    (packed / "runs").mkdir(parents=True)
    (packed / "docs.tsv.gz").write_bytes(gzip.compress(b"d1\tOne\tfirst\r\nd2\tsecond\r\n"))
    for name in ("queries.tsv", "qrels", "runs/first.run"):
        (packed / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    dataset = open_dataset(str(packed), tmp_path)
    assert dataset.queries == plain.queries
    assert dataset.qrels == plain.qrels
    assert list(dataset.documents) == list(plain.documents)
    assert dataset.runs == plain.runs


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("docs.jsonl", DOCS + "{", "docs.jsonl:3"),
        ("docs.jsonl", DOCS + '{"doc_id": "d1", "text": "again"}', "docs.jsonl:3"),
        ("docs.jsonl", DOCS + '{"doc_id": "d 3", "text": "x"}', "docs.jsonl:3"),
        ("docs.jsonl", DOCS + '{"text": "no id"}', "docs.jsonl:3"),
        ("docs.jsonl", DOCS + '{"doc_id": "d3"}', "docs.jsonl:3"),
        ("docs.jsonl", DOCS + '{"doc_id": [3], "text": "x"}', "docs.jsonl:3"),
        ("docs.jsonl", DOCS + '{"doc_id": "d3", "text": "\\ud800"}', "docs.jsonl:3"),
        ("docs.jsonl", DOCS + "[" * 100_000, "docs.jsonl:3"),
        ("queries.tsv", "q1\twhat\nq2\n", "queries.tsv:2"),
        ("queries.tsv", "q1\twhat\nq2\twhat\tmore\n", "queries.tsv:2"),
        ("queries.tsv", "q1\twhat\nq1\twho\n", "queries.tsv:2"),
        ("queries.tsv", "q1\twhat\nq2\t \n", "queries.tsv:2"),
        ("queries.tsv", "q1\twhat\n\ufeff \twho\n", "queries.tsv:2"),
        ("qrels", "q1 0 d1\n", "qrels:1"),
        ("qrels", "q9 0 d1 1\n", "queries.tsv"),
        ("docs.jsonl", "\n", "docs.jsonl"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(
    folder: Path, tmp_path: Path, name: str, content: str, place: str
) -> None:
    (folder / name).write_text(content)
    with pytest.raises(FormatError) as caught:
        open_dataset(str(folder), tmp_path)
    assert caught.value.where == str(folder / place)


def test_missing_and_doubled_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "docs.tsv").write_text("d1\tx\n")
    with refused(UsageError, "file-ambiguous", "docs.jsonl", "docs.tsv"):
        open_dataset(str(folder), tmp_path)
    (folder / "docs.tsv").unlink()
    (folder / "docs.jsonl").unlink()
    with refused(MissingError, "documents-missing"):
        open_dataset(str(folder), tmp_path)


def test_parts_are_disjoint_stable_and_together_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.mkdir()
    (path / "docs.jsonl").write_text(DOCS)
    ids = [f"q{number}" for number in range(50)]
    (path / "queries.tsv").write_text("".join(f"{query}\ttext\n" for query in ids))
    (path / "qrels").write_text("".join(f"{query} 0 d1 1\n" for query in ids))
    parts = [open_dataset(f"{path}{part}", tmp_path) for part in ("[:60%]", "[60%:80%]", "[80%:]")]
    assert [len(part.queries) for part in parts] == [30, 10, 10]
    assert sorted(query for part in parts for query in part.queries) == sorted(ids)
    assert all(set(part.qrels) == set(part.queries) for part in parts)
    in_line = sorted(ids, key=lambda query: hashlib.sha256(query.encode()).hexdigest())
    assert [set(part.queries) for part in parts] == [set(in_line[:30]), set(in_line[30:40]), set(in_line[40:])]
    (path / "queries.tsv").write_text("".join(f"{query}\ttext\n" for query in reversed(ids)))
    assert set(open_dataset(f"{path}[:60%]", tmp_path).queries) == set(parts[0].queries)
    assert len(open_dataset(f"{path}[:7]", tmp_path).queries) == 7
    assert len({part.fingerprint() for part in parts}) == 3


@pytest.mark.parametrize("part", ["[:x]", "[:0]", "[101%:]", "[2:1]", "[:-1]", "[1:2:3]", "[:1.5%]"])
def test_parts_that_hold_nothing_are_refused(folder: Path, tmp_path: Path, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_dataset(f"{folder}{part}", tmp_path)
    assert caught.value.code.startswith("query-range-")


def test_the_fingerprint_follows_the_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = open_dataset(str(folder), tmp_path).fingerprint()
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert open_dataset(str(moved), tmp_path).fingerprint() == before
    for name in ("docs.jsonl", "queries.tsv", "qrels"):
        content = (moved / name).read_text()
        (moved / name).write_text(content.replace("d1", "d7").replace("what", "who"))
        assert open_dataset(str(moved), tmp_path).fingerprint() != before
        (moved / name).write_text(content)
        assert open_dataset(str(moved), tmp_path).fingerprint() == before


@pytest.mark.parametrize(
    "name",
    ["", " ", "a\0b", "./none", "~nobody-of-that-name/x", "/" + "x" * 5000, "pydocs", "pydocs/tset", "/dev/null"],
)
def test_what_is_no_dataset_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CerankError):
        open_dataset(name, tmp_path)


def test_the_catalog_lists_pydocs_and_says_what_it_is_not() -> None:
    own = [entry for entry in catalog() if entry.name.startswith("pydocs")]
    assert [entry.name for entry in own] == ["pydocs/train", "pydocs/validation", "pydocs/test"]
    assert all("not a test collection" in entry.description for entry in own)


@pytest.mark.parametrize(
    ("name", "documents", "queries", "judgments", "absent"),
    [
        ("cranfield", 1400, 225, 1837, 0),
        ("vaswani", 11_429, 93, 2083, 0),
        ("med", 1033, 30, 696, 0),
        ("noveleval", 420, 21, 420, 0),
        ("trec-dl-2020-top100", 14_091, 54, 11_386, 6_223),
        ("trec-dl-2021-top100", 10_553, 53, 10_828, 6_016),
    ],
)
def test_the_real_folders_open_with_their_published_counts(
    shared: Path, tmp_path: Path, name: str, documents: int, queries: int, judgments: int, absent: int
) -> None:
    told = describe(str(shared / name), tmp_path)
    assert (told.documents, told.queries, told.judgments, told.judged_without_text) == (
        documents,
        queries,
        judgments,
        absent,
    )
    assert sum(rows for _, rows in told.grades) == judgments
    rows = [json.loads(line) for line in (shared / name / "docs.jsonl").read_text().splitlines()]
    texts = dict(open_dataset(str(shared / name), tmp_path).documents)
    assert texts == {row["doc_id"]: " ".join(filter(None, (row.get("title"), row["text"]))) for row in rows}


@pytest.mark.parametrize("own", ["docs.tsv", "docs.tsv queries.tsv", "docs.tsv qrels"])
def test_the_identity_of_a_dataset_with_documents_of_its_own_tells_whose_queries_and_judgments_it_took(
    tmp_path: Path, own: str
) -> None:
    identities = set()
    for at in range(2):
        lender, folder = tmp_path / f"lender-{at}", tmp_path / f"set-{at}"
        for made in (lender, folder):
            made.mkdir()
            (made / "docs.tsv").write_text("d1\ta text\n")
            (made / "queries.tsv").write_text("q1\ta query\nq2\tanother\n")
            (made / "qrels").write_text("q1 0 d1 1\n")
        (lender / "queries.tsv").write_text(f"q1\tquery {at}\nq2\tanother\n")
        (lender / "qrels").write_text(f"q1 0 d1 {at + 1}\n")
        for name in {"queries.tsv", "qrels"} - set(own.split()):
            (folder / name).unlink()
        (folder / "collection.toml").write_text(f'folder = "{lender}"\n')
        identities.add(open_dataset(str(folder), tmp_path / "cache").identity)
    assert len(identities) == 2
