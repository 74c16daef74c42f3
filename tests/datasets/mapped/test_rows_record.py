"""Rows that were counted before are read from the cache: whole, of the same making, or not at all."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from cerank.core.row_sets import RowSet
from cerank.datasets.mapped import rows_record
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.files import disk

COUNTED_BY = ("cerank.training.sampling.negatives",)


def rows_of(size: int, *rows: int) -> RowSet:
    made = RowSet(size)
    for row in rows:
        made.add(row)
    return made


def test_a_record_gives_back_rows_and_numbers(tmp_path: Path) -> None:
    record = RowsRecord(tmp_path, "usable", 1000, {"window": [1, 5]}, counted_by=COUNTED_BY)
    assert record.load(["usable"]) is None
    record.save(rows_of(1000, 0, 7, 511, 512, 999), {"usable": 5})
    loaded = RowsRecord(tmp_path, "usable", 1000, {"window": [1, 5]}, counted_by=COUNTED_BY).load(["usable"])
    assert loaded is not None
    assert (list(loaded[0]), loaded[1]) == ([0, 7, 511, 512, 999], {"usable": 5})
    assert loaded[0].count_before(600) == 4


def test_what_was_made_from_something_else_is_not_found(tmp_path: Path) -> None:
    RowsRecord(tmp_path, "usable", 10, ["a"], counted_by=COUNTED_BY).save(rows_of(10, 3), {"usable": 1})
    assert RowsRecord(tmp_path, "usable", 11, ["a"], counted_by=COUNTED_BY).load(["usable"]) is None
    assert RowsRecord(tmp_path, "usable", 10, ["b"], counted_by=COUNTED_BY).load(["usable"]) is None
    assert RowsRecord(tmp_path, "judged", 10, ["a"], counted_by=COUNTED_BY).load(["usable"]) is None
    assert RowsRecord(tmp_path, "usable", 10, ["a"], counted_by=COUNTED_BY).load(["usable", "more"]) is None
    (file,) = tmp_path.rglob("*.bin")
    other = RowsRecord(tmp_path, "usable", 10, ["b"], counted_by=COUNTED_BY)
    other.save(rows_of(10, 4), {"usable": 1})
    (own,) = set(tmp_path.rglob("*.bin")) - {file}
    own.write_bytes(file.read_bytes())  # a whole record under another one's name
    assert other.load(["usable"]) is None


@pytest.mark.parametrize("size", [1, 64, 700])
def test_a_record_with_any_byte_changed_or_missing_counts_for_nothing(tmp_path: Path, size: int) -> None:
    record = RowsRecord(tmp_path, "usable", size, [], counted_by=COUNTED_BY)
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

        record = RowsRecord(folder, "usable", 90, [], counted_by=COUNTED_BY)
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
    record = RowsRecord(tmp_path, "usable", 9, [], counted_by=COUNTED_BY)
    record.save(rows_of(9, 1))
    assert record.load() is None


def imported(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, source: str) -> ModuleType:
    """Return a module of this source, imported from a file."""
    (folder / f"{name}.py").write_text(source, encoding="utf8")
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(name)


FORMATS = {
    "field": [("    facts: dict[str, int]\n", "    facts: dict[str, int]\n    checked: bool = False\n")],
    "name": [("    size: int  #", "    total: int  #"), (" size=self._size", " total=self._size"),
             ("header.size", "header.total")],
    "kind": [("    rows: int  #", "    rows: float  #")],
    "bits": [("+ rows.bits", "+ rows.bits[::-1]"), ("of_bits(self._size, bits)", "of_bits(self._size, bits[::-1])")],
    "hash": [("hashlib.sha256(", "hashlib.blake2s(")],
    "reader": [("header.rows == len(rows)", "header.rows >= len(rows)")],
}  # fmt: skip


@pytest.mark.parametrize("change", FORMATS)
def test_a_record_of_another_format_is_not_read_though_nobody_raised_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source = Path(str(rows_record.__file__)).read_text(encoding="utf8")
    for old, new in FORMATS[change]:
        assert old in source
        source = source.replace(old, new)
    other = imported(monkeypatch, tmp_path, f"record_with_another_{change}", source)
    cache = tmp_path / "cache"
    changed = other.RowsRecord(cache, "usable", 1000, [], counted_by=COUNTED_BY)
    ours = RowsRecord(cache, "usable", 1000, [], counted_by=COUNTED_BY)
    changed.save(rows_of(1000, 5, 999), {"usable": 2})
    assert changed.load(["usable"]) is not None
    assert ours.load(["usable"]) is None
    ours.save(rows_of(1000, 7), {"usable": 1})
    found = [list(record.load(["usable"])[0]) for record in (ours, changed)]  # each reads its own
    assert found == [[7], [5, 999]]


def test_comments_docstrings_and_layout_leave_records_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(str(rows_record.__file__)).read_text(encoding="utf8")
    worded = source.replace('"""Write the record;', '"""Write this record now;').replace("\n\n\n", "\n\n# more\n\n\n")
    assert worded != source
    other = imported(monkeypatch, tmp_path, "record_in_other_words", worded)
    RowsRecord(tmp_path, "usable", 1000, [], counted_by=COUNTED_BY).save(rows_of(1000, 5))
    assert other.RowsRecord(tmp_path, "usable", 1000, [], counted_by=COUNTED_BY).load() is not None


def test_rows_that_other_code_counts_are_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(name: str, source: str) -> RowsRecord:
        imported(monkeypatch, tmp_path, name, source)
        return RowsRecord(tmp_path / "cache", "usable", 10, [], counted_by=(name,))

    def counting(comment: str, condition: str) -> str:
        return f'"""{comment}"""\n\n\ndef is_usable(count):  # {comment}\n    return count {condition}\n'

    record("counted_one", counting("as it is", "> 0")).save(rows_of(10, 3))
    assert record("counted_two", counting("in other words", "> 0")).load() is not None
    assert record("counted_three", counting("as it is", "> 1")).load() is None


def test_a_record_with_a_version_by_hand_is_not_read(tmp_path: Path) -> None:
    """Such records are in the caches of earlier programs; here one under the very name of a new one."""
    record = RowsRecord(tmp_path, "usable", 8, [], counted_by=COUNTED_BY)
    record.save(rows_of(8, 2))
    (file,) = tmp_path.rglob("*.bin")
    line, _, bits = file.read_bytes()[32:].partition(b"\n")
    data = json.dumps({**json.loads(line), "version": 1}).encode() + b"\n" + bits
    file.write_bytes(hashlib.sha256(data).digest() + data)
    assert record.load() is None
    record.save(rows_of(8, 2, 3))
    loaded = record.load()
    assert loaded is not None
    assert list(loaded[0]) == [2, 3]
