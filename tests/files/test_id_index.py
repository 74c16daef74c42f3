"""An index of ids that went to temporary files is the one that stayed in memory, byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.files.id_index import IdIndex, IdIndexBuilder

IDS = [f"d{number * 7919 % 5003}" for number in range(5003)]  # all different, in no order


def _built(folder: Path, builder: IdIndexBuilder, ids: list[str]) -> dict[str, bytes]:
    for start in range(0, len(ids), 97):
        builder.add(ids[start : start + 97])
    assert len(builder) == len(ids)
    folder.mkdir(exist_ok=True)
    builder.write(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("most_waiting", [1, 500, 5002, 5003])
def test_hashes_on_disk_give_the_same_files(tmp_path: Path, most_waiting: int) -> None:
    expected = _built(tmp_path / "memory", IdIndexBuilder(), IDS)
    assert _built(tmp_path / "disk", IdIndexBuilder(tmp_path / "spill", most_waiting), IDS) == expected
    assert not (tmp_path / "spill").exists()
    index = IdIndex(tmp_path / "disk", len(IDS), is_numbered=False)
    assert [index.row(name) for name in (*IDS[:50], IDS[-1], "x")] == [*range(50), len(IDS) - 1, -1]


def test_what_a_killed_build_left_counts_for_nothing(tmp_path: Path) -> None:
    expected = _built(tmp_path / "memory", IdIndexBuilder(), IDS)
    killed = IdIndexBuilder(tmp_path / "spill", 500)
    killed.add(IDS[:3000])
    (tmp_path / "disk").mkdir()
    for name, data in expected.items():
        (tmp_path / "disk" / name).write_bytes(data[:1000])
    assert _built(tmp_path / "disk", IdIndexBuilder(tmp_path / "spill", 500), IDS) == expected


@pytest.mark.parametrize("second", [40, 4000])
def test_an_id_that_comes_twice_is_found_among_hashes_on_disk(tmp_path: Path, second: int) -> None:
    builder = IdIndexBuilder(tmp_path / "spill", 500)
    builder.add([*IDS[:second], IDS[7], *IDS[second:]])
    assert builder.find_duplicate() == (7, second)
