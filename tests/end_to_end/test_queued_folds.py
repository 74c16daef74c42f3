"""Folds that are queued beside a run that has the device: they wait, and start by themselves once it is free."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.model_fixtures import write_tiny
from tests.warm import started
from tests.worker.small import STAGE, write_dataset

_PATIENCE = 240.0  # seconds


@pytest.mark.slow
def test_five_folds_wait_for_a_busy_device_and_are_taken_up_one_after_the_other(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base").folder
    data = write_dataset(tmp_path / "data")
    for name, steps in (("tiny", 2), ("long", 100_000)):
        stage = {**STAGE, "steps": steps, "validate_every": min(steps, 1_000)}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in stage.items())
        (tmp_path / f"{name}.toml").write_text(
            f'name = "{name}"\nbase = {json.dumps(str(base))}\npooling = "mean"\nchain = ["contrastive"]\n'
            f'force = ["shared_queries"]\n[data]\ndepth = 5\n[stages.contrastive]\n{lines}'
        )
    places = {"CERANK_LAB": str(tmp_path / "lab"), "CERANK_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}

    def cerank(*words: str) -> tuple[str, str]:
        environ = {**os.environ, **places, "CERANK_DEVICE": "cpu", "CERANK_THREADS": "1"}
        done = started("cerank", words, cwd=tmp_path, environ=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def states() -> dict[str, str]:
        return {row["run"]: row["state"] for row in json.loads(cerank("ps", "--json")[0])}

    def until_all(names: list[str], state: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while {states()[name] for name in names} != {state}:
            assert time.monotonic() < deadline, states()

    (busy,) = cerank("run", "--recipe", "long.toml", "--dataset", str(data), "--detach")[0].split()
    until_all([busy], "running")
    try:
        out, told = cerank("run", "--recipe", "tiny.toml", "--dataset", str(data), "--folds", "5")
        folds = out.split()
        assert len(folds) == 5
        rows = {row["run"]: row["short_name"] for row in json.loads(cerank("ps", "--json")[0])}
        assert rows[busy] in told
        assert {states()[name] for name in folds} == {"queued"}
    finally:
        cerank("stop", busy)
    until_all(folds, "finished")
    assert states()[busy] == "paused"
    begun = [
        json.loads((tmp_path / "lab" / "runs" / name / "attempts" / "1.json").read_text())["started"] for name in folds
    ]
    assert begun == sorted(begun)
    compared, _ = cerank("compare", f"{rows[folds[0]]}@folds:first-stage", f"{rows[folds[0]]}@folds", "--json")
    assert "5 folds" in compared
