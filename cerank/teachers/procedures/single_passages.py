"""Pointwise and graded teachers: a score for each passage by itself."""

from __future__ import annotations

from cerank.teachers.parsing.choices import Preference
from cerank.teachers.procedures.steps import Asker, Outcome, PromptedQuery, Steps

_GRADED_OUTPUT = 400  # tokens; UMBRELA's second prompt explains before it grades


def rank_by_scores(query: PromptedQuery, asker: Asker) -> Steps:
    """Score each passage by itself: the log-odds of yes, or a grade; ties keep the order that was given."""
    is_graded = asker.spec.kind == "graded"
    output, expected = (_GRADED_OUTPUT, 12) if is_graded else (1, 1)
    calls = [asker.call(query, (place,), output, expected) for place in range(len(query.passages))]
    values = (yield calls) if calls else []
    scores = []
    for value in values:
        if isinstance(value, Preference):
            scores.append(value.log_odds)
        elif isinstance(value, int):
            scores.append(float(value))
        else:
            raise TypeError(f"a passage is answered by a score, not by {value!r}")
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return Outcome(tuple(order), tuple(scores))
