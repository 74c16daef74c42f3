"""What all procedures share: the query they rank, the calls they yield, the outcome they return."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

import msgspec

from cerank.recipes.sections.teacher_specs import NEWER_LIMIT, TeacherSpec
from cerank.teachers import prompts
from cerank.teachers.answer_store import Call
from cerank.teachers.prompts import Template
from cerank.teachers.reading import Value


class Outcome(msgspec.Struct, frozen=True):
    """The candidates of a query in a teacher's order, as places in the order that was given."""

    order: tuple[int, ...]
    scores: tuple[float, ...] = ()  # score of each place, not of each rank; empty if the teacher gives only an order
    text: str = ""  # a query that was written for the only passage


Steps: TypeAlias = Generator[list[Call], Sequence[Value], Outcome]


class PromptedQuery(msgspec.Struct, frozen=True):
    """A query and the texts of its candidates, as prompts show them."""

    id: str
    text: str
    passages: tuple[str, ...]


class Asker(msgspec.Struct, frozen=True):
    """Makes the calls of a teacher."""

    spec: TeacherSpec
    template: Template
    sample: int = 0

    def call(self, query: PromptedQuery, places: Sequence[int], max_output: int, expected: int) -> Call:
        """Return the call that shows the passages at `places`, in that order.

        Args:
            query: query with the texts of its passages.
            places: indexes of the passages to show, in this order.
            max_output: largest number of tokens of the answer, unless the teacher's declaration sets it.
            expected: number of tokens that an answer usually has.
        """
        template = self.template
        reads_tokens = self.spec.kind in {"first", "pointwise"}
        names = tuple(prompts.identifier(template, place) for place in range(len(places)))
        return Call(
            kind=self.spec.kind,
            messages=prompts.fill(template, query.text, [query.passages[place] for place in places]),
            size=len(places),
            max_output=self._most_output(max_output, reads_tokens=reads_tokens),
            expected_output=expected,
            answer_start=template.answer_start,
            identifiers=(names if self.spec.kind == "first" else ("yes", "no")) if reads_tokens else (),
            sample=self.sample,
        )

    def _most_output(self, usual: int, *, reads_tokens: bool) -> int:
        """Return the largest number of tokens of an answer: the declared one, or what its kind needs."""
        other = self.spec.parameters.get(NEWER_LIMIT)
        if isinstance(other, int) and not isinstance(other, bool):
            return other
        return usual if reads_tokens else self.spec.max_output or usual


Procedure: TypeAlias = Callable[[PromptedQuery, Asker], Steps]
