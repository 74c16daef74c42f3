"""A run's answer to the question it was made for: its comparison, what its stages cost, and both in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, stage_costs
from cerank.app.comparison.measuring import run_systems
from cerank.app.comparison.named_systems import RunTarget, systems_of
from cerank.app.comparison.several_collections import pool_comparisons, training_domains
from cerank.core.metrics import Event
from cerank.errors import CerankError, UsageError
from cerank.files import journal, json_records
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import DOCUMENTS_CUT
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.answers import Answer, Cost
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.pooling import PooledResult
    from cerank.training.stage_summary import StageSummary


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A run's comparison with the costs of its stages."""

    comparison: Comparison
    costs: tuple[stage_costs.StageCost, ...]
    spreads: tuple[str, ...] = ()  # what was planned with beside what was seen
    no_gains: tuple[str, ...] = ()  # of stages that ended no better in validation than they started
    filters: tuple[str, ...] = ()  # what the filter of each stage that has one came to
    pooled: PooledResult | None = None  # over the test sets, where there are several
    unmeasured: tuple[str, ...] = ()  # systems of the plan that a run which is not finished has yet to measure

    @property
    def by_stage(self) -> dict[str, Cost]:
        """Return what training took, by stage, where it is known."""
        from cerank.evaluation.answers import Cost

        return {
            cost.stage: Cost(seconds=cost.seconds, reused_from=cost.reused_from, calls=cost.teacher.calls)
            for cost in self.costs
            if cost.seconds is not None
        }

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Return an answer for each row of the comparison."""
        from cerank.evaluation.answers import answers

        return answers(self.comparison, self.by_stage)

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """Return the answers as sentences; with several test sets, what they come to together.

        The first one says that a run is not finished: each comparison to come makes the intervals of all others wider.
        """
        from cerank.evaluation.answers import paragraphs

        main = {(answer.measure, answer.left, answer.right) for answer in self.answers if answer.is_main}
        together = pool_comparisons.sentences(self.pooled, main) if self.pooled is not None else ()
        before = (_not_finished(self.unmeasured),) if self.unmeasured else ()
        return (*before, *paragraphs(self.comparison, self.by_stage), *together)


def of_run(folder: RunFolder) -> RunAnswer:
    """Return a run's comparison with the costs of its stages.

    Raises:
        MissingError: no stage of it has been measured yet.
    """
    plan, comparison = run_store.load_plan(folder), comparisons.of_run(folder)
    return RunAnswer(
        comparison=comparison,
        costs=stage_costs.of_run(folder, plan),
        spreads=_spreads(folder, plan, comparison),
        no_gains=_no_gains(folder, plan),
        filters=_filters(folder, plan),
        pooled=_pooled(folder, plan, comparison),
        unmeasured=_unmeasured(folder, plan),
    )


def _unmeasured(folder: RunFolder, plan: Plan) -> tuple[str, ...]:
    """Return the systems that are not measured yet; none once the run is finished."""
    if folder.done.exists():
        return ()
    return tuple(name for name in systems_of(plan) if not run_systems.is_measured(folder, plan, name))


def _not_finished(names: Sequence[str]) -> str:
    are = "is" if len(names) == 1 else "are"
    return (
        f"This run is not finished: {', '.join(names)} {are} not measured yet. Its figures are adjusted for "
        "the comparisons made so far alone, so that intervals, adjusted p and verdicts will change when it ends."
    )


def _pooled(folder: RunFolder, plan: Plan, comparison: Comparison) -> PooledResult | None:
    """Return what the run's test sets come to together; None where there is one, or they cannot be pooled."""
    collections = {row.condition.dataset for row in comparison.rows}
    if len(collections) < 2:
        return None
    runs = [RunTarget(name, folder, plan, name) for name in plan.recipe.chain]
    try:
        return pool_comparisons.pooled_rows(comparison, training_domains.in_domain_of_runs(runs, collections))
    except UsageError:  # such as rows that are all identical, or differ by the same on all queries
        return None


def what_was_read(folder: RunFolder, plan: Plan) -> tuple[str, ...]:
    """Return sentences on what the run's systems read of documents: how many were cut, and how passages were counted.

    Raises:
        DamagedError: a file of the run is damaged.
    """
    from cerank.evaluation.studies.aggregation_choice import AggregationChoice

    events, _ = journal.read_valid_rows(folder.events, Event)
    sentences = list(dict.fromkeys(event.text for event in events if event.kind == DOCUMENTS_CUT))
    for system in (*plan.recipe.baseline_models(), *plan.recipe.chain):
        choice = json_records.load_if_there(folder.aggregation(system), AggregationChoice)
        sentences += [f"{system}: {choice}"] if choice is not None else []
    return tuple(sentences)


def _no_gains(folder: RunFolder, plan: Plan) -> tuple[str, ...]:
    """Return a sentence for each stage that validation shows no better at its end than at its start."""
    return tuple(f"{row.stage}: {row.no_gain}" for row in _summaries(folder, plan) if row.no_gain)


def _filters(folder: RunFolder, plan: Plan) -> tuple[str, ...]:
    """Return a sentence for each stage that had a filter: the passes it made, and whether it saved any."""
    return tuple(f"{row.stage}: {row.filter}" for row in _summaries(folder, plan) if row.filter is not None)


def _summaries(folder: RunFolder, plan: Plan) -> list[StageSummary]:
    from cerank.training import stage_summary

    every = [stage_summary.read(folder.final(index, name)) for index, name in enumerate(plan.recipe.chain)]
    return [row for row in every if row is not None]


def _spreads(folder: RunFolder, plan: Plan, comparison: Comparison) -> tuple[str, ...]:
    """Return the spreads that the dry run of this plan assumed, beside those seen; none where its data are gone."""
    from cerank.app.comparison import power_analysis

    try:
        return power_analysis.seen(power_analysis.of_plan(plan, folder.lab), comparison)
    except CerankError:
        return ()


def table(run_answer: RunAnswer) -> Table:
    """Return the answers as a table for machines."""
    names = ("dataset", "first_stage", "measure", "left", "right", "verdict", "is_main", "question", "text")
    rows = tuple(tuple(getattr(answer, name) for name in names) for answer in run_answer.answers)
    return Table("answers", tuple(Column(name, name) for name in names), rows, "Answers")
