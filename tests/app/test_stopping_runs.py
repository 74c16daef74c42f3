"""A run that was told to stop and has not yet: what resuming it says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cerank.app import Lab
from cerank.errors import UsageError
from cerank.files.lease import Lease
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.settings import Settings
from tests.refusals import refused


def test_resuming_a_run_that_is_stopping_says_to_wait_for_it(tmp_path: Path, plan: Plan, now: datetime) -> None:
    lab = Lab(Settings(lab=tmp_path, cache=tmp_path / "cache", device="cpu", threads=1, format=""))
    folder = run_store.create(tmp_path, plan, b"", now)
    name = run_store.short_name(folder)
    with Lease.take(folder.lease):
        with refused(UsageError, "run-state", "running") as running:
            lab.check_resumable(folder)
        folder.stop.touch()
        with refused(UsageError, "run-state", "stopping") as stopping:
            lab.check_resumable(folder)
    assert running.value.hint == f"cerank stop {name}"
    assert f"cerank stop {name} --wait" in stopping.value.hint
    lab.check_resumable(folder)
