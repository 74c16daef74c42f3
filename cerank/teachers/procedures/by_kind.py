"""Which procedure a teacher's kind stands for."""

from __future__ import annotations

from cerank.recipes.teacher_specs import TeacherSpec
from cerank.teachers.procedures.single_passages import rank_by_scores
from cerank.teachers.procedures.sorting import rank_pairwise, rank_setwise
from cerank.teachers.procedures.steps import Procedure
from cerank.teachers.procedures.windows import rank_by_shuffled_windows, rank_by_windows


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
    raise ValueError(f"a teacher of kind {spec.kind} asks no language model")
