"""`cerank data check` goes on after the first malformed row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.app.checks import broken_rows as module
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


ROWS = {  # kind -> (row of documents, row of qrels, whether it is malformed in each)
    "good": (b"d%d\ta\n", b"q%d 0 d1 1\n", False, False),
    "short": (b"d%d\n", b"q%d 0\n", True, True),
    "again": (b"first\ta\n", b"q1 0 first 1\n", True, False),
    "no text in it": (b"d%d\t\xff\n", b"q%d 0 \xff 1\n", True, True),
    "blank": (b"\n", b" \n", False, False),
    "comment": (b"# d%d\ta\n", b"# q%d\n", True, True),
}


@given(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=60))
def test_all_malformed_rows_are_counted_and_no_other_however_they_are_mixed(kinds: list[str]) -> None:
    rows = [ROWS[kind] for kind in ("good", *kinds)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbered = [[text % at if b"%d" in text else text for text in row[:2]] for at, row in enumerate(rows, 2)]
        (folder / "docs.tsv").write_bytes(b"first\ta\n" + b"".join(row[0] for row in numbered))
        (folder / "queries.tsv").write_text("q1\ta\n")
        (folder / "qrels").write_bytes(b"q1 0 d1 1\n" + b"".join(row[1] for row in numbered))
        expected = [f"docs.tsv:{at}" for at, row in enumerate(rows, 2) if row[2]]
        expected += [f"qrels:{at}" for at, row in enumerate(rows, 2) if row[3]]
        found = broken_rows(folder)
        assert found.total == len(expected)
        assert [line.split(": ")[0].rpartition("/")[2] for line in found.named] == expected[:10]


@pytest.mark.parametrize("every", [1, 2, 50, 400])
def test_the_work_grows_with_the_rows_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    read, real = [0], module.document_rows

    def counting(path: Path, opener: module.Opener) -> Iterator[tuple[int, str, str]]:
        text = opener(path).read()
        read[0] += len(text)
        return real(path, opener)

    monkeypatch.setattr(module, "document_rows", counting)
    rows = [f"d{at}\n" if at % every == 0 else f"d{at}\ta\n" for at in range(4000)]
    (tmp_path / "docs.tsv").write_text("".join(rows))
    assert broken_rows(tmp_path).total == 4000 // every
    assert read[0] < 8 * (tmp_path / "docs.tsv").stat().st_size
