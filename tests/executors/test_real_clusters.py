"""The same runs on a real Slurm and a real Ray as here: every file is the same. Skipped where there is none.

A Slurm counts as there if sinfo answers; the temporary folder must be seen from its nodes (TMPDIR may name one).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cerank.app import Lab
from cerank.app.plans import plan_of
from cerank.errors import UsageError
from cerank.files import json_records, lease, lease_files
from cerank.recipes.plan import Plan
from cerank.runs import job_records
from cerank.runs.job_records import JobRecord
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt, Failure
from tests.refusals import refused
from tests.worker.small import STAGE, bits_of, small_plan

pytestmark = pytest.mark.slow


def slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    try:
        return (
            subprocess.run(["sinfo", "--noheader"], check=False, capture_output=True, timeout=20).stdout.strip() != b""
        )
    except subprocess.TimeoutExpired:
        return False


needs_slurm = pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


def eventually(holds: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)


class Place:
    """A plan of two short stages, and labs: one for a cluster and one for this machine."""

    def __init__(self, folder: Path, kind: str, options: dict[str, Any]) -> None:
        short = STAGE | {"steps": 40, "validate_every": 20}
        distill = {**short, "loss": "ranknet", "source": "teacher", "teacher": "oracle"}
        plan, settings = small_plan(folder, stages={"contrastive": short, "distill": distill})
        self.plan = msgspec.structs.replace(plan, shares=True)
        self.there = Lab(msgspec.structs.replace(settings, executor=kind, executors={kind: options}))
        self.here = Lab(msgspec.structs.replace(settings, lab=folder / "here"))

    def other(self) -> Plan:
        """A plan that shares the first stage."""
        recipe = self.plan.recipe
        stage = msgspec.structs.replace(recipe.stages["distill"], steps=20)
        stages = {**recipe.stages, "distill": stage}
        return msgspec.structs.replace(self.plan, recipe=msgspec.structs.replace(recipe, name="other", stages=stages))

    def local_bits(self, plan: Plan) -> dict[str, bytes]:
        folder, worker = self.here.start(plan, b"")
        assert worker.wait() == 0
        return weights_and_rankings(folder)

    def is_finished(self, *folders: RunFolder) -> bool:
        self.there.refresh_jobs()
        states = [self.there.status(folder) for folder in folders]
        assert all(status.state != "failed" for status in states), [status.text for status in states]
        return all(status.state == "finished" for status in states)


def weights_and_rankings(folder: RunFolder) -> dict[str, bytes]:
    """Every file that two runs of a plan share, also where one of them did not train a stage itself."""
    endings = (".safetensors", ".run.gz", ".jsonl")
    files = bits_of(folder).items()
    return {name: data for name, data in files if name.endswith(endings) and "/checkpoints/" not in name}


def starts_of(folder: RunFolder) -> int:
    return len(folder.attempt_numbers())


@pytest.fixture
def slurm_place(tmp_path: Path) -> Place:
    return Place(tmp_path, "slurm", {"gpus": 0, "cpus": 1, "time": "10", "warn_seconds": 60})


@needs_slurm
def test_two_runs_that_share_a_stage_train_it_once_on_slurm_and_give_the_bits_of_this_machine(
    slurm_place: Place,
) -> None:
    place = slurm_place
    folders = [place.there.create(plan, b"") for plan in (place.plan, place.other())]
    place.there.submit(folders)
    eventually(lambda: place.is_finished(*folders))
    assert [folder.reused_stage(0, "contrastive").exists() for folder in folders] == [False, True]
    for folder, plan in zip(folders, (place.plan, place.other()), strict=True):
        assert weights_and_rankings(folder) == place.local_bits(msgspec.structs.replace(plan, shares=False))


@needs_slurm
@pytest.mark.parametrize("how", ["scancel --signal=USR2 --batch", "scontrol requeue"])
def test_a_job_that_is_warned_or_requeued_in_training_continues_bit_for_bit(slurm_place: Place, how: str) -> None:
    place = slurm_place
    recipe = place.plan.recipe
    long = msgspec.structs.replace(recipe.stages["contrastive"], steps=800, validate_every=400)
    stages = {**recipe.stages, "contrastive": long}
    plan = msgspec.structs.replace(place.plan, recipe=msgspec.structs.replace(recipe, stages=stages))
    folder, record = place.there.start_elsewhere(plan, b"")
    eventually(lambda: folder.readings.exists() and folder.readings.stat().st_size > 5000)
    subprocess.run([*how.split(), record.id], check=True)
    eventually(lambda: place.there.status(folder).state == "queued")
    eventually(lambda: place.is_finished(folder))
    assert starts_of(folder) == 2
    assert weights_and_rankings(folder) == place.local_bits(msgspec.structs.replace(plan, shares=False))


AS_NODE = """#!/bin/sh
# runs the rest in a machine of the node's name; the clock of every machine but the first is ten minutes late
hostname "$SLURMD_NODENAME"
if [ "$SLURMD_NODENAME" != {first} ]; then
  export LD_PRELOAD={library} FAKETIME=-10m NO_FAKE_STAT=1 FAKETIME_DONT_FAKE_MONOTONIC=1
