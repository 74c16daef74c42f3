"""Whatever a file holds, only a CerankError leaves the readers."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError
from cerank.retrieval.teachers import read_permutations, repair
from cerank.trec.text_io import read_qrels, read_run, write_qrels, write_run

_SCORES = st.sampled_from(
    ["1", "0", "-0.0", "nan", "inf", "1e39", "1e-46", "1_0", "0x1", "٣", "3.4028235e38", "-1e-45", "", "1e5"]
)
_IDS = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["d", "d1", "d2", "q", "é", "\x85", "a b"])
_ROW = st.tuples(_IDS, st.just("Q0"), _IDS, st.integers().map(str) | _IDS, _SCORES, _IDS).map(" ".join)
_LINES = st.lists(_ROW | st.text(st.characters(codec="utf-8"), max_size=20), max_size=8).map("\n".join).map(str.encode)
_CONTENT = _LINES | st.binary(max_size=60) | _LINES.map(gzip.compress) | _LINES.map(lambda b: gzip.compress(b)[:-4])
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["doc_id", "_id", "text", "title", "query_id", "retrieved_passages", "docid"]), inner
        )
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
_QUICK = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


@contextlib.contextmanager
def _file(content: bytes, name: str = "file"):  # type: ignore[no-untyped-def]  # a generator for the tests below only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


@_QUICK
@given(_CONTENT, st.sampled_from(["a.run", "a.run.gz"]))
def test_a_run_is_read_or_refused_and_what_is_read_can_be_written_and_read_back(content: bytes, name: str) -> None:
    with _file(content, name) as path:
        try:
            ranking = read_run(path).ranking
        except CerankError:
            return
        written = path.with_name("again.run.gz")
        written.write_bytes(write_run(ranking, "t"))
        again = read_run(written)
        assert dict(again.ranking) == dict(ranking)
        assert all(again.ranking.scores(query) == ranking.scores(query) for query in ranking)


@_QUICK
@given(_CONTENT)
def test_qrels_are_read_or_refused_and_what_is_read_can_be_written_and_read_back(content: bytes) -> None:
    with _file(content) as path:
        try:
            qrels = read_qrels(path)
        except CerankError:
            return
        path.write_bytes(write_qrels(qrels))
        assert read_qrels(path) == qrels


@_QUICK
@given(
    st.lists(_JSON | st.binary(max_size=20), max_size=4).map(b"\n".join),
    st.sampled_from(["docs.jsonl", "docs.tsv", "corpus.jsonl"]),
    _CONTENT,
    _CONTENT,
)
def test_a_folder_opens_or_is_refused(documents: bytes, name: str, queries: bytes, qrels: bytes) -> None:
    with _file(documents, name) as path, contextlib.suppress(CerankError):
        path.with_name("queries.tsv").write_bytes(queries)
        path.with_name("qrels").write_bytes(qrels)
        dataset = open_dataset(str(path.parent), path.parent)
        assert all(isinstance(text, str) for _, text in dataset.documents)


@_QUICK
@given(st.lists(_JSON, max_size=4).map(b"\n".join), _JSON | st.binary(max_size=30))
def test_permutations_are_read_or_refused(rows: bytes, answers: bytes) -> None:
    with _file(answers, "a.json") as path, contextlib.suppress(CerankError):
        path.with_suffix(".jsonl").write_bytes(rows)
        read_permutations(path, path.with_suffix(".jsonl"))


@_QUICK
@given(st.text(max_size=300), st.integers(1, 40))
def test_any_text_becomes_a_permutation(text: str, size: int) -> None:
    order, repairs = repair(text, size)
    assert sorted(order) == list(range(size))
    assert (repairs.repaired == 0) == (repairs.missing == repairs.repeated == repairs.out_of_range == 0)


@_QUICK
@given(st.text(max_size=30))
def test_any_name_opens_a_dataset_or_is_refused(name: str) -> None:
    with contextlib.suppress(CerankError):
        open_dataset(f"./{name}", Path())
