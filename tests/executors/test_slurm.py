"""Slurm as an executor, with scripted sbatch, squeue, sacct and scancel in place of a cluster's."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.executors.interface import Job, Needs
from cerank.executors.slurm import SlurmExecutor
from cerank.executors.slurm_script import REQUEUE
from cerank.runs import run_store
from tests.executors.conftest import ScriptedSlurm
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for


def jobs(lab: Path, *names: str) -> list[Job]:
    return [Job(name=name, lab=lab, arguments=(f"{lab}/runs/{name}",)) for name in names]


def test_a_script_has_every_option_and_quotes_what_is_not_a_word(tmp_path: Path) -> None:
    options = {
        "partition": "gpu,long",
        "account": "ir",
        "gpus": 2,
        "gpu_type": "a100",
        "cpus": 6,
        "memory": "64G",
        "time": "1-00:00:00",
        "constraint": "a&b",
        "setup": ["module load cuda/12", 'export A="x y"'],
        "container": "apptainer exec --nv c.sif",
        "python": "python3",
        "sbatch": ["--reservation=x"],
    }
    script = SlurmExecutor("big", options).script([Job(name="j", lab=tmp_path, arguments=("/a b/run's",))], ["7"])
    lines = script.splitlines()
    wanted = ("partition=gpu,long", "account=ir", "gres=gpu:a100:2", "cpus-per-task=6", "mem=64G", "time=1-00:00:00")
    assert [text for text in wanted if f"#SBATCH --{text}" not in lines] == []
    assert {"#SBATCH --dependency=afterok:7", "#SBATCH --requeue", "#SBATCH --signal=B:USR2@120"} <= set(lines)
    assert {"#SBATCH --reservation=x", "#SBATCH --constraint=a&b", "module load cuda/12"} <= set(lines)
    (work,) = [line for line in lines if "on_node" in line]
    words = shlex.split(work.partition("exec ")[2].partition(";")[0])
    assert words[:4] == ["apptainer", "exec", "--nv", "c.sif"]
    assert words[4:] == ["python3", "-P", "-m", "cerank.executors.on_node", "/a b/run's"]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_warning_comes_before_a_short_job_is_over_and_not_as_it_starts(tmp_path: Path) -> None:
    script = SlurmExecutor("s", {"time": "1"}).script(jobs(tmp_path, "a"))
    assert "--signal=B:USR2@20" in script


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"partion": "x"}, "partion"),
        ({"gpus": -1}, "gpus"),
        ({"time": "soon"}, "time"),
        ({"partition": "a\n#SBATCH --wrap=x"}, "partition"),
        ({"account": "$(reboot)"}, "account"),
        ({"setup": ["a\nb"]}, "executors.s"),
        ({"sbatch": ["reservation=x"]}, "sbatch"),
    ],
)
def test_an_option_that_sbatch_could_not_take_is_refused_by_its_name(options: dict[str, object], named: str) -> None:
    with refused(UsageError, "executor-option", named):
        SlurmExecutor("s", options)


def test_a_lab_of_any_name_stays_within_its_line_of_the_script(tmp_path: Path) -> None:
    lab = tmp_path / "it's 100%j"
    lines = SlurmExecutor("s", {}).script(jobs(lab, "a")).splitlines()
    assert f'#SBATCH --output="{tmp_path}/it\'s 100%%j/jobs/logs/%j.txt"' in lines


@pytest.mark.parametrize("name", ["a\nreboot", 'a"b', "a\\b", "a\x7fb"])
def test_a_lab_that_no_line_of_a_script_can_name_is_refused(tmp_path: Path, name: str) -> None:
    with refused(UsageError, "executor-option", "lab"):
        SlurmExecutor("s", {}).script(jobs(tmp_path / name, "a"))


def test_several_jobs_are_one_array_with_its_limit_and_a_task_for_each(tmp_path: Path, slurm: ScriptedSlurm) -> None:
    executor = SlurmExecutor("s", {"array_limit": 2})
    submitted = executor.submit(jobs(tmp_path, "a", "b", "c"), ["5_1"])
    assert [job.id for job in submitted] == ["100_0", "100_1", "100_2"]
    (script,) = slurm.scripts()
    assert "#SBATCH --array=0-2%2" in script
    assert "#SBATCH --dependency=afterok:5_1" in script
    assert submitted[2].log == str(tmp_path / "jobs" / "logs" / "100_2.txt")


def test_jobs_inherit_no_token(tmp_path: Path, slurm: ScriptedSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SLURM_JWT", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # of this machine
    monkeypatch.setenv("SBATCH_ACCOUNT", "ours")
    (slurm.folder / "sbatch").write_text(f"#!/bin/sh\nenv >{tmp_path}/env.txt\necho 1\n")
    SlurmExecutor("s", {}).submit(jobs(tmp_path, "a"))
    environment = (tmp_path / "env.txt").read_text()
    assert "SBATCH_ACCOUNT=ours" in environment
    assert "secret" not in environment
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_a_refusal_is_shown_in_slurms_own_words(tmp_path: Path, slurm: ScriptedSlurm) -> None:
    slurm.refuses("sbatch", "sbatch: error: invalid partition specified: nope\n")
    with refused(UsageError, "executor-refused", "executors.s", "invalid partition specified: nope"):
        SlurmExecutor("s", {"partition": "nope"}).submit(jobs(tmp_path, "a"))


def test_without_slurm_on_this_machine_the_missing_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with refused(UsageError, "executor-not-installed", "sbatch"):
        SlurmExecutor("s", {}).submit(jobs(tmp_path, "a"))


def test_one_squeue_tells_how_all_jobs_stand(slurm: ScriptedSlurm) -> None:
    slurm.squeue(
        "7_0|PENDING|Priority|2026-11-28T21:05:00||0|0|",
        "7_1|RUNNING|None|2026-11-28T20:00:00|node1|2|0|",
        "8|PENDING|BeginTime|2026-11-28T20:05:45||1|0|",
        "9|FAILED|NonZeroExitCode|2026-11-28T20:00:00|node2|0|256|",
        "10|NODE_FAIL|None|N/A|node2|0|0|",
        "11|RUNNING|None|N/A|node1|0|0|",
    )
    states = SlurmExecutor("s", {}).states(["7_0", "7_1", "8", "9", "10"])
    assert {job: (state.phase, state.word) for job, state in states.items()} == {
        "7_0": ("pending", "PENDING"),
        "7_1": ("running", "RUNNING"),
        "8": ("pending", "REQUEUED"),
        "9": ("ended", "FAILED"),
        "10": ("ended", "NODE_FAIL"),
    }
    assert (states["7_0"].reason, states["7_0"].start) == ("Priority", "2026-11-28T21:05:00")
    assert (states["7_1"].node, states["7_1"].restarts, states["7_1"].reason) == ("node1", 2, "")
    assert len(slurm.calls("squeue")) == 1
    assert slurm.calls("sacct") == []


def test_sacct_is_asked_for_what_squeue_has_forgotten(slurm: ScriptedSlurm) -> None:
    slurm.squeue("7|RUNNING|None|N/A|node1|0|0|")
    slurm.answers("sacct", "8|CANCELLED by 0|None|2026-11-28T20:00:00|node1|0:15\n")
    states = SlurmExecutor("s", {}).states(["7", "8", "9"])
    assert (states["8"].phase, states["8"].word) == ("ended", "CANCELLED")
    assert "9" not in states
    assert "--jobs=8,9" in slurm.calls("sacct")[0]


def test_a_cluster_without_accounting_leaves_out_what_it_has_forgotten(slurm: ScriptedSlurm) -> None:
    slurm.refuses("sacct", "Slurm accounting storage is disabled\n")
    assert SlurmExecutor("s", {}).states(["8"]) == {}


def test_a_plan_for_a_cluster_gets_its_device_and_the_cores_of_a_job() -> None:
    assert SlurmExecutor("s", {"gpus": 1}).device("auto") == "cuda"
    assert SlurmExecutor("s", {"gpus": 0}).device("auto") == "cpu"
    assert SlurmExecutor("s", {"cpus": 6}).threads(0) == 6
    assert SlurmExecutor("s", {"cpus": 6}).threads(2) == 2
    assert SlurmExecutor("s", {"cpus": 6}).threads(0, 2) == 3
    for options, device in (({"gpus": 0}, "cuda"), ({"gpus": 1}, "cuda:1")):
        with refused(UsageError, "executor-device", device):
            SlurmExecutor("s", options).device(device)


@pytest.mark.parametrize(("code", "requeues"), [(REQUEUE, 1), (0, 0), (75, 0)])
def test_the_script_passes_the_warning_on_and_requeues_only_if_the_node_asks_for_it(
    tmp_path: Path, slurm: ScriptedSlurm, code: int, requeues: int
) -> None:
    """The whole script runs under bash, with a small program in the node's place that waits for the signal."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable} -ISs\nimport pathlib, signal, sys\n"
        f"def end(*_):\n    signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n    sys.exit({code})\n"
        "signal.signal(signal.SIGUSR2, end)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\nsignal.pause()\n"
    )
    program.chmod(0o755)
    (slurm.folder / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.05\n")
    (slurm.folder / "sleep").chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(SlurmExecutor("s", {"python": str(program)}).script(jobs(tmp_path, "a")))
    environ = {"PATH": f"{slurm.folder}:/usr/bin:/bin", "SLURM_JOB_ID": "42"}
    process = subprocess.Popen(["bash", str(script)], env=environ)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == code
    assert slurm.calls("scontrol") == ["scontrol requeue 42"] * requeues


@pytest.mark.parametrize(
    ("options", "setting", "device", "devices"),
    [
        ({}, "", "cuda", ""),
        ({"gpus": 4}, "", "cuda", "4"),
        ({"gpus": 4}, "all", "cuda", "4"),
        ({"gpus": 4}, "2", "cuda", "2"),
        ({"gpus": 4}, "", "cpu", ""),
        ({}, "2", "cuda", "2"),
        ({"gpus": 0}, "2", "cpu", "2"),
    ],
)
def test_a_plan_gets_as_many_devices_as_a_job_gets_gpus_or_the_user_asks_for(
    options: dict[str, object], setting: str, device: str, devices: str
) -> None:
    assert SlurmExecutor("s", options).devices(setting, device) == devices


@pytest.mark.parametrize(
    ("setting", "device", "named"), [("2", "cuda", "1 GPU"), ("0,1", "cuda", "0,1"), ("all", "cpu", "all")]
)
def test_more_devices_than_a_job_gets_and_named_ones_are_refused(setting: str, device: str, named: str) -> None:
    with refused(UsageError, "executor-device", named):
        SlurmExecutor("s", {"gpus": 1}).devices(setting, device)


@pytest.mark.parametrize(
    ("options", "needs", "gres", "cpus"),
    [
        ({}, Needs("cuda", 2, 4), "gpu:2", "8"),
        ({"gpu_type": "a100", "gpus": 4}, Needs("cuda", 1, 4), "gpu:a100:1", "4"),
        ({"cpus": 6}, Needs("cpu", 2, 3), "", "6"),
        ({"cpus": 0}, Needs("cpu", 2, 1), "", "2"),
        ({"gpus": 3}, None, "gpu:3", "4"),
    ],
)
def test_a_job_asks_for_what_its_plan_needs(
    tmp_path: Path, options: dict[str, object], needs: Needs | None, gres: str, cpus: str
) -> None:
    job = Job(name="j", lab=tmp_path, needs=needs)
    lines = SlurmExecutor("s", options).script([job]).splitlines()
    assert [line for line in lines if "gres" in line] == ([f"#SBATCH --gres={gres}"] if gres else [])
    assert f"#SBATCH --cpus-per-task={cpus}" in lines


def test_options_of_the_command_line_are_numbers_only_where_slurm_counts_and_add_up(
    tmp_path: Path, slurm: ScriptedSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_store.create(tmp_path / "lab", plan_for(label="one"), TOML, datetime.now(UTC))
    monkeypatch.setenv("CERANK_LAB", str(tmp_path / "lab"))
    given = ["account=12345", "memory=32000", "partition=1", "time=90", "cpus=3", "sbatch=--hold", "sbatch=--nice=5"]
    app(
        ["resume", "one", "--on", "slurm", *(word for text in given for word in ("--slurm", text))],
        standalone_mode=False,
    )
    (script,) = slurm.scripts()
    wanted = ("account=12345", "mem=32000", "partition=1", "time=90", "cpus-per-task=3", "hold", "nice=5")
    assert [text for text in wanted if f"#SBATCH --{text}" not in script.splitlines()] == []
