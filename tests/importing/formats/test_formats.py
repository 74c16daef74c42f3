"""Each format on a small file, and on the real samples where they are at hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cerank.datasets.dataset import Dataset
from cerank.errors import FormatError, MissingError, UsageError
from cerank.importing.dataset_writer import text_id
from cerank.importing.import_files import Imported, import_files
from tests.importing.conftest import jsonl, scores
from tests.refusals import refused

Import = Callable[..., tuple[Imported, Dataset]]


def test_flag_embedding_gives_negatives_in_order_and_a_teacher(imported: Import) -> None:
    row = {"query": "q", "pos": ["a"], "neg": ["b", "a", "c", "b", ""], "pos_scores": [2.5], "prompt": "p"}
    found, dataset = imported("flag-embedding", jsonl([{**row, "neg_scores": [1.0, 9.0, 2.0, 7.0, 3.0]}]))
    query, a, b, c = map(text_id, ("q", "a", "b", "c"))
    assert dataset.queries == {query: "q"}
    assert dict(dataset.documents) == {a: "a", b: "b", c: "c"}
    assert dataset.qrels == {query: {a: 1}}
    assert scores(dataset, "negatives") == {query: {b: 2.0, c: 1.0}}
    assert scores(dataset, "teacher") == {query: {a: 2.5, c: 2.0, b: 1.0}}
    counts = dict(found.contents.counts)
    assert counts["negatives that are positives of the same query, dropped"] == 1
    assert counts["texts that come again in their list, dropped"] == 1  # b, with another score
    assert counts["documents without text, dropped"] == 1


def test_flag_embedding_without_scores_has_no_teacher(imported: Import) -> None:
    row = {"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": None, "neg_scores": []}
    assert imported("flag-embedding", jsonl([row]))[1].runs == ("negatives",)


def test_scores_that_do_not_match_their_texts_are_refused(imported: Import) -> None:
    row = {"query": "q", "pos": ["a"], "neg": ["b", "c"], "neg_scores": [1.0]}
    with refused(FormatError, "score-count", "file:1", "neg_scores", 2):
        imported("flag-embedding", jsonl([row]))


def test_tevatron_joins_titles_and_takes_a_dash_for_none(imported: Import) -> None:
    row = {
        "query_id": 7,
        "query": "q",
        "positive_passages": [{"docid": "1", "title": "-", "text": "one"}],
        "negative_passages": [{"docid": 2, "title": "Two", "text": "two"}, {"docid": "1", "title": "-", "text": "one"}],
    }
    _, dataset = imported("tevatron", gzip.compress(jsonl([row]).encode()), "train.jsonl.gz")
    assert dict(dataset.documents) == {"1": "one", "2": "Two two"}
    assert dataset.qrels == {"7": {"1": 1}}
    assert scores(dataset, "negatives") == {"7": {"2": 1.0}}


def test_rank_llm_keeps_scores_and_breaks_ties_by_its_order(imported: Import) -> None:
    candidates = [
        {"docid": "b", "score": 1.5, "doc": {"contents": "text b"}},
        {"docid": 4, "score": 1.5, "doc": {"title": "T", "segment": "text 4"}},
        {"docid": "c", "score": 3, "doc": {"passage": "text c"}},
        {"docid": "d", "score": 3, "doc": {}},
    ]
    found, dataset = imported("rank-llm", jsonl([{"query": {"text": "q", "qid": 1}, "candidates": candidates}]))
    assert dataset.documents.text("4") == "T text 4"
    assert dataset.run("rank-llm").ranking["1"] == ("c", "b", "4")
    assert scores(dataset, "rank-llm")["1"]["b"] == 1.5
    assert dict(found.contents.counts) == {
        "documents without text, dropped": 1,
        "queries whose ranks contradict their scores; scores decide": 1,
        "tied scores, separated by the smallest float32 step": 1,
    }


def test_tirex_is_read_with_scores_or_with_ranks(imported: Import) -> None:
    rows = [
        {"qid": "1", "query": "q", "docno": "a", "text": "ta", "rank": 1, "score": 9.5, "original_query": {"x": 1}},
        {"qid": "1", "query": "q", "docno": "b", "text": "tb", "rank": 2},
        {"qid": "1", "query": "q", "docno": "c", "text": "tc"},
    ]
    found, dataset = imported("tirex", gzip.compress(jsonl(rows).encode()), "rerank.jsonl.gz")
    assert scores(dataset, "tirex") == {"1": {"a": 9.5, "b": 0.5}}
    assert dict(found.contents.counts) == {"pairs with neither score nor rank, dropped": 1}


def test_hard_negatives_of_the_hub_give_a_run_a_system(imported: Import, collection: Path) -> None:
    row = {"qid": 1, "pos": [10], "neg": {"bm25": [3, 4, 3, 10], "../evil/../tas-b": [5]}}
    _, dataset = imported("sbert-hard-negatives", jsonl([row]), collection=str(collection))
    assert set(dataset.runs) == {"bm25", "evil-..-tas-b"}
    assert scores(dataset, "bm25") == {"1": {"3": 2.0, "4": 1.0}}
    assert dataset.qrels == {"1": {"10": 1}}
    assert dataset.queries == {"1": "query 1"}
    assert dataset.documents.text("5") == "passage 5"


def test_hard_negatives_with_scores_give_a_teacher_and_only_the_systems_asked_for(
    imported: Import, collection: Path
) -> None:
    scored = [{"pid": 3, "ce-score": 1.5}, {"pid": 4, "ce-score": -2.0}]
    row = {
        "qid": 1,
        "pos": [{"pid": 10, "ce-score": 8.0}],
        "neg": {"bm25": scored, "other": [{"pid": 5, "ce-score": 3}]},
    }
    _, dataset = imported(
        "sbert-hard-negatives", jsonl([row]), collection=str(collection), only=("bm25", "cross-encoder")
    )
    assert set(dataset.runs) == {"bm25", "cross-encoder"}
    assert scores(dataset, "cross-encoder") == {"1": {"10": 8.0, "3": 1.5, "4": -2.0}}


def test_a_run_that_is_not_there_is_named_with_those_that_are(imported: Import, collection: Path) -> None:
    row = {"qid": 1, "pos": [10], "neg": {"bm25": [3]}}
    with refused(UsageError, "run-not-found", "bm52", "bm25"):
        imported("sbert-hard-negatives", jsonl([row]), collection=str(collection), only=("bm52",))


def test_id_triples_give_judgments_and_negatives_of_the_collection(imported: Import, collection: Path) -> None:
    found, dataset = imported(
        "msmarco-id-triples", "1\t10\t3\n2\t11\t4\n1\t10\t5\n1\t10\t3\n2\t11\t11\n", collection=str(collection)
    )
    assert dataset.qrels == {"1": {"10": 1}, "2": {"11": 1}}
    assert scores(dataset, "negatives") == {"1": {"3": 2.0, "5": 1.0}, "2": {"4": 1.0}}
    assert dict(found.contents.counts) == {
        "duplicate pairs, dropped": 1,
        "triples whose negative is their positive, dropped": 1,
    }


@pytest.mark.parametrize("name", ["msmarco-text-triples", "openmatch-triples"])
def test_text_triples_give_texts_ids_of_their_own(imported: Import, name: str) -> None:
    rows = [("q", "good", "bad"), ("q", "good", "worse"), ("r", "bad", "good")]
    text = "".join("\t".join(row) + "\r\n" for row in rows)
    if name == "openmatch-triples":
        text = jsonl([{"query": query, "doc_pos": good, "doc_neg": bad} for query, good, bad in rows])
    _, dataset = imported(name, text)
    assert sorted(text for _, text in dataset.documents) == ["bad", "good", "worse"]
    assert dataset.qrels == {text_id("q"): {text_id("good"): 1}, text_id("r"): {text_id("bad"): 1}}
    assert scores(dataset, "negatives")[text_id("q")] == {text_id("bad"): 2.0, text_id("worse"): 1.0}


def test_ensemble_scores_are_a_teacher_and_a_second_score_of_a_pair_is_counted(
    imported: Import, collection: Path
) -> None:
    text = "11.5\t2.5\t1\t10\t3\n11.5\t-4e-1\t1\t10\t4\n12\t3\t1\t10\t5\n"
    found, dataset = imported("ensemble-scores", text, collection=str(collection))
    assert scores(dataset, "ensemble")["1"] == pytest.approx({"10": 11.5, "5": 3.0, "3": 2.5, "4": -0.4})
    assert dataset.qrels == {"1": {"10": 1}}
    assert dict(found.contents.counts) == {
        "duplicate pairs, dropped": 1,
        "scores that contradict another of the same pair; the first is kept": 1,
    }


def test_ensemble_scores_with_texts_need_no_collection(imported: Import) -> None:
    _, dataset = imported("ensemble-scores-text", "2\t1\tq\tgood\tbad\n")
    assert scores(dataset, "ensemble") == {text_id("q"): {text_id("good"): 2.0, text_id("bad"): 1.0}}


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("ensemble-scores", "1\tnan\t1\t2\t3\n", "score-not-finite nan file:1"),
        ("ensemble-scores", "1\t1e39\t1\t2\t3\n", "score-not-finite file:1 1e+39"),
        ("ensemble-scores", "1\t2\t3\n", "column-count file:1 3 5"),
        ("msmarco-id-triples", "1\t2\t3\n1 2 3\n", "column-count file:2 1"),
        ("msmarco-id-triples", "1\t\t3\n", "id-empty file:1"),
        ("sbert-hard-negatives", '{"qid": 1, "pos": ["a b"]}\n', "id-with-white-space file:1"),
        ("tirex", '{"qid": 1}\n', "invalid-record file:1"),
        ("tevatron", '{"query_id": 1, "query": "a", "positive_passages": []}\n{"query_id": 1, "query": "b", '
         '"positive_passages": []}\n', "query-text-differs 1 file:2"),
        ("flag-embedding", '{"query": "\\ud800", "pos": []}\n', "invalid-record file:1"),
    ],
)  # fmt: skip
def test_malformed_rows_are_refused_with_file_and_line_and_leave_nothing(
    imported: Import, tmp_path: Path, collection: Path, name: str, text: str, what: str
) -> None:
    with refused(FormatError, *what.split()):
        imported(name, text, collection=str(collection) if name in {"ensemble-scores", "msmarco-id-triples"} else "")
    assert not list((tmp_path / "out").iterdir())


def test_a_document_with_two_texts_keeps_the_first(imported: Import) -> None:
    rows = [{"qid": n, "query": "q", "docno": "a", "text": f"text {n}", "score": 1} for n in (1, 2)]
    found, dataset = imported("tirex", jsonl(rows))
    assert dataset.documents.text("a") == "text 1"
    assert dict(found.contents.counts) == {"documents that come again with another text; the first is kept": 1}


def test_texts_of_several_lines_and_tabs_come_through_whole(imported: Import) -> None:
    text = "one\ttwo\nthree\u2028four\u0000five"
    _, dataset = imported("flag-embedding", jsonl([{"query": text, "pos": [text + "!"]}]))
    assert list(dataset.queries.values()) == [text]
    assert [found for _, found in dataset.documents] == [text + "!"]


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, path in enumerate(files):
        path.write_text(jsonl([{"query": f"q{number}", "pos": ["a"], "neg": ["b"]}]))
    found = import_files("flag-embedding", files, tmp_path / "out")
    assert (found.contents.records, found.contents.queries, found.contents.documents) == (2, 2, 2)
    assert json.loads((tmp_path / "out" / "import.json").read_text())["files"][1]["name"] == "b.jsonl"
    with refused(MissingError, "folder-missing"):
        import_files("flag-embedding", [tmp_path / "c.jsonl"], tmp_path / "other")


@pytest.mark.parametrize(
    ("file", "name", "counts"),
    [
        ("flagembedding-msmarco-10.jsonl", "flag-embedding", (10, 10, 260, 10)),
        ("flagembedding-nq-10.jsonl", "flag-embedding", (10, 10, 986, 10)),
        ("openmatch-covid-triples-1023.jsonl", "openmatch-triples", (1023, 1, 882, 2)),
    ],
)
def test_real_samples_are_imported_whole(
    shared: Path, tmp_path: Path, file: str, name: str, counts: tuple[int, ...]
) -> None:
    held = import_files(name, [shared / "train-samples" / file], tmp_path / "out").contents
    assert (held.records, held.queries, held.documents, held.judgments) == counts
