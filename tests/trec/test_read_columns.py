"""A run read by columns is the run read line by line: same order, scores, ties, tag, hash, and same refusals."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.errors import FormatError
from cerank.trec import text_io
from cerank.trec.read_columns import ColumnRanking, read_columns

rows = st.lists(
    st.tuples(
        st.sampled_from(["1", "q2", "é", "10"]),
        st.sampled_from([f"d{n}" for n in range(12)] + ["9", "10", "é"]),
        st.sampled_from(["1", "1.0", "-0", "0", "2.5", "1e-3", "16777217", "16777216", "-7"]),
    ),
    max_size=40,
    unique_by=lambda row: (row[0], row[1]),
)


def written(path, found):
    path.write_text("".join(f"{q} Q0 {d} {n} {s} tag\n" for n, (q, d, s) in enumerate(found)), encoding="utf8")
    return path


def same(left, right):
    assert (left.tag, left.ties, left.sha256) == (right.tag, right.ties, right.sha256)
    assert list(left.ranking) == list(right.ranking)
    for query in right.ranking:
        assert left.ranking[query] == right.ranking[query]
        assert left.ranking.scores(query) == right.ranking.scores(query)


@given(found=rows)
@settings(max_examples=80)
def test_columns_give_what_lines_give_with_ties_and_scattered_queries(tmp_path_factory, found):
    path = written(tmp_path_factory.getbasetemp() / "generated.run", found)
    same(read_columns(path), text_io.read_run(path))


@pytest.mark.parametrize(
    "text",
    [
        "1 Q0 d 1 2.0 t\n1 Q0 d 2 1.0 t\n",
        "1 Q0 d 1 nan t\n",
        "1 Q0 d 1 1_0 t\n",
        "1 Q0 a 1 2.0 t\n1 Q0 b 2 1.0 t x\n",
        "1 Q0 a 1 -3.4028234663852886e38 t\n1 Q0 b 1 -3.4028234663852886e38 t\n",
        "1 Q0 a\0 1 2.0 t\n",
    ],
)
def test_what_lines_refuse_columns_refuse_in_the_same_words(tmp_path, text):
    path = tmp_path / "bad.run"
    path.write_text(text)
    said = []
    for read in (text_io.read_run, read_columns):
        with pytest.raises(FormatError) as refused:
            read(path)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_the_first_documents_and_some_queries_of_a_ranking_by_columns(tmp_path):
    found = read_columns(written(tmp_path / "a.run", [("q", "a", 3), ("q", "b", 2), ("p", "c", 1)])).ranking
    assert found.top(1)["q"] == ("a",)
    assert found.top(2).top(9).scores("q") == (3.0, 2.0)
    assert list(found.only(["p", "none", "q"])) == ["p", "q"]
    assert "none" not in found
    assert len(found.only(["q"]).top(1)) == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_run_is_read_by_columns_and_a_small_one_is_not(tmp_path, monkeypatch, packed):
    path = written(tmp_path / "a.run", [("q", f"d{n}", n) for n in range(50)])
    if packed:
        path = tmp_path / "a.run.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.run").read_bytes()))
    small = text_io.read_run(path)
    monkeypatch.setattr(text_io, "COLUMNS_PACKED" if packed else "COLUMNS", 10)
    large = text_io.read_run(path)
    assert isinstance(large.ranking, ColumnRanking)
    assert not isinstance(small.ranking, ColumnRanking)
    same(large, small)


def test_real_runs_are_the_same_by_columns(shared):
    for path in sorted((shared / "trec-dl-2020-top100" / "runs").glob("*.run")):
        same(read_columns(path), text_io.read_run(path))
