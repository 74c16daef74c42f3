"""Whatever a file holds, an import gives a dataset that opens, or one of cerank's errors and no folder."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from pathlib import Path

import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError
from cerank.importing.format_catalog import FORMATS
from cerank.importing.import_files import ImportOptions, import_files

_QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
_IDS = st.sampled_from(["1", "2", "3", "é", "a b", "", "\x85", "../x"]) | st.text(
    st.characters(codec="utf-8"), max_size=3
)
_NUMBERS = st.sampled_from(
    ["1", "0", "-0.0", "2.5", "nan", "inf", "1e39", "1_0", "-3.4028234663852886e38", "x", "1e-46"]
)
_KEYS = [
    "qid", "pos", "neg", "query", "query_id", "docid", "docno", "text", "doc", "score", "rank", "candidates", "bm25",
    "pos_scores", "neg_scores", "positive_passages", "negative_passages", "retrieved_passages", "doc_pos", "doc_neg",
    "pid", "ce-score", "title",
]  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(width=32) | _IDS
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner), max_leaves=10
)
_TEXTS = st.lists(st.sampled_from(["a", "b", "c", " "]), max_size=3)
_SCORES = st.none() | st.lists(st.floats(-5, 5, width=16), max_size=3)
_PASSAGES = st.lists(
    st.fixed_dictionaries({"docid": _IDS | st.integers(0, 3), "text": st.sampled_from("ab")}), max_size=3
)
_LIKELY = {
    "flag-embedding": st.fixed_dictionaries(
        {"query": st.sampled_from("qr "), "pos": _TEXTS, "neg": _TEXTS, "pos_scores": _SCORES, "neg_scores": _SCORES}
    ),
    "tevatron": st.fixed_dictionaries(
        {"query_id": _IDS, "query": st.just("q"), "positive_passages": _PASSAGES, "negative_passages": _PASSAGES}
    ),
    "rankgpt": st.fixed_dictionaries(
        {"query_id": _IDS, "query": st.just("q"), "retrieved_passages": _PASSAGES, "positive_passages": _PASSAGES}
    ),
    "sbert-hard-negatives": st.fixed_dictionaries(
        {
            "qid": st.integers(0, 5),
            "pos": st.lists(st.integers(0, 3)),
            "neg": st.dictionaries(
                _IDS, st.lists(st.integers(0, 5) | st.fixed_dictionaries({"pid": st.integers(0, 3)}))
            ),
        }
    ),
    "rank-llm": st.fixed_dictionaries(
        {
            "query": st.fixed_dictionaries({"qid": _IDS, "text": st.just("q")}),
            "candidates": st.lists(
                st.fixed_dictionaries(
                    {"docid": _IDS, "score": st.floats(width=32), "doc": st.fixed_dictionaries({"text": st.just("t")})}
                )
            ),
        }
    ),
    "tirex": st.fixed_dictionaries(
        {"qid": _IDS, "docno": _IDS, "query": st.just("q"), "text": st.just("t"), "rank": st.none() | st.integers()}
    ),
}
_ROWS = st.lists(st.lists(_IDS | _NUMBERS, min_size=3, max_size=6), max_size=4)
_BYTES = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))


def _content(name: str) -> st.SearchStrategy[bytes]:
    lines = st.lists(_LIKELY.get(name, _VALUES) | _VALUES, max_size=4)
    as_json = lines.map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
    as_tsv = _ROWS.map(lambda rows: "".join("\t".join(row) + "\n" for row in rows).encode())
    text = as_json | as_tsv | _BYTES
    return text | text.map(gzip.compress) | text.map(lambda data: gzip.compress(data)[:-5])


def _collection(folder: Path) -> Path:
    folder.mkdir()
    (folder / "docs.tsv").write_text("1\tone\n2\ttwo\n")
    (folder / "queries.tsv").write_text("1\tone\n2\ttwo\n3\tthree\n")
    return folder


def _imported(name: str, content: bytes, file: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / file).write_bytes(content)
        collection = str(_collection(folder / "c")) if FORMATS[name].collection else ""
        try:
            import_files(name, [folder / file], folder / "out", ImportOptions(collection=collection))
        except CerankError:
            assert not (folder / "out").exists()
            return
        try:
            dataset = open_dataset(str(folder / "out"), folder / "cache")
        except CerankError as error:
            if error.code == "queries-do-not-match":  # queries that the collection does not have
                return
            raise
        for run in dataset.runs:
            dataset.run(run)


@pytest.mark.parametrize("name", sorted(FORMATS))
@_QUICK
@given(data=st.data())
def test_whatever_stands_in_a_file_it_is_imported_or_refused(name: str, data: st.DataObject) -> None:
    _imported(name, data.draw(_content(name)), "file")


@_QUICK
@given(
    st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("ab "), st.floats(width=32) | st.none()), max_size=5),
    st.integers(0, 2000),
    st.integers(0, 255),
)
def test_whatever_stands_in_parquet_it_is_imported_or_refused(
    rows: list[tuple[str, str, float | None]], place: int, byte: int
) -> None:
    buffer = io.BytesIO()
    frame = polars.DataFrame(
        rows, schema={"qid": polars.String, "docno": polars.String, "score": polars.Float32}, orient="row"
    )
    frame.write_parquet(buffer)
    data = bytearray(buffer.getvalue())
    _imported("run", bytes(data), "a.parquet")
    data[place % len(data)] = byte
    _imported("run", bytes(data), "a.parquet")
