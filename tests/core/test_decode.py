"""Outside tables to structs: all mistakes at once, each with its path, and never another exception."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.core import decode
from cerank.errors import FormatError
from cerank.recipes.schema import Recipe


class Inner(msgspec.Struct, frozen=True):
    size: Annotated[int, msgspec.Meta(ge=1), decode.help_text("how large")] = 1
    share: float | None = None


class Outer(msgspec.Struct, frozen=True):
    name: str
    inner: Annotated[Inner, decode.help_text("one of them")] = Inner()
    many: dict[str, Inner] = {}
    pair: tuple[int, int] = (0, 0)


def mistakes_in(values: dict[str, Any]) -> list[str]:
    mistakes: list[str] = []
    assert (decode.decode_table(Outer, values, "", mistakes) is None) == bool(mistakes)
    return mistakes


def test_a_table_without_mistakes_becomes_a_struct_with_defaults() -> None:
    mistakes: list[str] = []
    got = decode.decode_table(Outer, {"name": "x", "many": {"a": {"size": 3}}, "pair": [1, 2]}, "", mistakes)
    assert got == Outer(name="x", many={"a": Inner(size=3)}, pair=(1, 2))
    assert mistakes == []


def test_every_mistake_is_found_at_once_with_its_path() -> None:
    assert mistakes_in({"inner": {"size": 0, "shar": 1}, "many": {"a": {"size": "x"}}, "pair": [1, "b"]}) == [
        "inner.size: expected 'int' >= 1; given: 0",
        "inner.shar: unknown key; did you mean 'share'?",
        "many.a.size: expected 'int', got 'str'; given: 'x'",
        "pair[1]: expected 'int', got 'str'; given: [1, 'b']",
        "name: missing",
    ]


def test_a_value_where_a_table_belongs_is_a_mistake() -> None:
    assert [line.partition(":")[0] for line in mistakes_in({"name": "x", "inner": 3, "many": [1]})] == ["inner", "many"]


def test_text_that_is_no_utf8_is_a_mistake_and_not_a_crash_later() -> None:
    assert mistakes_in({"name": "\udcff"}) == ["name: not UTF-8 text; given: '\\udcff'"]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(["name", "chain", "stages", "data", "base", "evaluate", "seed", "other"])


@given(st.dictionaries(KEYS, JUNK | st.dictionaries(st.sampled_from(["a", "train", "loss", "window"]), JUNK)))
def test_any_table_gives_a_recipe_or_mistakes_and_nothing_else(values: dict[str, Any]) -> None:
    mistakes: list[str] = []
    assert (decode.decode_table(Recipe, values, "", mistakes) is None) == bool(mistakes)


TABLES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda table: isinstance(table, dict))


@given(TABLES, TABLES, TABLES)
def test_laying_tables_over_one_another_does_not_depend_on_the_grouping(a: Any, b: Any, c: Any) -> None:
    together = decode.merge_tables(a, decode.merge_tables(b, c))
    one_by_one = decode.merge_tables(decode.merge_tables(a, b), c)
    if not _changes_kind(a, b) and not _changes_kind(b, c) and not _changes_kind(a, c):
        assert together == one_by_one


def _changes_kind(left: object, right: object) -> bool:
    """Whether a table is laid over a value somewhere, or a value over a table."""
    if isinstance(left, dict) and isinstance(right, dict):
        return any(_changes_kind(left[key], right[key]) for key in left.keys() & right.keys())
    return isinstance(left, dict) != isinstance(right, dict)


@given(TABLES)
def test_an_empty_table_changes_nothing_and_neither_do_a_tables_own_values(table: Any) -> None:
    assert (
        decode.merge_tables(table, {}) == decode.merge_tables({}, table) == decode.merge_tables(table, table) == table
    )


def test_merging_leaves_what_it_merges_alone() -> None:
    base = {"a": {"b": 1}}
    decode.merge_tables(base, {"a": {"b": 2}})
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("source", "where", "code"),
    [
        (b"a = 1\nb = ?\n", "f.toml:2", "not-toml"),
        (b"a = 1\na = 2\n", "f.toml:2", "not-toml"),
        (b"a = 1\nb = [1,\n", "f.toml:2", "not-toml"),
        (b"a = 1\n# \xff\n", "f.toml:2", "not-utf-8"),
        (b"a = " + b"[" * 5000, "f.toml", "nested-too-deep"),
        (b"a" + b".a" * 5000 + b" = 1", "f.toml:1", "nested-too-deep"),
        (b"a = " + b"9" * 5000, "f.toml", "not-toml"),
        (b"#" * (decode.LARGEST_TOML + 1), "f.toml", "file-too-large"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(source: bytes, where: str, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode.toml_table(source, "f.toml")
    assert (caught.value.where, caught.value.code) == (where, code)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}="\n.a1\\u#', max_size=40).map(str.encode))
def test_any_bytes_are_a_table_or_a_format_error(source: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(decode.toml_table(source, "f"), dict)


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert decode.toml_table(b"\xef\xbb\xbfa = 1", "f") == {"a": 1}


def test_the_line_of_a_key_is_found_under_its_header_or_dotted() -> None:
    source = b'a = 1\n[b]\nc = 2\n[ b."d" ]\n  e = 3\n[f]\ng.h = 4\n'
    found = {
        keys: decode.line_of(source, tuple(keys.split("."))) for keys in ("a", "b.c", "b.d.e", "f.g.h", "b.x", "z")
    }
    assert found == {"a": (1, 1), "b.c": (3, 2), "b.d.e": (5, 3), "f.g.h": (7, 3), "b.x": (2, 1), "z": (0, 0)}


def test_a_field_says_what_it_means() -> None:
    hints = {"size": Annotated[int, msgspec.Meta(ge=1), decode.help_text("how large")], "bare": int}
    assert decode.help_text_of(hints["size"]) == "how large"
    assert decode.help_text_of(hints["bare"]) == ""
