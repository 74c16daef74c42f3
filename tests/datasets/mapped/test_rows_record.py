"""Rows that were counted before are read from the cache: whole, of the same making, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.core.row_sets import RowSet
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.files import disk


def rows_of(size: int, *rows: int) -> RowSet:
    made = RowSet(size)
    for row in rows:
        made.add(row)
    return made


def test_a_record_gives_back_rows_and_numbers(tmp_path: Path) -> None:
    record = RowsRecord(tmp_path, "usable", 1000, {"window": [1, 5]})
    assert record.load(["usable"]) is None
    record.save(rows_of(1000, 0, 7, 511, 512, 999), {"usable": 5})
    loaded = RowsRecord(tmp_path, "usable", 1000, {"window": [1, 5]}).load(["usable"])
    assert loaded is not None
    assert (list(loaded[0]), loaded[1]) == ([0, 7, 511, 512, 999], {"usable": 5})
    assert loaded[0].count_before(600) == 4


def test_what_was_made_from_something_else_is_not_found(tmp_path: Path) -> None:
    RowsRecord(tmp_path, "usable", 10, ["a"]).save(rows_of(10, 3), {"usable": 1})
    assert RowsRecord(tmp_path, "usable", 11, ["a"]).load(["usable"]) is None
    assert RowsRecord(tmp_path, "usable", 10, ["b"]).load(["usable"]) is None
    assert RowsRecord(tmp_path, "judged", 10, ["a"]).load(["usable"]) is None
    assert RowsRecord(tmp_path, "usable", 10, ["a"]).load(["usable", "more"]) is None
    (file,) = tmp_path.rglob("*.bin")
    other = RowsRecord(tmp_path, "usable", 10, ["b"])
    other.save(rows_of(10, 4), {"usable": 1})
    (own,) = set(tmp_path.rglob("*.bin")) - {file}
    own.write_bytes(file.read_bytes())  # a whole record under another one's name
    assert other.load(["usable"]) is None


@pytest.mark.parametrize("size", [1, 64, 700])
def test_a_record_with_any_byte_changed_or_missing_counts_for_nothing(tmp_path: Path, size: int) -> None:
    record = RowsRecord(tmp_path, "usable", size, [])
    record.save(rows_of(size, 0, size - 1), {"usable": 2})
    (file,) = tmp_path.rglob("*.bin")
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place])
        assert record.load(["usable"]) is None
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        assert record.load(["usable"]) is None
    file.write_bytes(whole)
    assert record.load(["usable"]) is not None


def test_a_power_cut_at_any_change_leaves_a_whole_record_or_none(tmp_path: Path) -> None:
    class PowerCutError(BaseException):
        pass

    def saved(folder: Path, most: int) -> bool:
        count = 0

        def look(_name: str, _path: Path) -> None:
            nonlocal count
            count += 1
            if count > most:
                raise PowerCutError

        record = RowsRecord(folder, "usable", 90, [])
        try:
            with disk.observe(look):
                record.save(rows_of(90, 5))
        except PowerCutError:
            loaded = record.load()
            assert loaded is None or list(loaded[0]) == [5]
            return False
        loaded = record.load()
        assert loaded is not None
        assert list(loaded[0]) == [5]
        return True

    assert [saved(tmp_path / str(most), most) for most in range(4)] == [False] * 4
    assert saved(tmp_path / "all", 100)
    assert saved(tmp_path / "2", 100)  # over what the cut left


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "usable").write_text("a file where the folder should be")
    record = RowsRecord(tmp_path, "usable", 9, [])
    record.save(rows_of(9, 1))
    assert record.load() is None
