"""A run whose scores rise with the rank says so, by whatever reader and layout it is read, and changes nothing else."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cerank.trec.ingest import ingest_run
from cerank.trec.open_run import open_run_file
from cerank.trec.rank_order import rises
from cerank.trec.read_columns import read_columns
from cerank.trec.rows import RunFile
from cerank.trec.text_io import read_run, read_trec_run

Rows = list[tuple[str, str, str, float]]  # query, document, rank, score

RISING: dict[str, Rows] = {
    "by rank": [("q", "a", "1", 0.1), ("q", "b", "2", 0.2), ("q", "c", "3", 0.7)],
    "written backwards": [("q", "c", "3", 0.7), ("q", "b", "2", 0.2), ("q", "a", "1", 0.1)],
    "in no order": [("q", "b", "2", 0.2), ("q", "a", "1", 0.1), ("q", "c", "3", 0.7)],
    "with ties": [("q", "a", "0", 1), ("q", "b", "1", 1), ("q", "c", "2", 2)],
}
FALLING: dict[str, Rows] = {
    "by rank": [("q", "a", "1", 3), ("q", "b", "2", 2), ("q", "c", "3", 1)],
    "written backwards": [("q", "c", "3", 1), ("q", "b", "2", 2), ("q", "a", "1", 3)],
    "a score falls": [("q", "a", "1", 1), ("q", "b", "2", 0.5), ("q", "c", "3", 2)],
    "all scores equal": [("q", "a", "1", 1), ("q", "b", "2", 1)],
    "all ranks equal": [("q", "a", "0", 1), ("q", "b", "0", 2)],
    "two ranks equal": [("q", "a", "1", 1), ("q", "b", "1", 2), ("q", "c", "2", 3)],
    "no numbers": [("q", "a", "first", 1), ("q", "b", "last", 2)],
    "one document": [("q", "a", "1", 1)],
}


def _ingested(path: Path) -> RunFile:
    ingest_run(path, path.parent / "cache")
    return open_run_file(path, path.parent / "cache")


READERS: dict[str, Callable[[Path], RunFile]] = {"lines": read_trec_run, "columns": read_columns, "ingested": _ingested}


def _written(path: Path, rows: Rows) -> Path:
    path.write_text("".join(f"{query} Q0 {doc} {rank} {score} t\n" for query, doc, rank, score in rows))
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", RISING)
def test_scores_that_rise_with_the_rank_are_noted_once(tmp_path, reader, name):
    other = [("r", "a", "1", 2.0), ("r", "b", "2", 1.0)]
    run = READERS[reader](_written(tmp_path / "a.run", RISING[name] + other))
    assert len(run.notes) == 1
    assert "1 of 2 queries" in run.notes[0]
    assert run.ranking["q"][0] == "c"  # by score, as trec_eval orders


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FALLING)
def test_other_scores_are_not_noted(tmp_path, reader, name):
    assert READERS[reader](_written(tmp_path / "a.run", FALLING[name])).notes == ()


def test_all_readers_count_alike_over_blocks_and_scattered_queries(tmp_path):
    draw = random.Random(3)
    lists = {f"q{number}": draw.choices([-1.0, 0.0, 0.5, 2.0], k=draw.randint(1, 3)) for number in range(400)}
    rows = [
        (query, f"d{rank}", str(rank), score) for query, scores in lists.items() for rank, score in enumerate(scores, 1)
    ]
    rising = sum(scores == sorted(scores) and scores[0] < scores[-1] for scores in lists.values())
    grouped = _written(tmp_path / "grouped.run", rows)
    draw.shuffle(rows)
    scattered = _written(tmp_path / "scattered.run", rows)
    for path in (grouped, scattered):
        packed = path.with_suffix(".run.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for reader in READERS.values():
            for each in (path, packed):
                assert f"{rising} of 400 queries" in reader(each).notes[0]


LAYOUTS = {
    "a.csv": "qid,docno,rank,score\n1,a,1,0.1\n1,b,2,0.4\n",
    "header.tsv": "qid\tdocno\tscore\trank\n1\ta\t0.1\t1\n1\tb\t0.4\t2\n",
    "five.run": "1 a 1 0.1 t\n1 b 2 0.4 t\n",
    "q0.run": "1 Q0 a 1 0.1\n1 Q0 b 2 0.4\n",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_of_other_layouts_with_ranks_and_scores_are_noted_too(tmp_path, name):
    path = tmp_path / name
    for content, noted in ((LAYOUTS[name], 1), (LAYOUTS[name].replace("0.4", "0.0"), 0)):
        path.write_text(content)
        assert sum("1 of 1 query" in note for note in read_run(path).notes) == noted


def test_a_table_in_parquet_is_noted_too(tmp_path):
    import polars as pl

    for scores, noted in (([0.1, 0.4], 1), ([0.4, 0.1], 0)):
        table = pl.DataFrame({"qid": ["1", "1"], "docno": ["a", "b"], "rank": [0, 1], "score": scores})
        table.write_parquet(tmp_path / "a.parquet")
        assert len(read_run(tmp_path / "a.parquet").notes) == noted


def test_ranks_that_pandas_wrote_as_floats_since_one_is_missing_are_read_as_ranks(tmp_path):
    import polars as pl

    queries, documents = ["1", "1", "2", "2"], ["a", "b", "a", "b"]
    table = {"qid": queries, "docno": documents, "rank": [1.0, 2.0, 1.0, None], "score": [0.1, 0.4, 0.1, 0.4]}
    pl.DataFrame(table).write_parquet(tmp_path / "a.parquet")
    (note,) = read_run(tmp_path / "a.parquet").notes
    assert "1 of 2 queries" in note  # nothing is known of the one with a rank missing


def test_ranks_beyond_64_bits_are_compared_as_numbers():
    assert rises([str(10**30), str(10**31)], [1.0, 2.0])
