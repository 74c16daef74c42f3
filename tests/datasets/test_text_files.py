"""Collections as they are found: each format gives the same ids and texts as JSON lines do."""

from __future__ import annotations

import bz2
import json
import lzma
import zipfile
from pathlib import Path

import polars as pl
import pytest

from cerank.datasets.local_folders import open_folder
from cerank.datasets.open_datasets import open_dataset
from cerank.datasets.text_files import query_rows
from cerank.errors import FormatError
from tests.refusals import refused

TEXTS = {"d1": "Cat A cat is an animal", "d2": "Dogs bark"}
QUERIES = {"q1": "what is a cat", "q2": "dogs"}


def _folder(folder: Path, files: dict[str, str | bytes]) -> Path:
    defaults: dict[str, str | bytes] = {
        "queries.tsv": "q1\twhat is a cat\nq2\tdogs\n",
        "qrels": "q1 0 d1 1\nq2 0 d2 1\n",
    }
    if any(name.startswith(("queries", "topics")) for name in files):
        del defaults["queries.tsv"]
    if any(name.startswith("qrels/") for name in files):
        del defaults["qrels"]
    for name, content in (defaults | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def _jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _parquet(folder: Path, columns: dict[str, list[object]]) -> bytes:
    folder.mkdir(exist_ok=True)
    pl.DataFrame(columns).write_parquet(folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


BEIR = _jsonl(
    {"_id": "d1", "title": "Cat", "text": "A cat is an animal", "metadata": {"url": "x"}},
    {"_id": "d2", "title": None, "text": "Dogs bark"},
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus.jsonl", BEIR),
        ("corpus.jsonl", BEIR.replace("\n", "\r\n")),
        ("corpus.jsonl", "\ufeff" + BEIR),
        ("docs.jsonl", json.dumps([json.loads(line) for line in BEIR.splitlines()], indent=2)),
        ("corpus.jsonl.bz2", bz2.compress(BEIR.encode())),
        ("corpus.jsonl.xz", lzma.compress(BEIR.encode())),
        *[("docs.jsonl", BEIR.replace('"_id"', f'"{key}"')) for key in ("id", "docid", "doc_id", "docno", "pid")],
        (
            "docs.jsonl",
            _jsonl({"id": "d1", "contents": "Cat A cat is an animal"}, {"id": "d2", "contents": "Dogs bark"}),
        ),
        ("docs.tsv", "d1\tCat\tA cat is an animal\nd2\tDogs bark\n"),
        ("collection.tsv", "d1\tCat A cat is an animal\nd2\tDogs bark\n"),
        ("docs.csv", 'id,title,text\nd1,Cat,"A cat is an animal"\nd2,,Dogs bark\n'),
        (
            "docs.trec",
            "<DOC>\n<DOCNO> d1 </DOCNO>\n<TITLE>Cat</TITLE>\n<TEXT>\nA <b>cat</b> is\nan animal\n</TEXT>\n</DOC>\n"
            "<DOC>\n<DOCNO>d2</DOCNO>\n<TEXT>Dogs bark</TEXT>\n</DOC>\n",
        ),
    ],
)
def test_documents_of_every_format_have_the_same_ids_and_texts(tmp_path: Path, name: str, content: str | bytes) -> None:
    dataset = open_folder(_folder(tmp_path, {name: content}), "", "it")
    assert dict(dataset.documents) == TEXTS
    assert dataset.queries == QUERIES


def test_csv_keeps_quotes_commas_and_line_feeds_within_a_text(tmp_path: Path) -> None:
    content = 'id,title,text\nd1,"Cat, the","A ""cat"" is\na cat"\nd2,,x\n'
    assert (
        open_folder(_folder(tmp_path, {"docs.csv": content}), "", "it").documents.text("d1")
        == 'Cat, the A "cat" is\na cat'
    )


def test_a_zip_of_one_file_is_read(tmp_path: Path) -> None:
    _folder(tmp_path, {})
    with zipfile.ZipFile(tmp_path / "corpus.jsonl.zip", "w") as archive:
        archive.writestr("corpus.jsonl", BEIR)
    assert dict(open_folder(tmp_path, "", "it").documents) == TEXTS


@pytest.mark.parametrize("key", ["_id", "id", "docid"])
def test_parquet_mirrors_of_beir_are_read_as_the_hub_lays_them_out(tmp_path: Path, key: str) -> None:
    corpus = {key: ["d1", "d2"], "title": ["Cat", None], "text": ["A cat is an animal", "Dogs bark"]}
    files: dict[str, str | bytes] = {
        "corpus/corpus-00000-of-00002.parquet": _parquet(tmp_path / "x", {k: v[:1] for k, v in corpus.items()}),
        "corpus/corpus-00001-of-00002.parquet": _parquet(tmp_path / "x", {k: v[1:] for k, v in corpus.items()}),
        "queries/queries-00000-of-00001.parquet": _parquet(
            tmp_path / "x", {"_id": ["q1", "q2"], "text": list(QUERIES.values())}
        ),
        "qrels/test-00000-of-00001.parquet": _parquet(
            tmp_path / "x", {"query-id": ["q1", "q2"], "corpus-id": ["d1", "d2"], "score": [1, 1]}
        ),
    }
    folder = tmp_path / "set"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = open_dataset(str(folder), tmp_path / "cache")
    assert dict(dataset.documents) == TEXTS
    assert dataset.queries == QUERIES
    assert dataset.qrels == {"q1": {"d1": 1}, "q2": {"d2": 1}}


def test_numbers_as_ids_are_the_ids_that_qrels_name(tmp_path: Path) -> None:
    rows = _jsonl({"_id": 7, "text": "A cat"}, {"_id": 8, "text": "Dogs"})
    queries = _jsonl({"_id": 1, "text": "cat"})
    dataset = open_folder(
        _folder(tmp_path, {"corpus.jsonl": rows, "queries.jsonl": queries, "qrels": "1 0 7 1\n"}), "", "it"
    )
    assert dict(dataset.documents) == {"7": "A cat", "8": "Dogs"}
    assert dataset.queries == {"1": "cat"}


def test_a_record_without_id_is_refused_and_its_keys_are_named(tmp_path: Path) -> None:
    with refused(FormatError, "id-missing") as caught:
        open_folder(_folder(tmp_path, {"docs.jsonl": '{"name": "d1", "text": "x"}\n'}), "", "it")
    assert all(key in caught.value.hint for key in ("name", "text"))
    assert caught.value.where.endswith("docs.jsonl:1")


OLD_TOPICS = """<top>
<num> Number: 301
<title> International Organized Crime
<desc> Description:
Identify organizations.
<narr> Narrative:
A relevant document names one.
</top>

<top>
<num> Number: 302
<title> Topic: Poliomyelitis &amp; Post-Polio
<desc> Description: Is it under control?
</top>
"""
XML_TOPICS = """<?xml version="1.0"?>
<topics task="COVIDSearch">
  <topic number="1">
    <query>coronavirus origin</query>
    <question>what is the origin?</question>
    <narrative>seeking a range</narrative>
  </topic>
</topics>
"""


def test_trec_topics_in_sgml_and_xml_by_the_parts_that_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "old").write_text(OLD_TOPICS)
    (tmp_path / "new.xml").write_text(XML_TOPICS)
    assert [(row[1], row[2]) for row in query_rows(tmp_path / "old")] == [
        ("301", "International Organized Crime"),
        ("302", "Poliomyelitis & Post-Polio"),
    ]
    assert (
        next(query_rows(tmp_path / "old", ("title", "description")))[2]
        == "International Organized Crime Identify organizations."
    )
    assert next(query_rows(tmp_path / "old", ("narrative",)))[2] == "A relevant document names one."
    assert [(row[1], row[2]) for row in query_rows(tmp_path / "new.xml")] == [("1", "coronavirus origin")]
    assert next(query_rows(tmp_path / "new.xml", ("description",)))[2] == "what is the origin?"