fi
exec "$@"
"""


def place_says(place: Place, folder: RunFolder) -> str:
    """How a run stands, asked for anew."""
    place.there.refresh_jobs(force=True)
    status = place.there.status(folder)
    return f"{status.state} {status.text}"


def nodes() -> list[str]:
    found = subprocess.run(["sinfo", "-h", "-N", "-o", "%N"], capture_output=True, text=True, check=False).stdout
    return sorted(set(found.split()))


def kill_machine(record: JobRecord, folder: RunFolder) -> None:
    """Kill what Slurm and the job have there at once, as a power cut would."""
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        is_of_job = f"[{record.id}." in words or str(folder.path) in words
        if process.name.isdigit() and int(process.name) != os.getpid() and is_of_job:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)


@needs_slurm
def test_a_run_whose_node_dies_continues_bit_for_bit_on_a_node_whose_clock_is_ten_minutes_off(
    tmp_path: Path, slurm_place: Place
) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None or os.geteuid() or len(nodes()) < 2:
        pytest.skip("needs two nodes on this machine, faketime, and root, who gives each node a host name")
    as_node = tmp_path / "as-node"
    as_node.write_text(AS_NODE.format(first=nodes()[0], library=library))
    as_node.chmod(0o755)
    options = {"container": f"unshare --uts {as_node}", "setup": [f"export {lease_files.SHARED}=1"]}
    lab = Lab(slurm_place.there.settings, options=options)
    recipe = slurm_place.plan.recipe
    long = msgspec.structs.replace(recipe.stages["contrastive"], steps=400, validate_every=50)
    stages = {**recipe.stages, "contrastive": long}
    plan = msgspec.structs.replace(slurm_place.plan, recipe=msgspec.structs.replace(recipe, stages=stages))
    folder, record = lab.start_elsewhere(plan, b"")
    eventually(lambda: len(folder.checkpoint_steps(0, "contrastive")) > 0)
    dead = json_records.load(folder.attempt(1), Attempt).hostname
    assert dead in nodes()
    kill_machine(record, folder)
    for state in ("DOWN", "DRAIN"):  # the second, or it would come back at once: its slurmd answers
        subprocess.run(["scontrol", "update", f"NodeName={dead}", f"State={state}", "Reason=test"], check=True)
    try:
        eventually(lambda: place_says(slurm_place, folder).startswith("queued"))
        subprocess.run(["scontrol", "update", f"JobId={record.id}", "StartTime=now"], check=True)  # not in 2 minutes
        eventually(lambda: slurm_place.is_finished(folder))
    finally:
        subprocess.run(["scontrol", "update", f"NodeName={dead}", "State=RESUME"], check=True)
    second = json_records.load(folder.attempt(2), Attempt).hostname
    assert (second in nodes(), second != dead, starts_of(folder)) == (True, True, 2)
    assert weights_and_rankings(folder) == slurm_place.local_bits(msgspec.structs.replace(plan, shares=False))


def slurmd_of(node: str) -> tuple[int, list[str]]:
    """The process of a node's slurmd on this machine, and its words; 0 where there is none."""
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        if words and Path(words[0]).name == "slurmd" and (node in words or f"-N{node}" in words):
            return int(process.name), words
    return 0, []


@needs_slurm
@pytest.mark.parametrize("is_seen", [False, True], ids=["soon back", "node down, job requeued"])
def test_a_run_whose_slurmd_is_killed_ends_with_the_bits_of_this_machine(slurm_place: Place, is_seen: bool) -> None:
    recipe = slurm_place.plan.recipe
    long = msgspec.structs.replace(recipe.stages["contrastive"], steps=800, validate_every=50)
    stages = {**recipe.stages, "contrastive": long}
    plan = msgspec.structs.replace(slurm_place.plan, recipe=msgspec.structs.replace(recipe, stages=stages))
    folder, record = slurm_place.there.start_elsewhere(plan, b"")
    eventually(lambda: len(folder.checkpoint_steps(0, "contrastive")) > 0)
    told = subprocess.run(["squeue", "-h", "-j", record.id, "-o", "%N"], capture_output=True, text=True, check=True)
    node = told.stdout.strip()
    process, words = slurmd_of(node)
    if not process or os.geteuid():
        pytest.skip("needs root, and a slurmd with its node's name (-N) on this machine")
    os.kill(process, signal.SIGKILL)  # the job itself lives on, as it does where only the daemon crashed
    try:
        if is_seen:  # what slurmctld finds out by itself after SlurmdTimeout, five minutes
            subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test"], check=True)
            # queued again while its first worker still has the run: two never write at once
            subprocess.run(["scontrol", "update", f"JobId={record.id}", "StartTime=now"], check=False)
        eventually(lambda: slurm_place.is_finished(folder))
    finally:
        subprocess.run(words, check=True)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)
    assert starts_of(folder) in {1, 2}
    assert not folder.failure.exists()
    assert weights_and_rankings(folder) == slurm_place.local_bits(msgspec.structs.replace(plan, shares=False))


