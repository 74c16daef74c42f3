from __future__ import annotations

import pytest

from cerank.teachers.parsing.written_queries import read_query
from tests.teachers.parsing.first_persons import QUERIES, REFUSALS


@pytest.mark.parametrize("text", QUERIES)
def test_what_people_cannot_do_is_a_query(text: str) -> None:
    assert read_query(f"Query: {text}") == text


@pytest.mark.parametrize("text", REFUSALS)
def test_what_a_model_cannot_do_for_its_prompt_is_no_query(text: str) -> None:
    assert read_query(text) == ""


@pytest.mark.parametrize(
    ("text", "is_query"),
    [
        ("unable to generate query plan in postgres", True),
        ("can't generate query results in power bi", True),
        ("there is no context menu in windows 11", True),
        ("it is not possible to save the document word", True),
        ("as an assistant what should i wear", True),
        ("unfortunately the passenger died", True),
        ("none of your business lyrics", True),
        ("Unable to generate a query from the given text.", False),
        ("There isn't enough context to generate a query.", False),
        ("It is not appropriate to generate a query for this passage.", False),
        ("As a language model, I cannot write this.", False),
        ("I do not have enough information to write a question.", False),
        ("N/A", False),
    ],
)
def test_sentences_without_a_speaker_are_told_apart_too(text: str, is_query: bool) -> None:
    assert bool(read_query(text)) == is_query
