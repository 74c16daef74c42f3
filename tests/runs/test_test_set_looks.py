"""The record of looks at a lab's test sets: nothing is lost, and a lab that cannot keep count stops nobody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cerank.runs.test_set_looks import Look, load, path_of, record


def look(key: str) -> Look:
    return Look(time="2026-01-01T00:00:00+00:00", by="compare", comparisons={"qrels": (key,)})


def test_looks_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    keys = [f"{number:03}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda key: record(tmp_path / "lab", look(key)), keys))
    assert sorted(each.comparisons["qrels"][0] for each in load(tmp_path / "lab")) == keys


def test_a_row_that_a_killed_writer_left_hides_no_other(tmp_path: Path) -> None:
    record(tmp_path, look("a"))
    with path_of(tmp_path).open("ab") as file:
        file.write(b'{"time":"2026')
    record(tmp_path, look("b"))
    assert [each.comparisons["qrels"] for each in load(tmp_path)] == [("a",), ("b",)]


def test_a_changed_row_is_not_counted(tmp_path: Path) -> None:
    record(tmp_path, look("aaaa"))
    record(tmp_path, look("bbbb"))
    path_of(tmp_path).write_bytes(path_of(tmp_path).read_bytes().replace(b"aaaa", b"cccc"))
    assert [each.comparisons["qrels"] for each in load(tmp_path)] == [("bbbb",)]


def test_a_lab_that_cannot_be_written_to_keeps_no_count_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not record(tmp_path / "file" / "lab", look("a"))
    path_of(tmp_path).mkdir()
    assert not record(tmp_path, look("a"))
    assert load(tmp_path) == []
