"""On a login node without torch and GPU one plans, submits, lists, compares and stops runs; scripted Slurm below."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cerank.errors import ExitCode
from cerank.recipes import render
from cerank.runs import job_records, run_store
from cerank.runs.layout import RunFolder
from tests.app.made_runs import changed, made_run
from tests.executors.conftest import ScriptedSlurm
from tests.worker.small import small_plan

# Several commands in one process in which torch and transformers cannot be imported; what each printed, as JSON.
COMMANDS = """
import contextlib, io, json, sys
import cerank.cli
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
told = []
for words in json.load(sys.stdin):
    sys.argv, out, err = ["cerank", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cerank.cli.main()
        except SystemExit as end:
            code = end.code
    told.append((code or 0, out.getvalue(), err.getvalue()))
import cerank.tui.app
assert not {"torch", "transformers"} & set(sys.modules)
print(json.dumps(told))
"""


class LoginNode:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def does(self, *commands: str) -> list[tuple[int, str, str]]:
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS],
            input=json.dumps([command.split() for command in commands]),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr
        return [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])]

    @property
    def runs(self) -> dict[str, RunFolder]:
        folders = run_store.folders(self.folder / "lab")
        return {f"{plan.recipe.name} {plan.recipe.seed}": f for f in folders for plan in [run_store.load_plan(f)]}


@pytest.fixture
def node(tmp_path: Path, slurm: ScriptedSlurm) -> LoginNode:
    plan, settings = small_plan(tmp_path)
    (tmp_path / "two.toml").write_text(render(plan.recipe))
    (tmp_path / "three.toml").write_text('extends = "./two.toml"\nname = "three"\n[stages.distill]\nsteps = 9\n')
    (tmp_path / "cerank.toml").write_text(
        'lab = "lab"\ncache = "cache"\n[executors.big]\nkind = "slurm"\ngpus = 0\ncpus = 3\npartition = "cpu"\n'
    )
    for seed in (1, 2):
        made_run(settings, msgspec.structs.replace(changed(plan, seed=seed)), f"made {seed}")
    return LoginNode(tmp_path)


@pytest.mark.thorough
def test_every_command_for_a_cluster_works_without_torch(node: LoginNode, slurm: ScriptedSlurm) -> None:
    slurm.squeue("100|PENDING|Priority|2026-11-28T21:05:00||0|0|", "101_0|RUNNING|None|N/A|node1|0|0|")
    first, second = (node.runs[f"small {seed}"].name for seed in (1, 2))
    told = node.does(
        "run --recipe two.toml --seed 7 --on big --dry-run",
        "run --recipe two.toml --seed 7 --on big --slurm time=4:00:00",
        "run --recipe two.toml --recipe three.toml --seeds 8 --name m --on big",
        "run --recipe two.toml --recipe three.toml --seeds 8 --name m --on big",
        "ps --json",
        f"compare {first} {second} --json",
    )
    assert [code for code, *_ in told] == [0] * 6, told
    assert len(node.runs) == 5  # two made, one alone, two of the matrix; nothing for the dry run or the second asking
    plan = run_store.load_plan(node.runs["small 7"])
    assert (plan.device, plan.threads) == ("cpu", 3)
    alone, stage, array = slurm.scripts()
    assert "#SBATCH --time=4:00:00" in alone
    assert "#SBATCH --partition=cpu" in stage
    assert "--until 0" in stage
    assert "#SBATCH --dependency=afterok:101" in array
    rows = {row["run"]: row for row in json.loads(told[4][1])}
    assert rows[node.runs["small 7"].name]["state"] == "queued"
    assert "Priority" in rows[node.runs["small 7"].name]["why"]
    trainer = job_records.load(node.runs["small 8"])
    assert trainer is not None
    assert trainer.ids == ("101", "102_0")


@pytest.mark.slow
def test_a_refused_submission_leaves_no_run_and_a_stop_cancels_jobs_that_wait(
    node: LoginNode, slurm: ScriptedSlurm
) -> None:
    slurm.refuses("sbatch", "sbatch: error: invalid partition specified: cpu\n")
    asked = "run --recipe two.toml --seed 7 --on big"
    ((code, _, said),) = node.does(asked)
    assert code == ExitCode.USAGE
    assert "invalid partition specified: cpu" in said
    assert len(node.runs) == 2
    (slurm.folder / "sbatch.err").unlink()
    slurm.squeue("100|PENDING|Priority|N/A||0|0|")
    node.does(asked)
    run = node.runs["small 7"]
    (stopped,) = node.does(f"stop {run.name}")
    assert stopped[0] == 0
    assert slurm.calls("scancel") == ["scancel 100"]
    slurm.squeue("100|CANCELLED|None|N/A||0|0|")
    resumed, wrong, wrong_key = node.does(
        f"resume {run.name} --slurm time=9", "run --recipe two.toml --on bg", "run --recipe two.toml --slurm tme=9"
    )
    assert resumed[0] == 0
    assert "--time=9" in slurm.scripts()[-1]
    assert "--partition=cpu" in slurm.scripts()[-1]
    assert (wrong[0], wrong_key[0]) == (ExitCode.USAGE, ExitCode.USAGE)
    assert "big" in wrong[2]
    assert "tme" in wrong_key[2]


@pytest.mark.slow
def test_a_template_that_prints_gives_a_line_that_carries_the_run_out(node: LoginNode) -> None:
    with (node.folder / "cerank.toml").open("a") as file:
        file.write('[executors.command]\ntemplate = "env A=b {command}"\ndevice = "cpu"\ncpus = 1\n')
    ((code, line, _), (_, listed, _)) = node.does("run --recipe two.toml --seed 7 --on command", "ps --json")
    assert code == 0
    run = node.runs["small 7"]
    rows = {row["run"]: row for row in json.loads(listed)}
    assert rows[run.name]["state"] == "waiting"
    environ = os.environ | {"HF_HUB_OFFLINE": "1"}
    assert subprocess.run(line, shell=True, check=False, env=environ, cwd=node.folder).returncode == 0
    assert run.done.exists()