def test_a_folder_says_which_part_of_its_topics_is_the_query(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "docs.tsv": "d1\ta\n",
        "topics": OLD_TOPICS,
        "qrels": "301 0 d1 1\n",
        "collection.toml": 'topic = ["description"]\n',
    }
    assert open_folder(_folder(tmp_path, files), "", "it").queries == {"301": "Identify organizations."}


def test_queries_without_text_are_refused_or_left_out_and_counted_as_the_folder_says(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "docs.tsv": "d1\ta\nd2\tb\n",
        "queries.jsonl": _jsonl({"_id": "q1", "text": "cat"}, {"_id": "q2", "text": ""}, {"_id": "q3", "text": None}),
        "qrels": "q1 0 d1 1\nq2 0 d2 1\nq9 0 d1 1\n",
    }
    folder = _folder(tmp_path, files)
    with refused(FormatError, "text-missing") as caught:
        open_folder(folder, "", "it")
    assert "without_text" in caught.value.hint
    (folder / "collection.toml").write_text('without_text = "skip"\n')
    dataset = open_folder(folder, "", "it")
    assert dataset.queries == {"q1": "cat"}
    assert dataset.qrels == {"q1": {"d1": 1}}
    assert [note[:9] for note in dataset.notes] == ["3 queries"]


SELF: dict[str, str | bytes] = {
    "corpus.jsonl": _jsonl(
        {"_id": "a1", "title": "", "text": "uniforms reduce bullying"},
        {"_id": "a2", "title": "", "text": "uniforms do not reduce bullying"},
        {"_id": "a3", "title": "", "text": "vegetables are healthy"},
    ),
    "queries.jsonl": _jsonl({"_id": "a1", "text": "uniforms reduce bullying"}),
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\na1\ta2\t1\n",
    "runs/mine.run": "a1 Q0 a1 1 9 r\na1 Q0 a2 2 5 r\n",
}


def test_a_query_that_is_a_document_of_the_collection_does_not_find_itself(tmp_path: Path) -> None:
    from cerank.retrieval.first_stage import candidates

    dataset = open_folder(_folder(tmp_path / "self", SELF), "test", "it")
    assert dataset.ignores_identical_ids
    for first_stage in ("bm25", "mine"):
        assert candidates(dataset, first_stage, 1, tmp_path)["a1"] == ("a2",)


def test_the_folder_may_say_that_identical_ids_mean_nothing(tmp_path: Path) -> None:
    from cerank.retrieval.first_stage import candidates, fingerprint

    folder = _folder(tmp_path / "self", SELF)
    ignoring = open_folder(folder, "test", "it")
    (folder / "collection.toml").write_text("ignore_identical_ids = false\n")
    dataset = open_folder(folder, "test", "it")
    assert not dataset.ignores_identical_ids
    assert candidates(dataset, "mine", 10, tmp_path)["a1"] == ("a1", "a2")
    assert dataset.fingerprint() != ignoring.fingerprint()
    assert fingerprint(dataset, "mine") != fingerprint(ignoring, "mine")


def test_equal_numbers_for_queries_and_documents_are_no_self_retrieval(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "docs.tsv": "1\ta cat\n2\ta dog\n",
        "queries.tsv": "1\twhat barks\n2\twho purrs\n",
        "qrels": "1 0 2 1\n",
    }
    assert not open_folder(_folder(tmp_path, files), "", "it").ignores_identical_ids
