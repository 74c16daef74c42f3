from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.retrieval.teachers import Repairs, repair
from cerank.teachers.parsing.permutations import read_permutation


def _rank_llm(text: str, size: int) -> tuple[int, ...]:
    """What rank_llm 0.25.7 makes of an answer: every digit counts, and without any the order stays as it was."""
    circled = str.maketrans("①②③", "123")  # of its table of other digits those that are used here
    digits = re.sub(r"[^0-9]", " ", text.rsplit("</think>", maxsplit=1)[-1].translate(circled))
    numbers = [int(number) - 1 for number in digits.split()]
    order = list(dict.fromkeys(number for number in numbers if 0 <= number < size))
    return (*order, *(place for place in range(size) if place not in order))


@pytest.mark.parametrize(
    ("text", "order", "theirs"),
    [
        ("[2] > [3] > [1]", (1, 2, 0), (1, 2, 0)),
        ("<think>Passage [1] is [3] times better</think>\n[2] > [3] > [1]", (1, 2, 0), (1, 2, 0)),
        ("I ranked the 3 passages: [2] > [1] > [3]", (1, 0, 2), (2, 1, 0)),
        ("As of 2024, passage [1] is outdated. Ranking: [3] > [2] > [1]", (2, 1, 0), (0, 2, 1)),
        ("Passage [1] explains it, [2] does not.\n\n[2] > [1] > [3]", (1, 0, 2), (0, 1, 2)),
        ("```json\n[3, 1, 2]\n```", (2, 0, 1), (2, 0, 1)),
        ('{"confidence": 1, "ranking": [3, 2, 1]}', (2, 1, 0), (0, 2, 1)),
        ('["[3]", "[2]", "[1]"]', (2, 1, 0), (2, 1, 0)),
        ("[3] > [1-2]", (2, 0, 1), (2, 0, 1)),
        ("[3]-[1]", (2, 1, 0), (2, 0, 1)),
        ("[No. 3] > [No. 1] > [No. 2]", (2, 0, 1), (2, 0, 1)),
        ("[PASSAGE3, PASSAGE1, PASSAGE2]", (2, 0, 1), (2, 0, 1)),
        ("1. Passage 3\n2. Passage 1\n3. Passage 2", (2, 0, 1), (0, 2, 1)),
        ("Passage 3 - 0.95\nPassage 1 – 0.40\nPassage 2 — 9/10", (2, 0, 1), (2, 0, 1)),
        ("Passage 3 - 2 facts\nPassage 1 - partly\nPassage 2 - off topic", (2, 0, 1), (2, 1, 0)),
        ("3 > 1 > 2", (2, 0, 1), (2, 0, 1)),
        ("3 1 2", (2, 0, 1), (2, 0, 1)),
        ("**[3]** > **[2]** > **[1]**", (2, 1, 0), (2, 1, 0)),
        ("③ > ① > ②", (2, 0, 1), (2, 0, 1)),
        ("<answer> [2] > [1] > [3] </answer> [3]", (1, 0, 2), (1, 0, 2)),
    ],
)
def test_an_answer_is_read_as_it_was_meant_where_rank_llm_counts_every_digit(
    text: str, order: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    found = read_permutation(text, 3)
    assert found is not None
    assert found.order == order
    assert _rank_llm(text, 3) == theirs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot rank these 3 passages.",
        "Error code: 429 - rate limit of 3 requests",
        "[ ] > [ ] > [ ]",
        "<think>[2] > [3] > [1], but wait",
        "None of the passages answers the query of 2024.",
        "[17] > [18]",
        "[Not considering passages 1-3 as they do not provide information]",
        "Passages 1 - 3 do not provide information",
    ],
)
def test_a_text_without_any_ranking_is_no_answer(text: str) -> None:
    assert read_permutation(text, 3) is None


def test_repairs_are_counted_as_for_rankings_from_files() -> None:
    found = read_permutation("[3] > [3] > [9]", 3)
    assert found is not None
    assert found.repairs == Repairs(1, missing=2, repeated=1, out_of_range=1)
    assert found.named == 1
    assert not found.is_unchanged


def test_of_the_real_malformed_answers_none_loses_a_passage_and_refusals_are_no_orders(shared: Path) -> None:
    rows = (shared / "rankgpt-malformed-permutations" / "outputs.tsv").read_text().splitlines()
    answers = [row.split("\t")[1] for row in rows]
    found = [read_permutation(answer, 20) for answer in answers]
    assert all(entry is None or sorted(entry.order) == list(range(20)) for entry in found)
    refused = [answer for answer, entry in zip(answers, found, strict=True) if entry is None]
    assert len(refused) == 143  # "[ ] > [ ]", "No passage is relevant ..."
    # rank_llm takes them for the order that was given, and two for one that digits in their prose name
    assert sum(_rank_llm(answer, 20) == tuple(range(20)) for answer in refused) == 141
    assert not any(re.search(r"\[\d+\]", answer) for answer in refused)
    kept = [(answer, entry) for answer, entry in zip(answers, found, strict=True) if entry is not None]
    other = [answer for answer, entry in kept if entry.order != repair(answer, 20)[0]]
    # Six have a number that a bracket splits ("[1]4"), and one digits of prose behind the ranking ("Numeric(19, 2)").
    assert len(other) == 7
    assert sum(re.search(r"\[\d\]\d", answer) is not None for answer in other) == 6
    assert other == [answer for answer, entry in kept if entry.order != _rank_llm(answer, 20)]


@given(st.text(alphabet='[]()>0123456789 ,.-ABC\n`{}"passge:thinkr</>', max_size=60), st.integers(2, 20))
def test_whatever_the_text_the_result_is_a_permutation_or_none(text: str, size: int) -> None:
    found = read_permutation(text, size)
    assert found is None or sorted(found.order) == list(range(size))


@given(st.permutations(range(12)))
def test_a_well_formed_answer_is_read_back_unchanged(order: list[int]) -> None:
    found = read_permutation(" > ".join(f"[{place + 1}]" for place in order), 12)
    assert found is not None
    assert found.order == tuple(order)
    assert found.repairs == Repairs()
    assert not found.is_reworded
