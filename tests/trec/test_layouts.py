"""Runs and qrels in layouts other than TREC's give the same numbers as the same rows in TREC's."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from cerank.errors import FormatError
from cerank.importing.import_files import import_files
from cerank.trec.text_io import read_qrels, read_run
from tests.refusals import refused

SCORES = {"1": {"a": 3.0, "c": 2.0}, "2": {"a": 1.0}, "3": {"e": 1.0}}
ROWS = [(query, document, score) for query, row in SCORES.items() for document, score in row.items()]
EXPECTED = {"1": ("a", "c"), "2": ("a",), "3": ("e",)}
GRADES = {"q1": {"a": 1, "b": 0}, "q2": {"a": 2}}


def _written(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


def _csv(header: str, *orders: tuple[int, ...], separator: str = ",") -> str:
    order = orders[0] if orders else (0, 1, 2)
    return header + "".join(separator.join(str(row[place]) for place in order) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ranx.json", json.dumps(SCORES)),
        ("mteb.json", json.dumps({"mteb_model_meta": {"revision": "x"}, "default": {"test": SCORES}})),
        ("beir.json", json.dumps({"test": SCORES}, indent=1)),
        ("pyterrier.csv", _csv("qid,docno,score\n")),
        ("pandas.tsv", _csv("query_id\tdoc_id\tscore\n", separator="\t")),
        ("quoted.csv", '"qid","docno","score"\n' + "".join(f'"{q}","{d}","{s}"\n' for q, d, s in ROWS)),
        ("commas.run", "".join(f"{q},Q0,{d},1,{s},r\n" for q, d, s in ROWS)),
        ("five.run", "".join(f"{q} Q0 {d} 1 {s}\n" for q, d, s in ROWS)),
        ("fiveb.run", "".join(f"{q} {d} 1 {s} tag\n" for q, d, s in ROWS)),
        ("three.run", "".join(f"{q} {d} {s}\n" for q, d, s in ROWS)),
        (
            "meta.run",
            "# ir_metadata.start\n# tag: x\n# ir_metadata.end\n" + "".join(f"{q} Q0 {d} 1 {s} t\n" for q, d, s in ROWS),
        ),
    ],
)
def test_a_run_in_each_layout_has_the_scores_of_the_trec_run(tmp_path: Path, name: str, content: str) -> None:
    run = read_run(_written(tmp_path, name, content))
    assert dict(run.ranking) == EXPECTED
    assert {query: run.ranking.scores(query) for query in run.ranking} == {
        query: tuple(row.values()) for query, row in SCORES.items()
    }
    assert run.sha256


@pytest.mark.parametrize(
    "names", [("q_id", "doc_id"), ("query_id", "doc_id"), ("qid", "docno"), ("query-id", "corpus-id")]
)
def test_parquet_of_ranx_lightning_ir_pyterrier_and_beir(tmp_path: Path, names: tuple[str, str]) -> None:
    columns = {
        names[0]: [row[0] for row in ROWS],
        names[1]: [row[1] for row in ROWS],
        "score": [row[2] for row in ROWS],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    assert dict(read_run(tmp_path / "a.parquet").ranking) == EXPECTED


def test_pyterrier_s_number_of_a_document_is_not_its_id(tmp_path: Path) -> None:
    content = "qid,docid,docno,rank,score,query\n1,77,a,0,3.0,what\n1,78,c,1,2.0,what\n"
    assert dict(read_run(_written(tmp_path, "res.csv", content)).ranking) == {"1": ("a", "c")}


def test_three_columns_that_count_are_ranks_and_others_scores_and_a_note_says_which(tmp_path: Path) -> None:
    ranks = read_run(_written(tmp_path, "marco.tsv", "1 z 1\n1 a 2\n1 m 3\n2 z 1\n"))
    assert ranks.ranking["1"] == ("z", "a", "m")
    assert "rank" in ranks.notes[0]
    scores = read_run(_written(tmp_path, "scores.tsv", "1 z 1\n1 a 2\n1 m 2.5\n"))
    assert scores.ranking["1"] == ("m", "a", "z")
    assert "score" in scores.notes[0]


def test_the_comments_of_ir_metadata_are_kept_with_an_imported_run(tmp_path: Path) -> None:
    run = _written(tmp_path, "a.run", "# ir_metadata.start\n# tag: x\n# ir_metadata.end\n1 Q0 7 1 2.0 t\n")
    assert read_run(run).comments == ("# ir_metadata.start", "# tag: x", "# ir_metadata.end")
    collection = tmp_path / "collection"
    collection.mkdir()
    from cerank.importing.import_files import ImportOptions

    import_files("run", [run], tmp_path / "out", ImportOptions(collection=str(collection)))
    assert "tag: x" in (tmp_path / "out/runs/a.metadata.txt").read_text()


def test_a_query_whose_id_starts_with_a_number_sign_is_no_comment(tmp_path: Path) -> None:
    assert dict(read_run(_written(tmp_path, "a.run", "#1 Q0 d 1 2 t\n#1 Q0 e 2 1 t\n")).ranking) == {"#1": ("d", "e")}


@pytest.mark.parametrize(
    "content",
    [
        "q1 0 a 1\nq1 0 b 0\nq2 0 a 2\n",
        "q1 0 a 1.0\nq1 0 b 0.0\nq2 0 a 2.00\n",
        "q1\ta\t1\nq1\tb\t0\nq2\ta\t2\n",
        "q1,0,a,1\nq1,0,b,0\nq2,0,a,2\n",
        "query_id,doc_id,relevance\nq1,a,1\nq1,b,0\nq2,a,2\n",
        "query_id\titeration\tdoc_id\trelevance\nq1\t0\ta\t1\nq1\t0\tb\t0\nq2\t0\ta\t2\n",
        "query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\tb\t0\nq2\ta\t2\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\ta\t1\r\nq1\tb\t0\r\nq2\ta\t2\r\n",
        "# judged by us\nq1 0 a 1\nq1 0 b 0\nq2 0 a 2\n",
        json.dumps(GRADES),
    ],
)
def test_qrels_in_each_layout_have_the_same_grades(tmp_path: Path, content: str) -> None:
    assert read_qrels(_written(tmp_path, "qrels", content)) == GRADES


def test_qrels_in_parquet(tmp_path: Path) -> None:
    rows = [(query, document, grade) for query, row in GRADES.items() for document, grade in row.items()]
    columns = dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*rows, strict=True)), strict=True))
    pl.DataFrame(columns).write_parquet(tmp_path / "qrels.parquet")
    assert read_qrels(tmp_path / "qrels.parquet") == GRADES


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("1 0 a 0.5\n", "grade-not-integer"),
        ('{"1": {"a": 0.5}}', "grade-not-integer"),
        ("1 a\n2 a\n", "column-count 2"),
        ("1 0 a 1 100\n", "column-count 5"),
        ('{"1": 3}', "wrong-json-form"),
        ("qid,docno,label\n1,a,high\n", "score-not-finite"),
    ],
)
def test_what_is_no_qrels_is_refused(tmp_path: Path, content: str, what: str) -> None:
    with refused(FormatError, *what.split()):
        read_qrels(_written(tmp_path, "qrels", content))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("1 Q0 a 1 3 my run tag\n", "column-count 8"),
        ("1 0 a 1\n", "column-count 4"),
        ('{"a": {"x": {"1": {"d": 1}}, "y": {"1": {"d": 1}}}}', "wrong-json-form"),
        ('{"1": {"a": "high"}}', "score-not-finite"),
        ("qid,docno,text\n1,a,x\n", "scores-missing"),
        ("1 Q0 a 1 3 r\r1 Q0 c 2 2 r\r", "column-count"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: str, what: str) -> None:
    with refused(FormatError, *what.split()):
        read_run(_written(tmp_path, "a.run", content))
