"""Outside text, made safe: nothing that `shown` returns acts upon a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.text import shown

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
