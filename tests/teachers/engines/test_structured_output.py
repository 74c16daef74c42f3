from __future__ import annotations

import pytest

from cerank.teachers.engines.structured_output import ignored

_SCHEMA = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("parameters", "text", "is_cut", "found"),
    [
        ({}, "anything", False, ""),
        ({"guided_regex": r"\[\d\]"}, "[2] > [1]", False, "guided_regex"),  # vLLM from 0.12 on passes over it
        ({"structured_outputs": {"regex": r"\[\d\]"}}, "[2]", False, ""),
        ({"structured_outputs": {"regex": r"\[\d\]"}}, "[2] > [1", True, ""),  # cannot be told of half an answer
        ({"structured_outputs": {"regex": "("}}, "[2]", False, ""),
        ({"structured_outputs": {"choice": ["A", "B"]}}, "B", False, ""),
        ({"structured_outputs": {"choice": ["A", "B"]}}, "Passage B", False, "structured_outputs.choice"),
        ({"guided_choice": ["Passage A"]}, "Passage", True, ""),
        ({"guided_choice": [" yes", " no"]}, " yes", False, ""),
        ({"guided_choice": [" yes", " no"]}, "no", False, ""),
        ({"guided_choice": [1, 2]}, "1", False, ""),
        ({"guided_choice": [1, 2]}, "3", False, "guided_choice"),
        ({"guided_regex": " (yes|no)"}, " yes", False, ""),
        ({"guided_regex": r"(\[\d+\]\n)+"}, "[1]\n[2]\n", False, ""),
        ({"guided_regex": "yes|no"}, " maybe", False, "guided_regex"),
        ({"response_format": {"type": "json_object"}}, '{"a": 1}', False, ""),
        ({"response_format": {"type": "json_object"}}, "[1] > [2]", False, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": _SCHEMA}}}, "[1, 2", True, ""),
        ({"response_format": {"type": "text"}}, "[1] > [2]", False, ""),
        ({"json_schema": _SCHEMA}, "The best is", True, "json_schema"),
        ({"grammar": "root ::= x"}, "y", False, ""),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "y", False, ""),
    ],
)
def test_an_answer_in_another_form_than_was_asked_for_tells_that_the_parameter_is_ignored(
    parameters: dict[str, object], text: str, is_cut: bool, found: str
) -> None:
    assert ignored(parameters, text, is_cut=is_cut) == found
