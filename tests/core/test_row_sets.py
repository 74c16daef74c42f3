"""Sets of rows at a bit a row, against Python's own sets and lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.core.row_sets import ChosenItems, RowSet


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
