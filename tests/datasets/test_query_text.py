"""Queries in nearly the same words as others are found, whatever the order in which these come."""

from __future__ import annotations

import random

from cerank.datasets.query_text import NEAR, near_copies


def test_near_copies_are_those_that_comparing_every_pair_finds() -> None:
    draw = random.Random(6)
    queries, others = (
        {f"{name}{at}": " ".join(draw.choices("abcdefghij", k=draw.randint(0, 9))) for at in range(90)} for name in "qo"
    )
    words = {query: set(text.split()) for query, text in {**queries, **others}.items()}
    expected = {
        query
        for query in queries
        for other in others
        if words[other] and len(words[query] & words[other]) >= NEAR * len(words[query] | words[other])
    }
    copies = near_copies(queries, others.items())
    assert set(copies) == expected
    assert 10 < len(expected) < 80
    assert all(
        len(words[query] & words[other]) >= NEAR * len(words[query] | words[other]) for query, other in copies.items()
    )


def test_case_and_punctuation_make_no_other_query() -> None:
    assert near_copies({"q": "What is BM25?"}, [("a", "what, is bm25"), ("b", "What is BM25?")]) == {"q": "a"}
