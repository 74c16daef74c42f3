"""Choose the procedure for a kind of teacher; pointwise and graded teachers score each passage by itself."""

from __future__ import annotations

from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.parsing.choices import Preference
from cerank.teachers.procedures.sorting import rank_pairwise, rank_setwise
from cerank.teachers.procedures.steps import Asker, Outcome, Procedure, PromptedQuery, Steps
from cerank.teachers.procedures.windows import rank_by_shuffled_windows, rank_by_windows

_WRITTEN_OUTPUT = 96  # tokens; a query has about a dozen
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


def write_query(query: PromptedQuery, asker: Asker) -> Steps:
    """Have a query written for the one passage that `query` holds."""
    (value,) = yield [asker.call(query, (0,), _WRITTEN_OUTPUT, 14)]
    if not isinstance(value, str):
        raise TypeError(f"a query is a text, not {value!r}")
    return Outcome((0,), text=value)


def procedure_of(spec: TeacherSpec) -> Procedure:
    """Return the procedure of a teacher that asks a language model.

    Raises:
        ValueError: the kind asks none, which is an internal error.
    """
    if spec.kind in {"listwise", "first"}:
        return rank_by_shuffled_windows if spec.shuffles > 1 else rank_by_windows
    if spec.kind == "setwise":
        return rank_setwise
    if spec.kind == "pairwise":
        return rank_pairwise
    if spec.kind in {"pointwise", "graded"}:
        return rank_by_scores
    if spec.kind == "queries":
        return write_query
    raise ValueError(f"a teacher of kind {spec.kind} asks no language model")
