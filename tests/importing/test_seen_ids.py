"""Ids that an import has met are known whether they are in memory or on the disk."""

from __future__ import annotations

import random
from pathlib import Path

from cerank.importing.seen_ids import SeenIds


def test_ids_are_known_in_memory_and_on_the_disk(tmp_path: Path) -> None:
    draw, expected = random.Random(3), dict[str, int]()
    seen = SeenIds(tmp_path / "ids", most_in_memory=50)
    for _ in range(1000):
        key = f"naïve-{draw.randrange(400)}"
        assert seen.get(key) == expected.get(key)
        assert (key in seen) == (key in expected)
        if key not in expected:
            expected[key] = draw.randrange(-(2**63), 2**63)
            seen.add(key, expected[key])
    assert len(seen) == len(expected)
    assert (tmp_path / "ids").exists()
    seen.close()
    assert not (tmp_path / "ids").exists()


def test_few_ids_make_no_file(tmp_path: Path) -> None:
    seen = SeenIds(tmp_path / "ids")
    seen.add("d1", 7)
    assert (seen.get("d1"), seen.get("d2"), len(seen)) == (7, None, 1)
    seen.close()
    assert not list(tmp_path.iterdir())


def test_an_id_with_half_a_character_was_never_added(tmp_path: Path) -> None:
    seen = SeenIds(tmp_path / "ids", most_in_memory=1)
    seen.add("d1", 7)
    assert seen.get("d1\ud800") is None
    assert "\udfff" not in seen
    assert seen.get("d1") == 7
    seen.close()
