"""A run's answer to the question it was made for: its comparison, what its stages cost, and both in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cerank.domain.plan import Plan
from cerank.errors import CerankError
from cerank.lab import comparisons, costs
from cerank.store import runs
from cerank.store.layout import RunFolder
from cerank.tabular import Column, Table

if TYPE_CHECKING:
    from cerank.evaluate.answers import Answer, Cost
    from cerank.evaluate.compare import Comparison


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A run's comparison with the costs of its stages."""

    found: Comparison
    costs: tuple[costs.StageCost, ...]
    spreads: tuple[str, ...] = ()  # what was planned with beside what was seen

    @property
    def by_stage(self) -> dict[str, Cost]:
        """What training took, by stage, where it is known."""
        from cerank.evaluate.answers import Cost

        return {
            one.stage: Cost(seconds=one.seconds, reused_from=one.reused_from)
            for one in self.costs
            if one.seconds is not None
        }

    @property
    def answers(self) -> tuple[Answer, ...]:
        """An answer for each row of the comparison."""
        from cerank.evaluate.answers import answers

        return answers(self.found, self.by_stage)

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """What a person reads."""
        from cerank.evaluate.answers import paragraphs

        return paragraphs(self.found, self.by_stage)


def of_run(folder: RunFolder) -> Told:
    """Return a run's comparison with the costs of its stages.

    Raises:
        MissingError: no stage of it has been measured yet.
    """
    plan, found = runs.load_plan(folder), comparisons.of_run(folder)
    return Told(found=found, costs=costs.of_run(folder, plan), spreads=_spreads(folder, plan, found))


def _spreads(folder: RunFolder, plan: Plan, found: Comparison) -> tuple[str, ...]:
    """The spreads that the dry run of this plan would have said, beside those seen; none where its data are gone."""
    from cerank.lab import powering

    try:
        return powering.seen(powering.of_plan(plan, folder.lab), found)
    except CerankError:
        return ()


def table(told: Told) -> Table:
    """Return the answers as a table for machines."""
    names = ("dataset", "first_stage", "measure", "left", "right", "verdict", "is_main", "question", "text")
    rows = tuple(tuple(getattr(one, name) for name in names) for one in told.answers)
    return Table("answers", tuple(Column(name, name) for name in names), rows, "Answers")
