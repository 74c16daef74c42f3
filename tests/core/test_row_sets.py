"""Sets of rows at a bit a row, against Python's own sets and lists."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.core.row_sets import ChosenItems, ItemsByPlace, RowSet


@given(st.sets(st.integers(0, 2999)))
def test_a_set_of_rows_is_the_sorted_list_of_them(rows):
    made = RowSet(3000)
    for row in rows:
        made.add(row)
    expected = sorted(rows)
    assert list(made) == expected
    assert len(made) == len(expected)
    assert [made[place] for place in range(len(made))] == expected
    assert [row for row in range(3000) if row in made] == expected
    for row in (0, 1, 511, 512, 513, 1500, 2999):
        assert made.count_before(row) == sum(other < row for other in expected)


def test_a_row_that_is_added_after_others_were_read_counts():
    made = RowSet(100)
    made.add(5)
    assert list(made) == [5]
    made.add(2)
    assert (made[0], len(made), made.count_before(6)) == (2, 2, 2)
    with pytest.raises(IndexError):
        made[2]


def test_rows_at_places_of_a_set_and_bits_of_a_set():
    draw = random.Random(1)
    for size in (1, 64, 700, 1024):
        rows = sorted(draw.sample(range(size), draw.randint(1, size)))
        places = sorted(draw.sample(range(len(rows)), draw.randint(0, len(rows))))
        whole, some = RowSet(size), RowSet(len(rows))
        for row in rows:
            whole.add(row)
        for place in places:
            some.add(place)
        assert list(whole.at_places(some)) == [rows[place] for place in places]
        assert list(RowSet.of_bits(size, whole.bits)) == rows
        for wrong in (whole.bits[:-1], whole.bits + bytes(64)):
            with pytest.raises(ValueError):
                RowSet.of_bits(size, wrong)
    with pytest.raises(ValueError):
        RowSet.of_bits(9, b"\x00\x02" + bytes(62))  # row 9 of 9 rows


def test_chosen_items_are_read_as_a_list_of_them_is():
    rows = RowSet(5)
    for row in (4, 0, 2):
        rows.add(row)
    chosen = ChosenItems(["a", "b", "c", "d", "e"], rows)
    assert list(chosen) == ["a", "c", "e"]
    assert (chosen[1], chosen[-1], chosen[:2], len(chosen)) == ("c", "e", ["a", "c"], 3)
    assert "c" in chosen
    assert "b" not in chosen
    assert list(ChosenItems(["a", "b"])) == ["a", "b"]


class _Squares(ItemsByPlace):
    def __len__(self) -> int:
        return 4

    def item(self, place: int) -> str:
        return str(place**2)


def test_items_that_are_looked_up_one_at_a_time_are_read_as_a_list_of_them_is():
    squares, listed = _Squares(), ["0", "1", "4", "9"]
    assert list(squares) == listed
    for place in range(-4, 4):
        assert squares[place] == listed[place]
    for part in (slice(1, 3), slice(None, None, -1), slice(-2, None), slice(2, 99), slice(3, 1)):
        assert squares[part] == listed[part]
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            squares[beyond]
