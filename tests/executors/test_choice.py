"""Executors by name: this machine, Slurm, Ray, a template, a table of the user's, or a plugin."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from cerank.app import Lab
from cerank.errors import UsageError
from cerank.executors import choice
from cerank.executors.command_template import CommandExecutor
from cerank.executors.interface import GROUP, Job
from cerank.executors.slurm import SlurmExecutor
from cerank.runs.job_records import JobRecord
from cerank.settings import Flags, Settings, resolve
from tests.executors.conftest import MemoryExecutor
from tests.refusals import refused


def settings_of(folder: Path, text: str = "", **changes: Any) -> Settings:
    (folder / "cerank.toml").write_text(text)
    return resolve(Flags(**changes), {}, folder).settings


def test_a_table_of_the_users_names_a_cluster_and_its_options(tmp_path: Path) -> None:
    text = '[executors.bigbox]\nkind = "slurm"\npartition = "a100"\n[executors.slurm]\ncpus = 2\n'
    settings = settings_of(tmp_path, text, executor="bigbox")
    executor = choice.find(settings)
    assert isinstance(executor, SlurmExecutor)
    assert (executor.name, executor.options["partition"]) == ("bigbox", "a100")
    given = choice.find(settings, "slurm", {"time": "4:00:00"})
    assert given is not None
    assert dict(given.options) == {"cpus": 2, "time": "4:00:00"}


def test_this_machine_is_the_default(tmp_path: Path) -> None:
    assert choice.find(settings_of(tmp_path)) is None
    with refused(UsageError, "executor-option", "local"):
        choice.find(settings_of(tmp_path), options={"time": "1"})


@pytest.mark.parametrize(
    ("text", "name", "named"), [("", "slrum", "slurm"), ('[executors.a]\nkind = "slrm"\n', "a", "slrm")]
)
def test_a_wrong_name_or_kind_is_refused_with_the_nearest(tmp_path: Path, text: str, name: str, named: str) -> None:
    with refused(UsageError, "no-executor", named):
        choice.find(settings_of(tmp_path, text, executor=name))


def test_a_job_is_found_without_the_settings_that_submitted_it() -> None:
    record = JobRecord(executor="bigbox", kind="slurm", id="1", options={"kind": "slurm", "gpus": 0})
    executor = choice.of_job(record)
    assert (executor.name, executor.kind, executor.device("auto")) == ("bigbox", "slurm", "cpu")


def test_a_plugin_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "moon"

        def load(self) -> Any:
            return lambda name, options: MemoryExecutor()

    monkeypatch.setattr(choice, "entry_points", lambda group: [Point()] if group == GROUP else [])
    assert isinstance(choice.find(settings_of(tmp_path, executor="moon")), MemoryExecutor)


def test_a_projects_table_replaces_the_users_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = tmp_path / "config" / "cerank" / "cerank.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[executors.slurm]\npartition = "users"\naccount = "me"\n[executors.other]\nkind = "slurm"\n')
    (tmp_path / "cerank.toml").write_text('[executors.slurm]\npartition = "ours"\n')
    resolved = resolve(Flags(), {}, tmp_path)
    assert resolved.settings.executors == {"slurm": {"partition": "ours"}, "other": {"kind": "slurm"}}
    shown = {entry.key: entry.value for entry in resolved.entries}
    assert shown["executors.slurm"] == "partition ours"


def job(lab: Path) -> Job:
    return Job(name="cerank-a", lab=lab, arguments=("/a b",))


def test_a_template_that_prints_submits_nothing(tmp_path: Path) -> None:
    executor = CommandExecutor("sky", {"template": "sky launch -n {name} -- {command}", "python": "python3"})
    assert executor.line(job(tmp_path)) == "sky launch -n cerank-a -- python3 -P -m cerank.executors.on_node '/a b'"
    assert executor.prints
    assert [submitted.id for submitted in executor.submit([job(tmp_path)])] == [""]


def test_a_path_that_looks_like_a_field_of_the_template_stays_as_it_is(tmp_path: Path) -> None:
    executor = CommandExecutor("k8s", {"template": "{name}: {quoted}", "python": "python3"})
    (word,) = shlex.split(executor.line(Job(name="j", lab=tmp_path, arguments=("/{name}/{command}",))))[1:]
    assert shlex.split(word)[-1] == "/{name}/{command}"


def test_a_template_that_runs_gets_the_command_as_one_word_and_gives_an_id_that_cancels(tmp_path: Path) -> None:
    options = {
        "template": f"printf '%s\\n' {{quoted}} >{tmp_path}/got; echo submitted job-7",
        "action": "run",
        "cancel": f"echo {{id}} >{tmp_path}/canceled",
        "python": "python3",
    }
    executor = CommandExecutor("k8s", options)
    (submitted,) = executor.submit([job(tmp_path)])
    assert submitted.id == "job-7"
    assert (tmp_path / "got").read_text() == "python3 -P -m cerank.executors.on_node '/a b'\n"
    executor.cancel([submitted.id])
    assert (tmp_path / "canceled").read_text() == "job-7\n"


def test_a_template_that_fails_or_has_no_place_for_the_command_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "executor-option", "executors.k8s"):
        CommandExecutor("k8s", {"template": "kubectl apply"})
    with refused(UsageError, "executor-refused", "3", "no quota"):
        CommandExecutor("k8s", {"template": "echo no quota >&2; exit 3 # {command}", "action": "run"}).submit(
            [job(tmp_path)]
        )


def test_only_a_plan_asks_whether_jobs_get_the_device_of_the_settings(tmp_path: Path) -> None:
    lab = Lab(settings_of(tmp_path, executor="slurm", device="cuda:1", lab=str(tmp_path / "lab")))
    assert lab.listed() == []
    with refused(UsageError, "executor-device", "cuda:1"):
        lab.plan_settings()
    assert lab.plan_settings("cpu").device == "cpu"


def test_a_plan_for_a_cluster_has_a_device_for_each_gpu_of_a_job_whatever_this_machine_has(tmp_path: Path) -> None:
    text = '[executors.big]\nkind = "slurm"\ngpus = 2\ncpus = 8\n[executors.r]\nkind = "ray"\ngpus = 0.5\n'
    big = Lab(settings_of(tmp_path, text, executor="big")).plan_settings()
    assert (big.device, big.devices, big.threads) == ("cuda", "2", 4)
    part = Lab(settings_of(tmp_path, text, executor="r")).plan_settings()
    assert (part.device, part.devices, part.threads) == ("cuda", "", 4)
    with refused(UsageError, "executor-device", "2"):
        Lab(settings_of(tmp_path, text, executor="r", devices="2")).plan_settings()
