"""Files, formats and habits that people reported elsewhere, each with the value that is right.

Each case is named after its report; `README.md` beside this file, which a test here writes, lists all of them: what
happened there and what cerank does. To add one, add a row.
"""

# ruff: noqa: E501 - a case stands on one line
from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import lz4.frame
import polars as pl
import pytest
import zstandard

from cerank.app.comparison.comparisons import ComparisonRequest, measured_systems
from cerank.app.comparison.named_systems import target
from cerank.datasets.local_folders import open_folder
from cerank.errors import CerankError
from cerank.evaluation.measures import check, per_query
from cerank.importing.dataset_writer import text_id
from cerank.importing.import_files import ImportOptions, import_files
from cerank.retrieval.teachers import repair
from cerank.settings import Flags, Settings, resolve
from cerank.trec.text_io import read_qrels, read_run
from tests.refusals import refused


class Report(NamedTuple):
    """A public report: where, what happened there, the file, and what is right."""

    source: str
    there: str
    content: Any
    right: Any  # the value, or a text of the error


class Refused(NamedTuple):
    """What a reader says of a file that nobody can read rightly."""

    what: str


ABC = {"1": ("a", "c"), "2": ("a",)}
TREC = "1 Q0 a 1 3 r\n1 Q0 c 2 2 r\n2 Q0 a 1 1 r\n"


def _parquet(**columns: list[Any]) -> bytes:
    from io import BytesIO

    out = BytesIO()
    pl.DataFrame(columns).write_parquet(out)
    return out.getvalue()


RUNS = [
    Report("MSMARCO-Document-Ranking-Submissions#17", "two formats, one refused by the scorer", "1\ta\t1\n1\tc\t2\n2\ta\t1\n", ABC),
    Report("pyserini#253", "MS MARCO's three columns are no TREC run", "188714\t4321742\t1\n188714\t4321745\t2\n", {"188714": ("4321742", "4321745")}),
    Report("anserini#735", "QID DOCID RANK needs another tool", "7 z 1\n7 a 2\n7 m 3\n", {"7": ("z", "a", "m")}),
    Report("ranx: Run.from_file json", "another layout", json.dumps({"1": {"a": 3.0, "c": 2.0}, "2": {"a": 1.0}}), ABC),
    Report("mteb: predictions", "nested under subset and split", json.dumps({"mteb_model_meta": {"a": "b"}, "default": {"test": {"1": {"a": 3, "c": 2}, "2": {"a": 1}}}}), ABC),
    Report("ranx: from_parquet q_id", "own column names", _parquet(q_id=["1", "1", "2"], doc_id=["a", "c", "a"], score=[3.0, 2.0, 1.0]), ABC),
    Report("lightning-ir: parquet runs", "parquet", _parquet(query_id=["1", "1", "2"], doc_id=["a", "c", "a"], score=[3.0, 2.0, 1.0], rank=[1, 2, 1]), ABC),
    Report("ir_measures#14", "pyterrier's columns, no helpful error", "qid,docno,score,rank\n1,a,3.0,1\n1,c,2.0,2\n2,a,1.0,1\n", ABC),
    Report("pyterrier: write_results csv with docid", "docid is a number of its own", "qid,docid,docno,score\n1,9,a,3\n1,8,c,2\n2,9,a,1\n", ABC),
    Report("ranx: lz4 runs", "only its own reader unpacks", lz4.frame.compress(TREC.encode()), ABC),
    Report("Zenodo: bz2 runs", "binary noise", bz2.compress(TREC.encode()), ABC),
    Report("TREC archives: xz runs", "binary noise", lzma.compress(TREC.encode()), ABC),
    Report("pyserini: gzip without an ending", "read as text", gzip.compress(TREC.encode()), ABC),
    Report("msmarco v2: zst runs", "binary noise", zstandard.compress(TREC.encode()), ABC),
    Report("gzip -c a b (two members)", "second half lost", gzip.compress(TREC[:26].encode()) + gzip.compress(TREC[26:].encode()), ABC),
    Report("ir_metadata: headers in runs", "refused", "# ir_metadata.start\n# tag: 'x'\n# ir_metadata.end\n" + TREC, ABC),
    Report("trec_eval#46 (comments broke ids with #)", "ids cut at #", "1 Q0 a#0 1 3 r\n1 Q0 c#12 2 2 r\n", {"1": ("a#0", "c#12")}),
    Report("tira#332: five columns", "no tag", "1 Q0 a 1 3\n1 Q0 c 2 2\n2 Q0 a 1 1\n", ABC),
    Report("Windows: CRLF", "tag with \\r", TREC.replace("\n", "\r\n"), ABC),
    Report("Excel: byte order mark", "first query unknown", b"\xef\xbb\xbf" + TREC.encode(), ABC),
    Report("anserini#720", "a document twice", "324 Q0 FT911-1 1 2.06 A\n324 Q0 FT911-1 2 2.05 A\n", Refused("id-twice")),
    Report("trec-car-tools#9", "duplicate docs", "q Q0 d 1 3 r\nq Q0 e 2 2 r\nq Q0 d 3 1 r\n", Refused("id-twice")),
    Report("trec_eval: ties by document id", "tools disagree", "1 Q0 a 1 1.0 r\n1 Q0 b 2 1.0 r\n1 Q0 c 3 1.0 r\n", {"1": ("c", "b", "a")}),
    Report("trec_eval: rank column is ignored", "ranks against scores", "1 Q0 c 1 1 r\n1 Q0 b 2 2 r\n1 Q0 a 3 3 r\n", {"1": ("a", "b", "c")}),
    Report("anserini: scores equal as float32", "other order than written", "1 Q0 a 1 20.000000001 r\n1 Q0 c 2 20.0 r\n1 Q0 b 3 19.0 r\n", {"1": ("c", "a", "b")}),
    Report("msmarco-genqa#67", "nan scores sort anywhere", "1 Q0 a 1 nan r\n", Refused("score-not-finite")),
    Report("msmarco-genqa#67 (infinity)", "inf scores", "1 Q0 a 1 inf r\n", Refused("score-not-finite")),
    Report("European locale: decimal commas", "1,5 read as 1", "1 Q0 c 1 1,5 r\n", Refused("score-not-finite")),
    Report("copy from PDF: U+00A0", "one id or two", "1 Q0 d\u00a0c 1 3 r\n", Refused("unusual-white-space")),
    Report("tags with blanks", "8 columns", "1 Q0 a 1 3 my run tag\n", Refused("column-count 8")),
    Report("old Mac line ends", "one long line", "1 Q0 a 1 3 r\r1 Q0 c 2 2 r\r", Refused("column-count")),
    Report("Notepad: UTF-16", "NUL bytes", TREC.encode("utf-16"), Refused("utf16-text")),
    Report("InteR#4", "EmptyDataError of pandas", "", {}),
    Report("hub clone without LFS", "pointer parsed as data", "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n", Refused("wrong-file-kind LFS")),
    Report("download behind a login", "HTML parsed as data", "<!DOCTYPE html>\n<html><body>Sign in</body></html>", Refused("html-page")),
    Report("sentence-transformers: pickled scores", "pickle runs code", b"\x80\x04K\x01.", Refused("pickle-file")),
]  # fmt: skip


