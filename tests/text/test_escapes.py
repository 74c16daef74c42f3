"""Escapes: no text ends its field, starts a command or acts upon a terminal."""

from __future__ import annotations

import csv as csv_module
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.text import escapes
from cerank.text.safe_text import shown

ANYTHING = st.text(st.characters())


@given(ANYTHING)
def test_a_tsv_field_has_no_tab_and_no_line_end(text: str) -> None:
    field = escapes.tsv(text)
    assert len(field.splitlines()) <= 1
    assert "\t" not in field
    assert shown(field, len(field)) == field


def test_tabs_and_line_feeds_stay_visible_in_tsv() -> None:
    assert escapes.tsv("a\tb\nc") == "a⟨0009⟩b⟨000a⟩c"


@given(ANYTHING)
def test_json_is_exact_and_harmless(text: str) -> None:
    written = escapes.json_text([text])
    assert json.loads(written) == [text]
    assert shown(written, len(written)) == written


@pytest.mark.parametrize(("text", "seen"), [("\x9b", r'"\u009b"'), ("\U000e0041", r'"\udb40\udc41"'), ("é中", '"é中"')])
def test_json_escapes_what_a_terminal_would_act_upon_and_nothing_else(text: str, seen: str) -> None:
    assert escapes.json_text(text) == seen


@given(st.text("\\{}$&#%_~^<>|[]*ab"))
def test_latex_has_no_character_that_tex_acts_upon(text: str) -> None:
    plain = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", escapes.latex(text)
    )
    plain = re.sub(r"\\[{}$&#%_]|\{\[\}|\{\*\}", "", plain)
    assert set(plain) <= set("ab]")


def test_latex_by_hand() -> None:
    assert escapes.latex(r"50% of a_b\c {x} [y]") == r"50\% of a\_b\textbackslash{}c \{x\} {[}y]"


@given(st.text("\\`*_[]<>|&~$ab\n"))
def test_every_sign_of_markdown_stands_behind_a_backslash(text: str) -> None:
    written = escapes.markdown(text)
    assert re.fullmatch(r"(\\[\\`*_\[\]<>|&~$]|[ab ])*", written)
    assert re.sub(r"\\(.)", r"\1", written) == text.replace("\n", " ")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\r\n@", "＝", "\u00a0-", "\ufeff="])
def test_a_csv_field_never_starts_a_formula(start: str) -> None:
    field = escapes.csv(f"{start}cmd|' /C calc'!A0")
    (row,) = list(csv_module.reader([field]))
    assert len(row) == 1
    assert row[0][0] in {"'", "⟨"}  # an apostrophe, or the visible mark of a control character


def test_a_csv_field_reads_back_with_commas_quotes_and_line_ends_inside() -> None:
    fields = ['a,"b"', "c\nd", "plain"]
    (row,) = list(csv_module.reader([",".join(escapes.csv(field) for field in fields)]))
    assert row == ['a,"b"', "c d", "plain"]
