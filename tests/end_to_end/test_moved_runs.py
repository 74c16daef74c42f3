"""A paused run that moves to a lab on another machine and ends there with the same bits; a script stands for ssh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from cerank.app.lab import Lab
from cerank.files import journal
from cerank.machine.process_environment import pinned_environment
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder, runs_folder
from tests import ssh_standin
from tests.warm import started
from tests.worker.small import STAGE, bits_of, small_plan, small_run


def worked(run: RunFolder) -> None:
    """Let a worker carry a run out to its end."""
    environ = os.environ | pinned_environment(1)
    done = started("cerank.worker", [run.path], cwd=run.path, environ=environ, output=run.log)
    assert done.returncode == 0, run.log.read_text()


def rows_of(run: RunFolder) -> list[ReadingRow]:
    """Return what each step and validation of a run measured."""
    rows: list[ReadingRow] = journal.read(run.readings, ReadingRow)
    return [msgspec.structs.replace(row, seconds=0.0, attempt=0) for row in rows]


def stop_in_the_second_stage(run: RunFolder) -> None:
    """Start a worker, and stop it when it trains the second stage."""
    command = [sys.executable, "-m", "cerank.worker", str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as worker:
        while not run.readings.exists() or b'"stage":1' not in run.readings.read_bytes():
            assert worker.poll() is None
            time.sleep(0.01)  # a loop that never waits takes the processor from the worker
        assert run_store.request_stop(run)
        assert worker.wait(timeout=300) == 75


@pytest.mark.slow
def test_a_paused_run_gets_its_checkpoints_later_and_ends_elsewhere_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {
        "contrastive": STAGE,
        "distill": {**STAGE, "steps": 100, "loss": "ranknet", "source": "teacher", "teacher": "oracle"},
    }
    plan, settings = small_plan(tmp_path, stages=stages)
    straight, paused = small_run(tmp_path, plan, settings), small_run(tmp_path, plan, settings, second=10)
    worked(straight)
    stop_in_the_second_stage(paused)
    assert Lab(settings).status(paused).state == "paused"

    ssh_standin.put_on_path(tmp_path, monkeypatch)
    environ = os.environ | {"CERANK_CACHE": str(tmp_path / "new cache"), "CERANK_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    address = f"ssh://node{tmp_path}/there"

    def copied(which: str) -> tuple[str, int]:
        words = ["copy", paused.name, address, "--lab", settings.lab, "--checkpoints", which, "--json"]
        done = started("cerank", words, cwd=tmp_path, environ=environ)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        return row["outcome"], row["files"]

    assert copied("none")[0] == "copied"
    copy = RunFolder(runs_folder(tmp_path / "there") / paused.name)
    assert copy.checkpoint_steps(1, "distill") == []
    assert copied("last")[0] == "added"
    steps = copy.checkpoint_steps(1, "distill")
    assert len(steps) == 1
    assert 0 < steps[0] < 100
    assert copied("last") == ("there already", 0)

    # the other machine has neither the first lab nor its cache
    kept, kept_rows = bits_of(straight), rows_of(straight)
    shutil.rmtree(settings.lab)
    shutil.rmtree(settings.cache)
    settings.cache.write_bytes(b"")
    resumed = started("cerank", ["resume", paused.name, "--lab", copy.lab], cwd=tmp_path, environ=environ)
    assert resumed.returncode == 0, resumed.stderr
    assert Lab(msgspec.structs.replace(settings, lab=copy.lab)).status(copy).state == "finished"
    assert rows_of(copy) == kept_rows
    assert bits_of(copy) == kept