@pytest.mark.parametrize("report", RUNS, ids=lambda report: report.source)
def test_a_run_file(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(report.content if isinstance(report.content, bytes) else report.content.encode())
    if isinstance(report.right, Refused):
        with refused(CerankError, *report.right.what.split()):
            read_run(path)
    else:
        assert dict(read_run(path).ranking) == report.right


JUDGED = {"1": {"a": 1, "c": 2}, "2": {"a": 0}}
QRELS = [
    Report("ms_marco_eval: 4 columns (MSMARCO-Passage-Ranking#9)", "two formats in one repository", "1\t0\ta\t1\n1\t0\tc\t2\n2\t0\ta\t0\n", JUDGED),
    Report("BEIR: qrels/test.tsv", "header becomes a query", "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tc\t2\n2\ta\t0\n", JUDGED),
    Report("pandas: header of four columns", "header becomes a query", "query_id\titeration\tdoc_id\trelevance\n1\t0\ta\t1\n1\t0\tc\t2\n2\t0\ta\t0\n", JUDGED),
    Report("trec_eval#49", "1.0 cut or refused", "1 0 a 1.0\n1 0 c 2.0\n2 0 a 0.0\n", JUDGED),
    Report("cwl#8", "0.5 silently 0", "1 0 a 0.5\n", Refused("grade-not-integer")),
    Report("Excel: commas", "one column", "1,0,a,1\n1,0,c,2\n2,0,a,0\n", JUDGED),
    Report("vidore-benchmark#88", "scores as floats in JSON", json.dumps({"1": {"a": 1.0, "c": 2.0}, "2": {"a": 0.0}}), JUDGED),
    Report("mteb hub: qrels parquet", "parquet", _parquet(**{"query-id": ["1", "1", "2"], "corpus-id": ["a", "c", "a"], "score": [1, 2, 0]}), JUDGED),
    Report("pyserini#1128", "an empty last line ends the reader", "1 0 a 1\n1 0 c 2\n2 0 a 0\n\n", JUDGED),
    Report("nemo-platform#2207", "a doubled row fails the evaluation", "1 0 a 1\n1 0 a 1\n1 0 c 2\n2 0 a 0\n", JUDGED),
    Report("pyserini#1902", "a pair with two grades", "1 0 a 0\n1 0 a 1\n", Refused("grade-twice")),
    Report("trec_eval: comments in qrels", "refused", "# judged in 2024\n1 0 a 1\n1 0 c 2\n2 0 a 0\n", JUDGED),
    Report("TREC: grade -1 and -2 for junk", "wrapped around", "1 0 a -1\n1 0 c -2\n", {"1": {"a": -1, "c": -2}}),
    Report("ids with leading zeros", "001 becomes 1 in pandas", "001 0 007 1\n1 0 7 0\n", {"001": {"007": 1}, "1": {"7": 0}}),
    Report("trec_eval: 13-digit grades", "overflow", "1 0 a 1000000000000\n", Refused("grade-not-integer")),
    Report("two columns", "index error", "1 a\n2 a\n", Refused("column-count 2")),
    Report("TREC diversity qrels", "subtopics as judgments", "1 0 a 1 100\n", Refused("column-count 5")),
]  # fmt: skip


@pytest.mark.parametrize("report", QRELS, ids=lambda report: report.source)
def test_a_qrels_file(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(report.content if isinstance(report.content, bytes) else report.content.encode())
    if isinstance(report.right, Refused):
        with refused(CerankError, *report.right.what.split()):
            read_qrels(path)
    else:
        assert read_qrels(path) == report.right


DOCS = {"d1": "Cat A cat is an animal", "d2": "Dogs bark"}
QUERIES = {"q1": "what is a cat", "q2": "dogs"}
BEIR = '{"_id":"d1","title":"Cat","text":"A cat is an animal"}\n{"_id":"d2","title":"","text":"Dogs bark"}\n'
SOUND = {"queries.tsv": "q1\twhat is a cat\nq2\tdogs\n", "qrels": "q1 0 d1 1\nq2 0 d2 1\n"}
COLLECTIONS = [
    Report("beir: corpus.jsonl", "its own loader only", {"corpus.jsonl": BEIR}, (DOCS, QUERIES)),
    Report("anserini: JsonCollection", "id and contents", {"docs.jsonl": '{"id":"d1","contents":"Cat A cat is an animal"}\n{"id":"d2","contents":"Dogs bark"}\n'}, (DOCS, QUERIES)),
    Report("tevatron: corpus with docid", "KeyError _id", {"corpus.jsonl": BEIR.replace("_id", "docid")}, (DOCS, QUERIES)),
    Report("DeepRetrieval#38", "a corpus without titles", {"corpus.jsonl": '{"_id":"d1","text":"Cat A cat is an animal"}\n{"_id":"d2","text":"Dogs bark"}\n'}, (DOCS, QUERIES)),
    Report("datasets#5088: pretty JSON array", "Extra data", {"docs.jsonl": json.dumps([json.loads(line) for line in BEIR.splitlines()], indent=1)}, (DOCS, QUERIES)),
    Report("hub: corpus.parquet", "no loader", {"corpus.parquet": _parquet(_id=["d1", "d2"], title=["Cat", None], text=["A cat is an animal", "Dogs bark"])}, (DOCS, QUERIES)),
    Report("Excel: docs.csv with quotes", "split at commas", {"docs.csv": 'id,title,text\nd1,Cat,"A cat is an animal"\nd2,,Dogs bark\n'}, (DOCS, QUERIES)),
    Report("TREC disks: SGML", "no reader", {"docs.trec": "<DOC><DOCNO> d1 </DOCNO><TITLE>Cat</TITLE><TEXT>A cat is an animal</TEXT></DOC>\n<DOC><DOCNO>d2</DOCNO><TEXT>Dogs bark</TEXT></DOC>\n"}, (DOCS, QUERIES)),
    Report("MSMARCO: collection.tsv", "two columns", {"collection.tsv": "d1\tCat A cat is an animal\nd2\tDogs bark\n"}, (DOCS, QUERIES)),
    Report("mteb#5170: judged documents without text", "silently unreachable", {"corpus.jsonl": BEIR, "qrels": "q1 0 d1 1\nq2 0 nowhere 1\n"}, (DOCS, QUERIES)),
    Report("beir#202: judged queries missing", "KeyError", {"corpus.jsonl": BEIR, "qrels": "q1 0 d1 1\nPLAIN-2 0 d2 1\n"}, Refused("text-missing PLAIN-2")),
    Report("beir#202: the same, skipped by choice", "KeyError", {"corpus.jsonl": BEIR, "qrels": "q1 0 d1 1\nPLAIN-2 0 d2 1\n", "collection.toml": 'without_text = "skip"\n'}, (DOCS, {"q1": QUERIES["q1"]})),
    Report("coir#18: equal documents", "one of them counts", {"corpus.jsonl": BEIR + '{"_id":"d3","title":"","text":"Dogs bark"}\n'}, (DOCS | {"d3": "Dogs bark"}, QUERIES)),
    Report("pyserini#1902: a document id twice", "one text wins silently", {"corpus.jsonl": BEIR + '{"_id":"d1","title":"","text":"x"}\n'}, Refused("id-twice")),
    Report("MSMARCO#25: encoding", "broken characters", {"docs.tsv": b"d1\tCaf\xe9\n"}, Refused("not-utf8")),
    Report("pyterrier#414: number as an element", "no topics", {"corpus.jsonl": BEIR, "topics.xml": "<topics>\n<topic>\n<number>q1</number>\n<query>what is a cat</query>\n</topic>\n<topic>\n<number>q2</number>\n<query>dogs</query>\n</topic>\n</topics>\n"}, (DOCS, QUERIES)),
    Report("pyterrier#415: title, desc and narr in one", "very long queries", {"corpus.jsonl": BEIR, "topics": "<top>\n<num> Number: q1\n<title>\nwhat is a cat\n\n<desc> Description:\nlong\n<narr> Narrative:\nlonger\n</top>\n<top>\n<num> Number: q2\n<title> dogs\n</top>\n"}, (DOCS, QUERIES)),
    Report("trectools#30: text within the topic", "AttributeError", {"corpus.jsonl": BEIR, "topics.xml": '<topics task="CT">\n<topic number="q1">\nwhat is\na cat\n</topic>\n<topic number="q2">dogs</topic>\n</topics>\n'}, (DOCS, QUERIES)),
    Report("NaN of pandas in JSON", "invalid JSON", {"corpus.jsonl": '{"_id":"d1","title":NaN,"text":"x"}\n'}, Refused("invalid-record")),
    Report("ids with blanks", "two ids in a run", {"docs.tsv": "d 1\tx\n"}, Refused("id-with-white-space")),
    Report("a tab within a query", "cut text", {"docs.tsv": "d1\tx\nd2\ty\n", "queries.tsv": "q1\twhat\tis\nq2\tdogs\n"}, Refused("column-count 3")),
    Report("lightning-ir#29: other keys", "unknown data set", {"docs.jsonl": '{"name":"d1","text":"x"}\n'}, Refused("id-missing")),
]  # fmt: skip


@pytest.mark.parametrize("report", COLLECTIONS, ids=lambda report: report.source)
def test_a_collection(report: Report, tmp_path: Path) -> None:
    files = dict(SOUND)
    if any(name.startswith("topics") for name in report.content):
        del files["queries.tsv"]
    for name, content in (files | report.content).items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(report.right, Refused):
        with refused(CerankError, *report.right.what.split()):
            open_folder(tmp_path, "", "it")
    else:
        dataset = open_folder(tmp_path, "", "it")
        assert (dict(dataset.documents), dataset.queries) == report.right


CAT, A_CAT, A_DOG = map(text_id, ("cat", "a cat", "a dog"))
IMPORTS = [
    Report("sentence-transformers#3481: n-tuples", "no reader", ("sentence-transformers", '{"query":"cat","answer":"a cat","negative_1":"a dog","score":[0.9,0.1]}\n'), {CAT: {A_CAT: 1}}),
    Report("sentence-transformers#784: labeled pairs", "one label a row", ("sentence-transformers", '{"query":"cat","passage":"a cat","label":1}\n{"query":"cat","passage":"a dog","label":0}\n'), {CAT: {A_CAT: 1, A_DOG: 0}}),
    Report("hf blog#2768: wrong order of columns", "trains on nonsense", ("sentence-transformers", '{"negative":"a dog","positive":"a cat","anchor":"cat"}\n'), {CAT: {A_CAT: 1}}),
    Report("sentence-transformers#2965: query and answer", "columns by position", ("sentence-transformers", '{"query":"cat","answer":"a cat","negative":"a dog"}\n'), {CAT: {A_CAT: 1}}),
    Report("FlagEmbedding#1110: several positives", "one is drawn, the order is lost", ("flag-embedding", '{"query":"cat","pos":["a cat","a dog"],"neg":[]}\n'), {CAT: {A_CAT: 1, A_DOG: 1}}),
    Report("FlagEmbedding#276: rows of one query apart", "loss does not fall", ("flag-embedding", '{"query":"cat","pos":["a cat"],"neg":["x"]}\n{"query":"cat","pos":["a dog"],"neg":["x"]}\n'), {CAT: {A_CAT: 1, A_DOG: 1}}),
    Report("FlagEmbedding#1382: prompt and type beside", "unknown keys", ("flag-embedding", '{"query":"cat","pos":["a cat"],"neg":["a dog"],"prompt":"p","type":"normal"}\n'), {CAT: {A_CAT: 1}}),
    Report("FlagEmbedding#1104: a negative that is a positive", "trained on both", ("flag-embedding", '{"query":"cat","pos":["a cat"],"neg":["a cat","a dog","a dog"]}\n'), {CAT: {A_CAT: 1}}),
    Report("FlagEmbedding#949: scores for some", "filled with 100 and 0", ("flag-embedding", '{"query":"cat","pos":["a cat"],"neg":["a dog"],"pos_scores":[0.9]}\n'), {CAT: {A_CAT: 1}}),
    Report("FlagEmbedding: a JSON array", "JSONDecodeError", ("flag-embedding", '[{"query":"cat","pos":["a cat"],"neg":["a dog"]}]'), {CAT: {A_CAT: 1}}),
    Report("FlagEmbedding: scores as text", "TypeError in training", ("flag-embedding", '{"query":"cat","pos":["a cat"],"neg":["a dog"],"pos_scores":["0.9"]}\n'), Refused("invalid-record")),
    Report("FlagEmbedding: fewer scores than texts", "index error in training", ("flag-embedding", '{"query":"cat","pos":["a cat"],"neg":["a dog","x"],"neg_scores":[0.1]}\n'), Refused("score-count neg_scores")),
    Report("tevatron#116: no negatives", "IndexError", ("tevatron", '{"query_id":"1","query":"cat","positive_passages":[{"docid":"7","title":"-","text":"a cat"}],"negative_passages":[]}\n'), {"1": {"7": 1}}),
    Report("tevatron: numbers as ids", "type error", ("tevatron", '{"query_id":1,"query":"cat","positive_passages":[{"docid":7,"text":"a cat"}],"negative_passages":[{"docid":8,"text":"a dog"}]}\n'), {"1": {"7": 1}}),
    Report("pandas: a header in text triples", "a query called query", ("msmarco-text-triples", "query\tpositive\tnegative\ncat\ta cat\ta dog\n"), {CAT: {A_CAT: 1}}),
    Report("triples of four columns", "columns shifted", ("msmarco-text-triples", "cat\ta cat\tb\ta dog\n"), Refused("column-count 4")),
    Report("QQP_triplets (hf blog#416)", "another nesting", ("sentence-transformers", '{"set":{"query":"cat","pos":["a cat"],"neg":["a dog"]}}\n'), Refused("query-column-missing")),
]  # fmt: skip


@pytest.mark.parametrize("report", IMPORTS, ids=lambda report: report.source)
def test_training_data(report: Report, tmp_path: Path) -> None:
    name, content = report.content
    (tmp_path / "file").write_text(content)
    if isinstance(report.right, Refused):
        with refused(CerankError, *report.right.what.split()):
            import_files(name, [tmp_path / "file"], tmp_path / "out", ImportOptions())
    else:
        import_files(name, [tmp_path / "file"], tmp_path / "out", ImportOptions())
        assert open_folder(tmp_path / "out", "", "it").qrels == report.right


ANSWERS = [
    Report("rank_llm#51: part of a window", "candidates vanish", ("[2]", 3), (1, 0, 2)),
    Report("CodeNib#483: omitted candidates", "they disappear", ("[3] > [1]", 4), (2, 0, 1, 3)),
    Report("RankGPT: numbers out of range", "index error", ("[9] > [1] > [2]", 2), (0, 1)),
    Report("RankGPT: a number twice", "a document twice", ("[2] > [2] > [1]", 2), (1, 0)),
    Report("quadzero-scout#338: a refusal in words", "the worker fails", ("I cannot rank these.", 3), (0, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("report", ANSWERS, ids=lambda report: report.source)
def test_a_permutation_of_a_language_model(report: Report) -> None:
    assert repair(*report.content)[0] == report.right


VALUES = [
    Report("pytrec_eval#49: a query without judgments", "wrong values for it and all after it", ({"q1": {"d": 1}, "q2": {}, "q3": {"d": 1}}, {"q1": ("d",), "q2": ("d",), "q3": ("x", "d")}), {"q1": 1.0, "q2": 0.0, "q3": 0.5}),
    Report("trec_eval#18: -c and queries without results", "left out of the mean", ({"q1": {"d": 1}, "q2": {"d": 1}}, {"q1": ("d",)}), {"q1": 1.0, "q2": 0.0}),
    Report("mteb#3030: no relevant document", "nan", ({"q1": {"d": 0}, "q2": {"d": 1}}, {"q1": ("d",), "q2": ("d",)}), {"q1": 0.0, "q2": 1.0}),
    Report("pytrec_eval#30: queries that are not judged", "counted in the mean", ({"q1": {"d": 1}}, {"q1": ("d",), "q9": ("x",)}), {"q1": 1.0}),
    Report("pytrec_eval: negative grades alone", "reads beyond an array", ({"q1": {"d": -2}, "q2": {"d": 1}}, {"q1": ("d",), "q2": ("d",)}), {"q1": 0.0, "q2": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize("report", VALUES, ids=lambda report: report.source)
def test_a_measure(report: Report) -> None:
    qrels, ranking = report.content
    assert per_query(("RR",), qrels, ranking)["RR"] == report.right


NAMES = [
    Report("trec_eval: ndcg_cut_10", "unknown here", "ndcg_cut_10", "nDCG@10"),
    Report("pyterrier: recip_rank", "unknown here", "recip_rank", "RR"),
    Report("pytrec_eval: map_cut_100", "unknown here", "map_cut_100", "AP@100"),
    Report("mteb#1967: recall_at_1000 against recall_1000", "two spellings", "recall_1000", "R@1000"),
    Report("ranx: mrr@10", "unknown here", "mrr@10", "RR@10"),
]  # fmt: skip


@pytest.mark.parametrize("report", NAMES, ids=lambda report: report.source)
def test_a_name_of_a_measure(report: Report) -> None:
    assert check([report.content], {"q": {"d": 1}}, "here") == (report.right,)


def _settings(folder: Path) -> Settings:
    return resolve(Flags(lab=str(folder / "lab"), cache=str(folder / "cache")), {}, folder).settings


def _evaluated(folder: Path, run: str, qrels: str, *, dataset: str = "") -> tuple[float, tuple[str, ...]]:
    """The RR of a run, and what is said about it."""
    (folder / "a.run").write_text(run)
    (folder / "q.qrels").write_text(qrels)
    settings = _settings(folder)
    request = ComparisonRequest(measures=("RR",), dataset=dataset, qrels="" if dataset else str(folder / "q.qrels"))
    systems, _ = measured_systems(settings, [target(settings.lab, str(folder / "a.run"))], request)
    values = systems[0].measured[0].values["RR"]
    return sum(values.values()) / len(values), systems[0].notes


EVALUATED = [
    Report("ranx#27: query ids do not match", "a bare assertion", ("7 Q0 a 1 3 r\n", "1 0 a 1\n"), Refused("no-judged-query")),
    Report("trec_eval#46: no overlap at all", "segmentation fault", ("9.0 Q0 a 1 3 r\n", "9 0 a 1\n"), Refused("no-judged-query")),
    Report("jig#101: an empty run", "0.0 and exit 0", ("", "1 0 a 1\n"), Refused("run-empty")),
    Report("retriv#12: some queries missing", "an assertion, or silence", ("1 Q0 a 1 3 r\n9 Q0 a 1 3 r\n", "1 0 a 1\n2 0 a 1\n"), (0.5, "1 of the 2 judged queries have no ranking and count 0; 1 query of the run has no judgments and does not count")),
    Report("Rankify#123: unjudged documents", "taken for errors", ("1 Q0 x 1 3 r\n1 Q0 a 2 2 r\n", "1 0 a 1\n"), (0.5, "")),
]  # fmt: skip


def test_a_run_with_the_document_ids_of_another_collection_is_refused(tmp_path: Path) -> None:
    with refused(CerankError, "no-judged-document") as caught:
        _evaluated(tmp_path, "1 Q0 D7 1 3 r\n", "1 0 a 1\n2 0 b 0\n")
    assert "D7" in caught.value.hint
    assert {"a", "b"} <= set(re.findall(r"\w+", caught.value.hint))
    mean, _ = _evaluated(tmp_path, "1 Q0 b 1 3 r\n", "1 0 a 1\n2 0 b 0\n")  # judged, if for another query
    assert mean == 0


@pytest.mark.parametrize("report", EVALUATED, ids=lambda report: report.source)
def test_an_evaluation(report: Report, tmp_path: Path) -> None:
    if isinstance(report.right, Refused):
        with refused(CerankError, *report.right.what.split()):
            _evaluated(tmp_path, *report.content)
    else:
        mean, notes = _evaluated(tmp_path, *report.content)
        assert mean == report.right[0]
        assert report.right[1] in " ".join(notes)
        assert bool(notes) == bool(report.right[1])


SELF = {
    "corpus.jsonl": '{"_id":"a1","text":"uniforms reduce bullying"}\n{"_id":"a2","text":"they do not"}\n',
    "queries.jsonl": '{"_id":"a1","text":"uniforms reduce bullying"}\n',
}
SELF_RETRIEVAL = [
    Report("beir#91: ArguAna 31 and not 41", "the query's own document is rank 1", "", 1.0),
    Report("ir_datasets#219, #310: Quora", "a note on a web page", "ignore_identical_ids = true\n", 1.0),
    Report("mteb#833: both numbers are wanted", "the default changed twice", "ignore_identical_ids = false\n", 0.5),
]  # fmt: skip


@pytest.mark.parametrize("report", SELF_RETRIEVAL, ids=lambda report: report.source)
def test_self_retrieval(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "self"
    folder.mkdir()
    for name, content in (SELF | {"qrels": "a1 0 a2 1\n", "collection.toml": report.content}).items():
        if content:
            (folder / name).write_text(content)
    mean, notes = _evaluated(tmp_path, "a1 Q0 a1 1 9 r\na1 Q0 a2 2 5 r\n", "", dataset=str(folder))
    assert mean == report.right
    assert "own id" in notes[0]


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """Shell: evaluate <(zcat a.gz)."""
    settings, reading, writing = _settings(tmp_path), *os.pipe()
    os.write(writing, TREC.encode())
    os.close(writing)
    (tmp_path / "q").write_text("1 0 a 1\n")
    named = target(settings.lab, f"/dev/fd/{reading}")
    systems, _ = measured_systems(settings, [named], ComparisonRequest(measures=("RR",), qrels=str(tmp_path / "q")))
    assert systems[0].measured[0].values["RR"] == {"1": 1.0}
    os.close(reading)


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.rnu", "file-not-found a.run"), ("nowhere/b.run", "file-not-found nowhere/b.run"), (".", "folder-not-run")],
)
def test_a_run_that_is_not_there_is_called_so(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyserini#2202: a traceback of pandas for a missing run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.run").write_text(TREC)
    with refused(CerankError, *what.split()):
        target(_settings(tmp_path).lab, name)


GROUPS = {
    "test_a_run_file": RUNS,
    "test_a_qrels_file": QRELS,
    "test_a_collection": COLLECTIONS,
    "test_training_data": IMPORTS,
    "test_a_permutation_of_a_language_model": ANSWERS,
    "test_a_measure": VALUES,
    "test_a_name_of_a_measure": NAMES,
    "test_an_evaluation": EVALUATED,
    "test_self_retrieval": SELF_RETRIEVAL,
}
ELSEWHERE = [  # reports whose tests stand with what they are about: source, there, here, file and name of the test
    ("FlagEmbedding#662, deberta#117: no tokenizer files", "an empty vocabulary, equal scores", "refused before a run exists", "tests/models/test_preflight.py", "test_a_folder_without_a_tokenizer_is_refused"),
    ("sentence-transformers#1600: added tokens", "index out of range", "refused before a run exists", "tests/models/test_preflight.py", "test_tokens_that_were_added_count"),
    ("sentence-transformers#2737: token type 1 of 1", "index out of range", "refused before a run exists", "tests/models/test_preflight.py", "test_token_types_that_the_model_lacks_are_refused"),
    ("sentence-transformers#3302, infinity#666: long inputs", "device-side assert", "refused before a run exists", "tests/models/test_preflight.py", "test_a_length_beyond_the_positions_is_refused_and_the_place_is_named"),
    ("sentence-transformers#3304: RoBERTa's 514", "index out of range", "two fewer tokens, as it counts", "tests/models/test_preflight.py", "test_roberta_reads_two_tokens_less_than_it_has_positions"),
    ("sentence-transformers#3124: two labels", "rank() fails", "refused before a run exists", "tests/models/test_preflight.py", "test_a_head_with_several_scores_is_refused_where_it_would_be_used"),
    ("pygaggle#53: monoT5 as a base", "AttributeError", "refused before a run exists", "tests/models/test_preflight.py", "test_an_encoder_decoder_is_refused"),
    ("hub clones: LFS weights, cut weights", "header too large", "refused, and called so", "tests/models/test_preflight.py", "test_weights_that_are_a_pointer_cut_or_garbage_are_called_so"),
    ("texttron/tevatron v2 README", "no reader", "format tevatron-ids", "tests/importing/formats/test_column_texts.py", "test_tevatron_2_names_documents_of_a_collection"),
    ("ColBERT: triples with scores", "no reader", "format colbert-triples", "tests/importing/formats/test_column_texts.py", "test_colbert_triples_with_and_without_scores"),
    ("rlhn/rlhn-680K", "parquet", "format tevatron reads it", "tests/importing/formats/test_column_texts.py", "test_rlhn_is_tevatron_s_form"),
    ("datasets: save_to_disk", "a folder", "format sentence-transformers reads it", "tests/importing/formats/test_column_texts.py", "test_a_folder_that_datasets_saved_gives_the_same_as_json_lines"),
    ("basic-memory#1143, ApeRAG#1071: rerank answers", "documents missing or twice", "the answer is refused, nothing is kept", "tests/inference/test_rerank_server.py", "test_an_answer_that_lacks_documents_is_no_answer"),
    ("rerankers: API re-rankers cannot be measured", "no run file", "`cerank rerank https://...`", "tests/inference/test_rerank_server.py", "test_a_whole_dataset_is_re_ranked_by_a_server"),
    ("rank_llm#410: a key for a local model", "the client demands one", "a key only where the environment has one", "tests/inference/test_rerank_server.py", "test_scores_come_back_in_the_order_of_the_documents"),
    ("shell: evaluate <(zcat a.gz)", "no such run", "the pipe is read", "tests/regressions/test_public_reports.py", "test_a_pipe_is_read_like_a_file"),
    ("pyserini#2202: a missing run", "a traceback of pandas", "no such file, and near names", "tests/regressions/test_public_reports.py", "test_a_run_that_is_not_there_is_called_so"),
]  # fmt: skip


def _here(report: Report) -> str:
    return f"refused: {report.right.what}" if isinstance(report.right, Refused) else "read, with the right value"


def _table() -> str:
    rows = [(r.source, r.there, _here(r), f"`{name}`") for name, reports in GROUPS.items() for r in reports]
    rows += [(source, there, here, f"`{name}` in {file}") for source, there, here, file, name in ELSEWHERE]
    lines = [f"| {number} | {' | '.join(row)} |" for number, row in enumerate(rows, 1)]
    head = [
        "# Public reports",
        "",
        "Written by `test_public_reports.py`, whose rows are the cases. Each is a test with a right value.",
        "",
    ]
    return "\n".join(
        [*head, "| | report | what happened there | what cerank does | test |", "|---|---|---|---|---|", *lines, ""]
    )


def test_the_table_of_reports_is_complete_and_every_row_has_its_test() -> None:
    readme = Path(__file__).with_name("README.md")
    if os.environ.get("WRITE_TABLE"):
        readme.write_text(_table())
    assert readme.read_text() == _table()
    assert len(re.findall(r"(?m)^\| \d+ \|", _table())) >= 90
    root = Path(__file__).resolve().parents[2]
    for _, _, _, file, name in ELSEWHERE:
        assert f"def {name}(" in (root / file).read_text(), name
