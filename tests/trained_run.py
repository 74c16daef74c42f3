"""A small run that was trained and measured, once for all tests that only read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import pytest

from cerank.files.lease import Lease
from cerank.recipes.plan import Plan
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from tests.worker.small import STAGE, small_plan, small_run

_SHORT = STAGE | {"steps": 4, "validate_every": 4}
SHORT_STAGES = {
    "contrastive": _SHORT,
    "distill": {**_SHORT, "loss": "ranknet", "source": "teacher", "teacher": "oracle"},
}


class TrainedRun(NamedTuple):
    """A finished run of two stages, called "brisk-otter"."""

    folder: RunFolder
    plan: Plan
    settings: Settings


def make_trained(folder, **changes) -> TrainedRun:
    """A run of four steps a stage, carried out in this process."""
    from cerank.worker.__main__ import run_attempt  # it imports torch, and most tests need neither
    from cerank.worker.run_context import StopFlag

    plan, settings = small_plan(folder, stages=SHORT_STAGES, evaluate={"margins": {"nDCG@10": 0.02}}, **changes)
    plan = msgspec.structs.replace(plan, label="brisk-otter")
    run = small_run(folder, plan, settings)
    with Lease.take(run.lease, datetime(2026, 1, 2, tzinfo=UTC)):
        assert run_attempt(run, StopFlag(run.stop)) == 0, run.failure.read_text()
    return TrainedRun(run, plan, settings)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run with a mean-pooled encoder."""
    return make_trained(tmp_path_factory.mktemp("trained"))
