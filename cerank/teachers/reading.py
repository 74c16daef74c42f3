"""Reads raw answers as what their calls asked for; what is none of that is a failure with a reason, never an answer.

Invariant: a pure function of call and answer, so that a better reader may go over old answers without a new call.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from cerank.teachers.answer_store import Call, ModelAnswer
from cerank.teachers.parsing.choices import (
    Order,
    Preference,
    chosen_letter,
    order_by_log_probability,
    read_grade,
    yes_over_no,
)
from cerank.teachers.parsing.permutations import Permutation, read_permutation
from cerank.teachers.parsing.written_queries import read_query

# an int is a place (setwise, pairwise) or a grade, a text a query
Value: TypeAlias = Permutation | Order | Preference | int | str

REFUSED, CUT_OFF, EMPTY, UNREADABLE = "refused", "cut off", "empty", "unreadable"
_FILTERED = frozenset({"content_filter", "safety", "refusal"})


class Reading(msgspec.Struct, frozen=True):
    """What an answer means: a value, or the reason why it has none."""

    value: Value | None = None
    failure: str = ""


def read(call: Call, answer: ModelAnswer) -> Reading:
    """Return what an answer means for its call."""
    if answer.failure:
        return Reading(failure=answer.failure)
    if answer.refusal or answer.finish.lower() in _FILTERED:
        return Reading(failure=REFUSED)
    value = _value(call, answer)
    is_cut = answer.finish in {"length", "max_tokens"}
    if is_cut and not call.identifiers and not _is_complete(call, value):  # of a token's alternatives none is cut off
        return Reading(failure=CUT_OFF)
    if value is None:
        has_words = bool(answer.text.strip()) or bool(call.identifiers)
        return Reading(failure=UNREADABLE if has_words else EMPTY)
    return Reading(value)


def _value(call: Call, answer: ModelAnswer) -> Value | None:
    if call.kind == "listwise":
        return read_permutation(call.answer_start + answer.text, call.size)
    if call.kind == "first":
        return order_by_log_probability(answer.tokens, call.identifiers)
    if call.kind == "pointwise":
        return yes_over_no(answer.tokens[0]) if answer.tokens and answer.tokens[0] else None
    if call.kind == "graded":
        return read_grade(answer.text)
    if call.kind == "queries":
        return read_query(answer.text) or None
    return chosen_letter(answer.text, call.size)


def _is_complete(call: Call, value: Value | None) -> bool:
    """Return whether an answer that was cut had said all that was asked for before."""
    if isinstance(value, Permutation):
        return value.named == call.size
    return value is not None


def explain(failure: str) -> str:
    """Return a failure's meaning in a sentence for people."""
    return {
        REFUSED: "the server or the model refused to answer",
        CUT_OFF: "the answer was cut off before it was complete (finish_reason length); raise max_output",
        EMPTY: "the answer was empty",
        UNREADABLE: "no ranking, choice, grade or token that was asked for could be found in the answer",
    }.get(failure, failure)