@needs_slurm
def test_a_wrong_partition_is_refused_and_a_waiting_job_is_canceled(slurm_place: Place) -> None:
    place = slurm_place
    wrong = Lab(place.there.settings, options={"partition": "there-is-none"})
    with refused(UsageError, "executor-refused", "executors.slurm"):
        wrong.start_elsewhere(place.plan, b"")
    assert wrong.listed() == []
    later = Lab(place.there.settings, options={"sbatch": ["--begin=now+1hour"]})
    folder, _ = later.start_elsewhere(place.plan, b"")
    later.refresh_jobs(force=True)
    assert "BeginTime" in later.status(folder).text
    later.stop(folder)
    eventually(lambda: later.refresh_jobs(force=True) or later.status(folder).state == "waiting")


# A cluster of one node that lives until its input ends. `ray start --block` would end it as soon as any of its helpers
# is slow to start, such as the server of interactive clients, which nobody needs here.
RAY_CLUSTER = """
import sys, ray
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=True, dashboard_port=int(sys.argv[1]))
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A cluster of one node."""
    port = 8299
    process = subprocess.Popen(
        [sys.executable, "-c", RAY_CLUSTER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
        text=True,
    )

    def answers() -> bool:
        if process.poll() is not None:
            assert process.stdout is not None
            pytest.skip(f"ray does not start here: {process.stdout.read()[-300:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=5):
            return True
        return False

    eventually(answers)
    yield f"http://127.0.0.1:{port}"
    process.communicate(timeout=60)  # closes its input


@needs_ray
def test_runs_on_ray_take_part_of_a_gpu_are_stopped_resumed_and_give_the_bits_of_this_machine(
    tmp_path: Path, ray_address: str
) -> None:
    place = Place(tmp_path, "ray", {"address": ray_address, "gpus": 0.5, "cpus": 1})
    assert place.there.executor is not None
    assert place.there.executor.device("auto") == "cuda"
    folder = place.there.create(place.plan, b"")  # the plan is for the CPU, which a GPU's node has, too
    (record,) = place.there.submit([folder])
    eventually(lambda: folder.attempt(1).exists())
    place.there.stop(folder)
    eventually(lambda: place.there.status(folder).state in {"paused", "finished"})
    if place.there.status(folder).state == "paused":
        place.there.refresh_jobs(force=True)
        place.there.submit([folder])
    eventually(lambda: place.is_finished(folder))
    assert weights_and_rankings(folder) == place.local_bits(msgspec.structs.replace(place.plan, shares=False))
    newest = job_records.load(folder)
    assert newest is not None
    assert record.log.startswith("ray job logs")
    assert place.there.executor.states([newest.id])[newest.id].word in {"RUNNING", "SUCCEEDED"}


@needs_ray
def test_a_run_of_two_processes_on_ray_is_killed_resumed_and_gives_the_bits_of_this_machine(
    tmp_path: Path, ray_address: str
) -> None:
    place = Place(tmp_path, "ray", {"address": ray_address, "gpus": 0, "cpus": 1})
    there = msgspec.structs.replace(place.there.settings, device="cpu", devices="2")
    settings = Lab(there).plan_settings()
    assert settings.devices == "2"
    plan = plan_of(place.plan.recipe, settings, now=datetime(2026, 1, 2, tzinfo=UTC))
    plan = msgspec.structs.replace(plan, shares=False)
    assert plan.devices == ("cpu", "cpu")
    folder = place.there.create(plan, b"")
    (record,) = place.there.submit([folder])
    eventually(lambda: folder.readings.exists() and folder.readings.stat().st_size > 500)
    owner = lease.owner(folder.lease)
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)  # the first of its processes
    eventually(lambda: place.there.refresh_jobs(force=True) or place.there.status(folder).state == "failed")
    assert json_records.load(folder.failure, Failure).where == "rank 0"
    executor = place.there.executor
    assert executor is not None
    eventually(lambda: executor.states([record.id])[record.id].word == "FAILED")
    place.there.submit([folder])
    eventually(lambda: place.is_finished(folder))
    assert starts_of(folder) == 2
    assert weights_and_rankings(folder) == place.local_bits(plan)


@needs_ray
def test_a_ray_cluster_that_is_away_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path, "ray", {"address": "http://127.0.0.1:1", "gpus": 0})
    with refused(UsageError, "executor-refused", "http://127.0.0.1:1"):
        place.there.start_elsewhere(place.plan, b"")
    assert place.there.listed() == []
