"""What the stages of a run cost: training time, pairs, and how fast each re-ranked.

Invariant: read from journals that no result depends on; a step or a piece of a re-ranking that was done again after a
stop is counted once, as it was done first, so a resumed run costs what one that was never stopped does.
"""

from __future__ import annotations

import msgspec

from cerank.core.metrics import Scoring, StepMetrics
from cerank.files import journal, json_records
from cerank.files.disk import DamagedError
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import ReusedStage, TeacherCost
from cerank.text.table_data import Column, Table

NOTE = (
    "training time: steps and validations, each counted once however often the run was stopped; without loading, "
    "indexing and a teacher's lists"
)


class StageCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage took; a figure that is not known is None."""

    stage: str
    seconds: float | None  # of training, validations included
    validation_seconds: float | None
    steps: int
    pairs: int  # query-document pairs that training took through the model, forward and backward
    reranked: int  # pairs that re-ranking took through the model
    reranking_seconds: float
    reused_from: str = ""  # the run that trained it, whose cost this is; "" where it was trained here
    forward_pairs: int = 0  # pairs that went forward alone in training, for a filter to choose groups
    teacher: TeacherCost = TeacherCost()  # of the answers that its teacher's lists or labels rest on

    @property
    def pairs_per_second(self) -> float | None:
        """Return the speed of re-ranking; None where nothing was computed, or an earlier release did not record it."""
        return self.reranked / self.reranking_seconds if self.reranking_seconds > 0 else None


def of_run(folder: RunFolder, plan: Plan) -> tuple[StageCost, ...]:
    """Return the cost of each stage of which something was done, in the chain's order, then that of each baseline."""
    rows: list[ReadingRow]
    rows, _ = journal.read_valid_rows(folder.readings, ReadingRow)
    first: dict[tuple[bool, int, int], ReadingRow] = {}
    for row in rows:
        first.setdefault((isinstance(row, StepMetrics), row.stage, row.step), row)
    scored = _scorings(folder)
    out = []
    for index, name in enumerate(plan.recipe.chain):
        own = [row for row in first.values() if row.stage == index]
        steps = [row for row in own if isinstance(row, StepMetrics)]
        source_run = _source_run(folder, index, name)
        taught = dict.fromkeys(key for key, _ in plan.recipe.sources_of(name))
        pieces = [row for row in scored if row.system == name]
        if source_run is not None and not pieces:
            pieces = [row for row in _scorings(source_run) if row.system == name]
        if not own and not pieces:
            continue
        out.append(
            StageCost(
                stage=name,
                seconds=sum(row.seconds for row in own) if own else None,
                validation_seconds=sum(row.seconds for row in own) - sum(row.seconds for row in steps) if own else None,
                steps=len(steps),
                pairs=sum(row.pairs for row in steps),
                forward_pairs=sum(row.forward_pairs for row in steps),
                reranked=sum(row.pairs for row in pieces),
                reranking_seconds=sum(row.seconds for row in pieces),
                reused_from=run_store.short_name(source_run) if source_run is not None else "",
                teacher=_teacher_cost(source_run or folder, *taught, *(f"{key} in validation" for key in taught)),
            )
        )
    for name in plan.recipe.baseline_models():
        if pieces := [row for row in scored if row.system == name]:
            pairs, seconds = sum(row.pairs for row in pieces), sum(row.seconds for row in pieces)
            out.append(
                StageCost(
                    stage=name,
                    seconds=None,
                    validation_seconds=None,
                    steps=0,
                    pairs=0,
                    reranked=pairs,
                    reranking_seconds=seconds,
                )
            )
    for name in plan.recipe.evaluate.teachers:
        tests = [f"{name} on {test} over {first}" for test in plan.recipe.data.test
                 for first in plan.recipe.data.first_stages]  # fmt: skip
        taken = _teacher_cost(folder, *tests)
        if taken.calls:
            out.append(
                StageCost(
                    stage=name, seconds=None, validation_seconds=None, steps=0, pairs=0, reranked=0,
                    reranking_seconds=0.0, teacher=taken,
                )
            )  # fmt: skip
    return tuple(out)


class _TeacherRecord(msgspec.Struct, frozen=True):
    """What is read here of the worker's `MadeRanking`."""

    taken: TeacherCost = TeacherCost()


def _teacher_cost(folder: RunFolder, *names: str) -> TeacherCost:
    """Return what the answers behind several rankings of a run took together."""
    made = []
    for name in names:
        try:
            record = json_records.load_if_there(folder.teacher_record(name), _TeacherRecord)
        except DamagedError:
            continue
        made += [record.taken] if record is not None and record.taken.calls else []
    monies = [taken.money for taken in made]
    return TeacherCost(
        calls=sum(taken.calls for taken in made),
        input_tokens=sum(taken.input_tokens for taken in made),
        output_tokens=sum(taken.output_tokens for taken in made),
        money=None if not made or None in monies else sum(money for money in monies if money is not None),
        currency=made[0].currency if made else "",
    )


def _scorings(folder: RunFolder) -> list[Scoring]:
    """Return what re-rankings took; empty for a run of a release that did not write it down."""
    scorings: list[Scoring]
    scorings, _ = journal.read_valid_rows(folder.scorings, Scoring)
    return scorings


def _source_run(folder: RunFolder, index: int, name: str) -> RunFolder | None:
    """Return the run whose stage was reused."""
    try:
        reused = json_records.load_if_there(folder.reused_stage(index, name), ReusedStage)
    except DamagedError:
        return None
    return RunFolder(folder.path.parent / reused.run) if reused is not None else None


def table(costs: tuple[StageCost, ...], hour_price: float = 0.0) -> Table:
    """Return the costs as a table, the training in money too where an hour of the device has a price."""
    has_reused = any(cost.reused_from for cost in costs)
    has_filter = any(cost.forward_pairs for cost in costs)
    has_calls = any(cost.teacher.calls for cost in costs)
    currency = next((cost.teacher.currency for cost in costs if cost.teacher.currency), "")
    columns = (
        Column("stage", "stage", "name"),
        Column("seconds", "training time", "seconds"),
        Column("pairs", "training pairs", "number", 0),
        *([Column("forward_pairs", "pairs forward only", "number", 0)] if has_filter else []),
        Column("reranking", "re-ranking, pairs/s", "number", 0),
        Column("validation_seconds", "of it validation", "seconds", priority=2),
        Column("steps", "steps", "number", 0, priority=1),
        Column("reranked", "pairs re-ranked", "number", 0, priority=3),
        Column("reused_from", "reused from", "name", priority=0 if has_reused else 4),
        *([Column("money", "money", "number", 2)] if hour_price else []),
        *(
            [
                Column("calls", "teacher's calls", "number", 0),
                Column("tokens", "its tokens", "number", 0, priority=1),
                Column("teacher_money", f"its price {currency}".strip(), "number", 2),
            ]
            if has_calls
            else []
        ),
    )
    rows = tuple(
        (
            cost.stage,
            cost.seconds,
            cost.pairs,
            *([cost.forward_pairs] if has_filter else []),
            cost.pairs_per_second,
            cost.validation_seconds,
            cost.steps,
            cost.reranked,
            cost.reused_from,
            *([None if cost.seconds is None else cost.seconds / 3600 * hour_price] if hour_price else []),
            *(
                [cost.teacher.calls, cost.teacher.input_tokens + cost.teacher.output_tokens, cost.teacher.money]
                if has_calls
                else []
            ),
        )
        for cost in costs
    )
    return Table("cost", columns, rows, "Cost", (NOTE,) if rows else (), empty="no stage has been trained yet")
