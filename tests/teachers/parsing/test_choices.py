from __future__ import annotations

import math

import pytest

from cerank.teachers.parsing.choices import chosen_letter, order_by_log_probability, read_grade, yes_over_no


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        ("Passage B", 1),
        ("passage: c", 2),
        ("[A]", 0),
        ('"B"', 1),
        ("B. It answers the query.", 1),
        ("The most relevant is Passage C.", 2),
        ("<think>Passage A?</think> Passage B", 1),
        ("", None),
        ("A relevant passage is Passage C", 2),
        ("Passage A or Passage B", None),
        ("Neither", None),
        ("Passage F", None),
    ],
)
def test_one_passage_is_chosen_or_none(text: str, place: int | None) -> None:
    assert chosen_letter(text, 4) == place


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("##final score: 2", 2),
        ("M: 3\nT: 1\n##final score: 0", 0),
        ('{"M": 2, "T": 1, "O": 1}', 1),
        ("The passage is about 1990.\n3", 3),
        ("##final score: 7", None),
        ("##final score: 2.5", None),
        ("It is 2 or 3", None),
        ("I cannot judge this.", None),
        ("", None),
    ],
)
def test_a_grade_is_read_only_where_it_is_one(text: str, grade: int | None) -> None:
    assert read_grade(text) == grade


def test_the_order_of_first_is_that_of_the_log_probabilities_by_hand() -> None:
    tokens = [("B", -0.2), ("D", -2.5), ("A", -1.9), (" A", -0.1), ("[", -3.0), ("B", -4.0), ("Z", -5.0)]
    found = order_by_log_probability([tokens], "ABCD")
    assert found is not None
    assert found.order == (1, 0, 3, 2)  # C is not among the tokens: last
    assert found.missing == 1


def test_the_letters_may_follow_a_bracket_that_the_model_writes_itself() -> None:
    found = order_by_log_probability([[("[", -0.1), ("The", -2.0)], [("C", -0.1), ("A", -1.0), ("B", -2.0)]], "ABC")
    assert found is not None
    assert found.order == (2, 0, 1)
    assert order_by_log_probability([[("The", -0.1)]], "ABC") is None


def test_yes_against_no_sums_the_spellings_and_bounds_what_is_missing() -> None:
    both = yes_over_no([("Yes", math.log(0.5)), (" yes", math.log(0.1)), ("no", math.log(0.3))])
    assert both is not None
    assert both.log_odds == pytest.approx(math.log(0.6 / 0.3))
    assert not both.is_bound
    one = yes_over_no([("Yes", math.log(0.5)), ("maybe", math.log(0.01))])
    assert one is not None
    assert one.log_odds == pytest.approx(math.log(0.5 / 0.01))
    assert one.is_bound
    assert yes_over_no([("maybe", -0.1)]) is None
