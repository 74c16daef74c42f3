"""What the losses of a stage with several came to: each at its start and end, and how their gradients agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from cerank.core.metrics import StepMetrics
from cerank.files import journal
from cerank.recipes.plan import Plan
from cerank.recipes.sections.loss_parts import part_names
from cerank.runs.layout import ReadingRow, RunFolder

SHARE = 0.1  # of a stage's steps, at least one, whose mean stands for its start or end


class StageLoss(msgspec.Struct, frozen=True, kw_only=True):
    """One of the losses that a stage trains."""

    stage: str
    name: str
    weight: float
    learns_from: str  # "labels", or the teacher
    first: float | None  # mean over the first tenth of the steps that were done, before its weight; None for no step
    last: float | None  # over the last tenth
    cosine: float | None  # mean cosine of its gradient with those of the others; None where it was not read


def of_run(folder: RunFolder, plan: Plan) -> tuple[StageLoss, ...]:
    """Return the losses of each stage that trains several; () for a run without such a stage."""
    joint = [index for index, (_, stage) in enumerate(plan.recipe.chained()) if len(stage.losses) > 1]
    if not joint:
        return ()
    rows: list[ReadingRow]
    rows, _ = journal.read_valid_rows(folder.readings, ReadingRow)
    steps = {(row.stage, row.step): row for row in rows if isinstance(row, StepMetrics)}  # as each was done last
    losses = []
    for index in joint:
        name, stage = plan.recipe.chained()[index]
        own = [row for (at, _), row in sorted(steps.items()) if at == index]
        size = max(1, round(SHARE * len(own)))
        for part, called in zip(stage.losses, part_names(stage.losses), strict=True):
            cosines = [value for row in own for pair, value in row.cosines.items() if called in pair.split(", ")]
            losses.append(
                StageLoss(
                    stage=name,
                    name=called,
                    weight=part.weight,
                    learns_from=part.teacher or stage.labels_by or "labels",
                    first=_mean([row.parts[called] for row in own[:size] if called in row.parts]),
                    last=_mean([row.parts[called] for row in own[-size:] if called in row.parts]),
                    cosine=_mean(cosines),
                )
            )
    return tuple(losses)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
