"""Rows from a program, on disk, are the run that they make in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cerank.errors import FormatError
from cerank.trec import generated_runs as made
from cerank.trec.generated_runs import ranking_of_rows
from cerank.trec.text_io import run_of


def test_rows_equal_the_run_in_memory_and_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "PIECE_ROWS", 7)
    draw = random.Random(1)
    rows = [(f"q{query}", f"é{doc}", draw.choice([1.0, 0.1, -1e-7, 3e38])) for query in range(9) for doc in range(6)]
    draw.shuffle(rows)
    expected = run_of(rows, "t", "there")
    found = ranking_of_rows(iter(rows), "t", "there", identity="a", cache=tmp_path)
    assert list(found) == list(expected.ranking)
    assert all(found[query] == expected.ranking[query] for query in found)
    assert all(found.scores(query) == expected.ranking.scores(query) for query in found)
    assert found.store.contents.ties == expected.ties

    def never() -> object:
        pytest.fail("asked again")
        yield

    again = ranking_of_rows(never(), "t", "there", identity="a", cache=tmp_path)
    assert dict(again) == dict(found)
    assert dict(ranking_of_rows([("q", "d", 1.0)], "t", "there", identity="b", cache=tmp_path)) == {"q": ("d",)}
    assert not list((tmp_path / "rankings").glob("*.run"))


@pytest.mark.parametrize(
    "rows", [[("q", "a", float("nan"))], [("q", "a", 1.0), ("q", "a", 2.0)], [("q", "a b", 1.0)], [("", "a", 1.0)]]
)
def test_rows_that_make_no_run_are_refused(tmp_path: Path, rows: list[tuple[str, str, float]]) -> None:
    with pytest.raises(FormatError):
        run_of(rows, "t", "there")
    with pytest.raises(FormatError):
        ranking_of_rows(rows, "t", "there", identity="a", cache=tmp_path)
    assert dict(ranking_of_rows([("q", "d", 1.0)], "t", "there", identity="a", cache=tmp_path)) == {"q": ("d",)}
