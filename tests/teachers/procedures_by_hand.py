"""Carries out a procedure with a judge in place of a model, and counts its calls."""

from __future__ import annotations

from collections.abc import Callable

from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers import prompts
from cerank.teachers.answer_store import Call
from cerank.teachers.procedures.by_kind import procedure_of
from cerank.teachers.procedures.steps import Asker, Outcome, PromptedQuery
from cerank.teachers.reading import Value

Judge = Callable[[Call, list[int]], Value]  # the call, and the worth of each passage that it shows


def carry_out(spec: TeacherSpec, worth: list[int], judge: Judge) -> tuple[Outcome, list[list[Call]]]:
    """The outcome for passages of these worths, and the calls, batch by batch."""
    query = PromptedQuery("q", "a query", tuple(f"worth {value}." for value in worth))
    steps = procedure_of(spec)(query, Asker(spec, prompts.template_of(spec)))
    batches: list[list[Call]] = []
    try:
        batch = next(steps)
        while True:
            batches.append(batch)
            batch = steps.send([judge(call, shown_worth(call)) for call in batch])
    except StopIteration as end:
        return end.value, batches


def shown_worth(call: Call) -> list[int]:
    """The worths of the passages in a prompt, in its order."""
    words = " ".join(message.content for message in call.messages).replace(".", " ").replace('"', " ").split()
    return [int(words[at + 1]) for at, word in enumerate(words) if word == "worth"]
