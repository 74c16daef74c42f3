"""A run on several devices: one process on each, on the CPU over gloo, with the results of a run in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from cerank.app.plans import plan_of
from cerank.app.run_views.rank_table import rank_table
from cerank.core.metrics import Event
from cerank.errors import ExitCode, RunFailedError, UsageError
from cerank.files import journal, json_records
from cerank.machine import measured_speed
from cerank.machine.devices import Device
from cerank.machine.process_environment import inherited_environment, pinned_environment
from cerank.planning import several_devices, stage_keys
from cerank.planning.several_devices import check_division, parse_devices
from cerank.runs import run_store
from cerank.runs.records import Attempt, Done, Failure
from cerank.scheduler.local_launcher import WORKER
from cerank.training.forward_backward import ForwardBackward
from cerank.worker import __main__ as worker_main
from cerank.worker.ranks import join_ranks, launch_ranks
from cerank.worker.ranks.join_ranks import is_broken_connection
from cerank.worker.run_inputs import RunInputs
from tests.rank_processes import in_processes
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for
from tests.teachers.scripted_server import ScriptedServer
from tests.worker.forked_ranks import by_forks
from tests.worker.small import STAGE, bits_of, small_plan, small_run

CPU = Device("cpu")
GPUS = [Device(f"cuda:{number}", f"GPU-{number}", "H100") for number in range(4)]
UNLIKE = [*GPUS[:3], Device("cuda:3", "GPU-3", "T4")]


@pytest.mark.parametrize(
    ("text", "device", "expected"),
    [
        ("", "cpu", ()),
        ("2", "cpu", ("cpu", "cpu")),
        ("cpu, cpu", "cuda", ("cpu", "cpu")),
        ("2", "cuda", ("cuda", "cuda")),
        ("0,2", "cuda", ("cuda:0", "cuda:2")),
        ("3,", "cuda", ("cuda:3",)),
        ("cuda:1,cuda:0", "cpu", ("cuda:1", "cuda:0")),
        ("all", "cuda", ("cuda:0", "cuda:1", "cuda:2", "cuda:3")),
    ],
)
def test_devices_are_counted_or_named(text, device, expected):
    assert parse_devices(text, device, [*GPUS, CPU]) == expected


@pytest.mark.parametrize(
    ("text", "device", "present", "code", "values"),
    [
        ("all", "cpu", [CPU], "device-not-found", ["no GPU"]),
        ("8", "cuda", [*GPUS, CPU], "device-not-found", ["8 GPUs", "4 GPUs"]),
        ("0,7", "cuda", [*GPUS, CPU], "device-not-found", ["cuda:7"]),
        ("0,0", "cuda", [*GPUS, CPU], "usage", ["cuda:0"]),
        ("0,cpu", "cuda", [*GPUS, CPU], "devices-differ", []),
        ("2,3", "cuda", [*UNLIKE, CPU], "devices-differ", ["H100", "T4"]),
        ("2", "cuda", [*UNLIKE, CPU], "devices-differ", ["H100", "T4"]),
        ("2", "cuda:1", [*GPUS, CPU], "options-conflict", ["cuda:1"]),
        ("9", "cpu", [CPU], "batch-not-divisible", ["9"]),
        ("9", "cuda", None, "batch-not-divisible", ["9"]),
        ("0", "cpu", [CPU], "device-not-found", ["0"]),
        ("two", "cpu", [CPU], "device-not-found", ["two"]),
        ("mps,mps", "cpu", [CPU], "device-not-found", ["mps"]),
    ],
)
def test_devices_that_cannot_share_a_run_are_refused(text, device, present, code, values):
    with refused(UsageError, code, *values):
        parse_devices(text, device, present)


@pytest.fixture
def plan(tmp_path):
    stage = {**STAGE, "steps": 8, "groups_per_step": 5, "in_batch": 2, "validate_every": 4}
    stages = {"contrastive": stage, "distill": {**STAGE, "steps": 6, "groups_per_step": 4, "loss": "ranknet"}}
    stages["distill"] |= {"source": "teacher", "teacher": "oracle"}
    made, settings = small_plan(tmp_path, stages=stages)
    shared = plan_of(made.recipe, msgspec.structs.replace(settings, devices="2"), now=datetime(2026, 1, 2, tzinfo=UTC))
    return made, shared, settings


def test_a_plan_on_several_devices_is_the_same_for_any_number_and_another_than_on_one(plan):
    single, shared, _ = plan
    assert (shared.devices, shared.device, shared.step_shards) == (("cpu", "cpu"), "cpu", 8)
    four = msgspec.structs.replace(shared, devices=("cpu",) * 4)
    assert shared.fingerprint == four.fingerprint != single.fingerprint
    assert stage_keys.stage_keys(shared) == stage_keys.stage_keys(four) != stage_keys.stage_keys(single)
    assert (single.devices, single.step_shards) == ((), 0)
    words = " ".join(several_devices.in_words(shared))
    assert "2 devices" in words
    assert "5 groups" in words
    assert "4 shards" in words
    assert several_devices.in_words(single) == []


def test_a_step_that_the_devices_cannot_share_is_refused(plan):
    single, shared, _ = plan
    check_division(shared.recipe, 8, 4)
    with refused(UsageError, "batch-not-divisible", "8", "contrastive", "5 groups"):
        check_division(shared.recipe, 8, 8)
    with refused(UsageError, "batch-not-divisible", "3"):
        check_division(shared.recipe, 8, 3)
    with refused(UsageError, "run-not-divided"):
        check_division(single.recipe, single.step_shards, 2)


def test_only_errors_of_exchange_count_as_a_lost_connection():
    assert is_broken_connection(RuntimeError("[.../gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
    assert not is_broken_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_processes_on_unlike_devices_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(join_ranks, "gpu_environment", lambda _: {"gpu": ["H100", "T4"][int(os.environ["RANK"])]})

    def work():
        with refused(UsageError, "devices-differ", "rank 1", "T4"), join_ranks.joined_ranks("cpu"):
            raise AssertionError
        return True

    assert in_processes(2, work, tmp_path) == [True, True]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """A function that launches a run on two devices, with something else in place of what checks them and torchrun."""
    run = run_store.create(tmp_path / "lab", plan_for(label="one"), TOML, datetime.now(UTC))
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in signals}
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "")  # so that it is put back
    monkeypatch.setattr(sys, "argv", ["worker", "--devices", "cpu,cpu", str(run.path)])

    def launch(check=lambda *_: None, torchrun=lambda *_: None):
        monkeypatch.setattr(several_devices, "check_division", check)
        monkeypatch.setattr(launch_ranks, "elastic_launch", lambda config, program: torchrun)
        return run, worker_main.main()

    yield launch
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_before_the_processes_are_started_stops_the_run(launched):
    run, code = launched(check=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert (code, run.stop.exists()) == (ExitCode.OK, True)


def test_an_error_of_torchrun_itself_is_the_runs(launched):
    def torchrun(*_):
        raise TimeoutError("no rendezvous")

    run, code = launched(torchrun=torchrun)
    assert (code, run.stop.exists()) == (ExitCode.FAILED, False)
    failure = json_records.load(run.failure, Failure)
    assert (failure.kind, failure.what) == ("crash", "TimeoutError: no rendezvous")


@pytest.fixture
def expected(plan, tmp_path):
    """The bits of a run of the shared plan in one process."""
    run = small_run(tmp_path, plan[1], plan[2], 1)
    assert by_forks(run, 1) == [ExitCode.OK]
    return bits_of(run)


@pytest.mark.slow
def test_a_request_to_stop_pauses_all_processes_and_another_number_goes_on_to_the_same_bits(plan, expected, tmp_path):
    run = small_run(tmp_path, plan[1], plan[2], 2)
    assert by_forks(run, 2, fault=(0, signal.SIGTERM)) == [ExitCode.PAUSED, ExitCode.OK]
    assert not run.failure.exists()
    assert by_forks(run, 4) == [ExitCode.OK] * 4
    assert bits_of(run) == expected
    assert json_records.load(run.attempt(2), Attempt).device == "cpu, cpu, cpu, cpu"
    kinds = {event.kind for event in journal.read_valid_rows(run.events, Event)[0]}
    assert {"ranks joined", "ranks", "ranks shared", "checkpoint saved"} <= kinds
    assert "replay mismatch" not in kinds
    table = rank_table(run, plan[1])
    assert table is not None
    assert [row[:4] for row in table.rows] == [
        (stage, count, rank, "cpu")
        for stage, count in (("contrastive", 2), ("contrastive", 4), ("distill", 4))
        for rank in range(count)
    ]
    assert all(0.4 < row[6] * row[1] < 2.0 and row[5] > 0 for row in table.rows), table.rows
    key = measured_speed.shared_speed_key(plan[1], plan[1].recipe.stages["distill"], 4)
    speed = measured_speed.load_speed(plan[2].cache, key)
    assert speed is not None
    assert speed.train > 0


@pytest.mark.slow
def test_the_error_of_another_process_is_the_runs(plan, tmp_path, monkeypatch):
    real = ForwardBackward.forward

    def forward(self, pairs, position):
        if os.environ.get("RANK") == "1" and position[0] == 5:
            raise RunFailedError("the disk is full", where="/data", hint="free some")
        return real(self, pairs, position)

    monkeypatch.setattr(ForwardBackward, "forward", forward)
    run = small_run(tmp_path, plan[1], plan[2], 3)
    assert by_forks(run, 2) == [ExitCode.FAILED, ExitCode.FAILED]
    failure = json_records.load(run.failure, Failure)
    assert (failure.where, failure.hint) == ("rank 1, /data", "free some")
    assert run.checkpoint_steps(0, "contrastive") == [4]


def test_processes_that_are_started_on_a_finished_run_end(plan, tmp_path):
    """A cluster may start a job again that has just done its work."""
    run = small_run(tmp_path, plan[1], plan[2], 5)
    json_records.save(run.done, Done(time="", attempt=1, seconds=1.0))
    assert by_forks(run, 2) == [ExitCode.OK, ExitCode.OK], run.log.read_text()
    assert run.attempt_numbers() == []


def test_so_do_those_that_torchrun_starts_on_a_finished_run_of_one_device(plan, tmp_path):
    run = small_run(tmp_path, plan[0], plan[2], 6)
    json_records.save(run.done, Done(time="", attempt=1, seconds=1.0))

    def work():
        sys.argv = ["worker", str(run.path)]
        return int(worker_main.main())

    assert in_processes(2, work, run.path) == [ExitCode.OK, ExitCode.OK]


# by torchrun itself: each process imports torch and transformers anew

FAULT = """
import os, signal, sys, threading, time
from pathlib import Path
if os.environ.get("RANK") == "1":
    def fail():
        while Path(os.environ["READINGS"]).read_bytes().count(b'"type":"step"') < 5:
            time.sleep(0.01)
        Path(os.environ["READINGS"]).with_name("fault").touch()
        if os.environ["FAULT"] == "stuck":
            if "STANDSTILL" in os.environ:
                sys.modules["cerank.worker.ranks.rank_signs"].STANDSTILL = float(os.environ["STANDSTILL"])
            passes = sys.modules["cerank.training.forward_backward"].ForwardBackward
            passes.forward = lambda *_: threading.Event().wait()
        else:
            os.kill(os.getpid(), signal.Signals[os.environ["FAULT"]])
    threading.Thread(target=fail, daemon=True).start()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind", "limit"),
    [
        ("SIGKILL", "LostRankError", None),
        ("SIGSTOP", "LostRankError", None),
        ("stuck", "RunFailedError", "6"),
        ("stuck", "RunFailedError", None),  # by the real limit of 45 seconds
    ],
)
def test_a_process_that_dies_is_frozen_or_stuck_ends_the_run_and_is_named(plan, tmp_path, fault, kind, limit):
    run = small_run(tmp_path, plan[1], plan[2], 4)
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    run.readings.touch()
    environment = inherited_environment(os.environ) | pinned_environment(1)
    environment["PYTHONPATH"] = f"{tmp_path}:{environment.get('PYTHONPATH', '')}"
    environment |= {"FAULT": fault, "READINGS": str(run.readings)} | ({} if limit is None else {"STANDSTILL": limit})
    with run.log.open("ab") as log:
        code = subprocess.run(
            [*WORKER, str(run.path)], env=environment, stdout=log, stderr=log, check=False, timeout=600
        ).returncode
    assert code == ExitCode.FAILED
    failure = json_records.load(run.failure, Failure)
    assert (failure.kind, failure.where) == (kind, "rank 1")
    assert ("SIGKILL" in failure.what) == (fault == "SIGKILL")
    assert run.checkpoint_steps(0, "contrastive") == [4]
    if fault == "stuck":
        assert "trainer.py" in failure.what  # whose call it is that does not come back


