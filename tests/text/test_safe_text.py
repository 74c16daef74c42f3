"""Outside text, made safe: nothing that `shown` returns acts upon a terminal."""

from __future__ import annotations

import ast
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.text.safe_text import counted, plural, shown

ANYTHING = st.text(st.characters())  # control, private and unassigned characters; surrogates come in the examples


@given(ANYTHING)
def test_no_control_character_survives(text: str) -> None:
    for char in shown(text):
        assert unicodedata.category(char)[0] != "C" or char in "\u200c\u200d"
        assert char not in "\u2028\u2029"


@given(ANYTHING)
def test_with_lines_only_line_feeds_and_tabs_are_kept(text: str) -> None:
    kept = shown(text, lines=True)
    assert kept.replace("\n", " ").replace("\t", " ") == shown(text)


@pytest.mark.parametrize(
    ("attack", "seen"),
    [
        ("\x1b]52;c;aGk=\x07", "⟨001b⟩]52;c;aGk=⟨0007⟩"),
        ("\x9b31m", "⟨009b⟩31m"),
        ("a\rb", "a⟨000d⟩b"),
        ("a\nb\tc", "a b c"),
        ("\u202egnp.exe", "⟨202e⟩gnp.exe"),
        ("\u2028", "⟨2028⟩"),
        ("\udcff", "⟨dcff⟩"),
        ("\U000e0041", "⟨e0041⟩"),
        ("\x00", "⟨0000⟩"),
    ],
)
def test_what_a_terminal_would_act_upon_becomes_a_visible_mark(attack: str, seen: str) -> None:
    assert shown(attack) == seen


def test_honest_text_is_left_alone() -> None:
    honest = "naïve Δ 中文 👩\u200d🔬 क्\u200dष [/b] {x}"
    assert shown(honest) == honest


def test_long_text_is_clipped_and_says_so() -> None:
    assert shown("abcdef", 3) == "abc…"
    assert shown("abc", 3) == "abc"


def test_anything_with_a_text_can_be_shown() -> None:
    assert shown(3.5) == "3.5"


def nouns() -> list[str]:
    """Every noun that the package has counted."""
    package = Path(__file__).parents[2] / "cerank"
    trees = [ast.parse(path.read_text("utf8")) for path in package.rglob("*.py")]
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "counted"
    ]
    found = {call.args[1].value for call in calls if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)}
    return sorted(str(noun) for noun in found)


@pytest.mark.parametrize("noun", nouns())
def test_a_noun_follows_its_number(noun: str) -> None:
    several = plural(noun)
    assert several != noun
    assert several.endswith("ies") == noun.endswith(("ry", "py"))
    assert [counted(number, noun) for number in (0, 1, 2)] == [f"0 {several}", f"1 {noun}", f"2 {several}"]


@pytest.mark.parametrize(
    ("number", "noun", "seen"),
    [
        (1, "query", "1 query"),
        (2, "query", "2 queries"),
        (0, "test", "0 tests"),
        (1, "test set", "1 test set"),
        (3, "test query", "3 test queries"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (1234567, "byte", "1,234,567 bytes"),
        (0.5, "core", "0.5 cores"),
    ],
)
def test_a_number_stands_before_the_noun_it_counts(number: float, noun: str, seen: str) -> None:
    assert counted(number, noun) == seen
