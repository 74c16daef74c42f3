"""`cerank data check` goes on after the first malformed row."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.checks.broken_rows import broken_rows
from cerank.app.checks.check_data import DataCheckRequest, check_data
from cerank.errors import FormatError
from cerank.settings import Flags, resolve
from tests.refusals import refused


def dataset(folder: Path) -> Path:
    folder.mkdir()
    rows = [b"d%d\ttext %d\n" % (number, number) for number in range(9000)]
    rows[3] = b"one column\n"
    rows[4] = b"d1\tagain\n"
    rows[8000] = b"d8000\t\xff\n"
    rows[8001] = b"d 8001\ttext\n"
    (folder / "docs.tsv").write_bytes(b"".join(rows))
    (folder / "queries.jsonl").write_text(
        '{"query_id": "q1", "text": "a"}\n{"query_id": "q2"\n{"query_id": "q3", "text": " "}\n'
    )
    (folder / "qrels").write_text("q1 0 d5 1\nq1 0 d6\nq1 0 d7 many\nq1 0 d8 1\n")
    return folder


def test_each_malformed_row_is_named_by_its_line(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set")
    rows = broken_rows(folder)
    places = [line.split(": ")[0].removeprefix(f"{folder}/") for line in rows.named]
    assert places == [
        *("docs.tsv:4", "docs.tsv:5", "docs.tsv:8001", "docs.tsv:8002"),
        *("queries.jsonl:2", "queries.jsonl:3", "qrels:2", "qrels:3"),
    ]
    assert (rows.total, rows.files) == (8, 3)


def test_of_many_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set")
    (folder / "qrels").write_text("q1 0 d5 1\n" + "q1 0 d5\n" * 5000)
    settings = resolve(Flags(lab=str(tmp_path / "lab"), cache=str(tmp_path / "cache")), {}, tmp_path).settings
    with refused(FormatError, "rows-broken", "docs.tsv:4", "qrels:5", "5,006", "4,996"):
        check_data(settings, DataCheckRequest(dataset=str(folder)))


def test_a_single_malformed_row_is_the_error_that_opening_gives(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "docs.tsv").write_text("d1\ta\n")
    (folder / "queries.tsv").write_text("q1\ta\n")
    (folder / "qrels").write_text("q1 0 d1\n")
    settings = resolve(Flags(lab=str(tmp_path / "lab"), cache=str(tmp_path / "cache")), {}, tmp_path).settings
    with refused(FormatError, "column-count", "qrels:1"):
        check_data(settings, DataCheckRequest(dataset=str(folder)))


@pytest.mark.parametrize("name", ["docs.csv", "docs.parquet"])
def test_layouts_whose_rows_do_not_stand_alone_are_left_to_their_readers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("doc_id,text\nd1\n")
    assert broken_rows(tmp_path).total == 0
