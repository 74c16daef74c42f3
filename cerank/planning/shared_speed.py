"""How fast stages went: rates from the rows of past runs, and the time of work that several devices share.

Invariant: where nobody timed so many devices together, the time is a lower bound, and is called one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cerank.core.metrics import StepMetrics, Validation
from cerank.planning.workload import WorkItem
from cerank.recipes.schema import Stage
from cerank.recipes.sections.filter_specs import FORWARD_COST

SCORING = 3.0  # pairs scored in the time of training on one: the backward pass takes twice the forward pass
LEAST_STEPS = 5  # of one attempt, from which several devices' speed is kept: the first step takes longer


class Rate(msgspec.Struct, frozen=True):
    """Pairs a second through the model."""

    train: float
    score: float


def rate_of_rows(rows: Sequence[StepMetrics | Validation], stage: Stage) -> Rate | None:
    """Return how fast a stage went by the rows of its readings; None where no step was timed."""
    steps = [row for row in rows if isinstance(row, StepMetrics)]
    seconds = sum(row.seconds for row in steps)
    if seconds <= 0:
        return None
    train = sum(row.pairs + FORWARD_COST * row.forward_pairs for row in steps) / seconds
    validations = [row.seconds for row in rows if isinstance(row, Validation) and row.seconds > 0]
    pairs = len(validations) * stage.validation_queries * stage.validation_depth
    # at most: a validation dataset may have fewer queries, and lists be shorter, than the stage asks for
    return Rate(train, min(pairs / sum(validations), SCORING * train) if pairs else SCORING * train)


def shared_work(work: Sequence[WorkItem], devices: int, rates: Mapping[str, Rate]) -> tuple[WorkItem, ...]:
    """Return the work with the minutes that several devices take together; a teacher asks from one.

    Args:
        work: the parts with the time of one device.
        devices: how many share it.
        rates: stage -> speed of so many devices together, where it was measured; other parts are divided evenly.
    """
    shared = []
    for item in work:
        rate, minutes = rates.get(item.stage), item.minutes
        if item.part.startswith("teacher") or devices == 1:
            pass
        elif rate is not None:
            minutes = item.pairs / (rate.train if item.part.startswith("train ") else rate.score) / 60
        elif minutes is not None:
            minutes = minutes / devices
        shared.append(msgspec.structs.replace(item, minutes=minutes))
    return tuple(shared)