@pytest.mark.slow
def test_adapters_are_trained_to_the_same_bits_by_any_number_of_processes(tmp_path):
    pytest.importorskip("peft")
    stage = {**STAGE, "steps": 6, "groups_per_step": 4, "validate_every": 3, "learning_rate": 1e-2, "dropout": 0.1}
    stage |= {"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1}}
    made, settings = small_plan(tmp_path, chain=["contrastive"], stages={"contrastive": stage})
    shared = plan_of(made.recipe, msgspec.structs.replace(settings, devices="2"), now=datetime(2026, 1, 2, tzinfo=UTC))
    one, two, four = (small_run(tmp_path, shared, settings, second) for second in (5, 6, 7))
    assert by_forks(one, 1) == [ExitCode.OK]
    assert by_forks(two, 2, fault=(0, signal.SIGTERM)) == [ExitCode.PAUSED, ExitCode.OK]
    assert by_forks(two, 1) == [ExitCode.OK]  # resumed by another number
    assert by_forks(four, 4) == [ExitCode.OK] * 4
    assert bits_of(one) == bits_of(two) == bits_of(four)
    assert (one.final(0, "contrastive") / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_only_the_first_process_asks_a_teacher_and_the_others_read_what_it_made(tmp_path, monkeypatch):
    """The server sees which process calls by a key that each process has for itself."""
    monkeypatch.setenv("TEACHER_ACCESS", "none")
    with ScriptedServer() as server:
        short = {**STAGE, "steps": 2, "validate_every": 2, "loss": "ranknet", "source": "teacher", "teacher": "zephyr"}
        teacher = {"kind": "listwise", "model": "m", "server": server.url, "window": 4, "stride": 2, "depth": 8}
        made, settings = small_plan(
            tmp_path,
            chain=["distill"],
            stages={"distill": {**short, "validation_measure": "loss"}},
            teachers={"zephyr": teacher | {"api_key": "TEACHER_ACCESS"}},
        )
        two = plan_of(made.recipe, msgspec.structs.replace(settings, devices="2"), now=datetime(2026, 1, 2, tzinfo=UTC))
        run = small_run(tmp_path, two, settings)
        read = RunInputs.teacher

        def reading(self, name, stage, queries, *, in_validation=False):
            with (run.path / f"read-by-{os.environ['RANK']}").open("a") as file:
                file.write(f"{in_validation}\n")
            return read(self, name, stage, queries, in_validation=in_validation)

        monkeypatch.setattr(RunInputs, "teacher", reading)
        assert by_forks(run, 2, key="TEACHER_ACCESS") == [ExitCode.OK, ExitCode.OK], run.log.read_text()
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer key-of-rank-0"}
    assert set(server.answered.values()) == {1}
    assert [set((run.path / f"read-by-{rank}").read_text().split()) for rank in (0, 1)] == [{"True", "False"}] * 2
