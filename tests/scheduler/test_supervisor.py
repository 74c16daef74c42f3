from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import msgspec
import pytest

from cerank.errors import ExitCode, UsageError
from cerank.files import lease
from cerank.files.lease import Lease
from cerank.runs import queue, run_store
from cerank.runs.layout import QueueFolder, RunFolder
from cerank.scheduler import local_launcher, supervisor
from tests.files.crashes import crash_points
from tests.scheduler.conftest import CPU, GPUS, STANDIN, TOML, Bench, eventually, plan_for


def is_over(bench: Bench) -> bool:
    return bench.lab.queue_state().state == "idle"


def test_queued_runs_start_in_order_one_at_a_time_and_the_supervisor_leaves(bench: Bench) -> None:
    folders = bench.enqueued("quick", "fail", "quick")
    eventually(lambda: is_over(bench))
    assert bench.states(folders) == ["finished", "failed", "finished"]
    assert [len(bench.starts(folder)) for folder in folders] == [1, 1, 1]
    log = QueueFolder(bench.folder).log.read_text()
    assert [log.index(f"{folder.name} started") for folder in folders] == sorted(
        log.index(f"{folder.name} started") for folder in folders
    )
    assert f"{folders[1].name} on cpu ended with 1" in log
    assert not (bench.folder / "overlap").exists()


def test_a_run_that_is_queued_just_as_the_supervisor_leaves_is_started(bench: Bench) -> None:
    own = Lease.take(QueueFolder(bench.folder).lease) if QueueFolder(bench.folder).path.exists() else None
    assert own is None
    for _ in range(3):
        (folder,) = bench.enqueued("quick")
        eventually(lambda folder=folder: bench.state(folder) == "finished")


def test_the_supervisor_gives_its_lease_back_under_the_lock_that_adds_entries(bench: Bench) -> None:
    QueueFolder(bench.folder).path.mkdir(parents=True)
    own = Lease.take(QueueFolder(bench.folder).lease)
    serving = supervisor.Supervisor(bench.folder, (CPU,), STANDIN, {})
    bench.written("a")
    assert not serving.finish_if_idle(own)
    assert lease.is_held(QueueFolder(bench.folder).lease)
    bench.written()
    assert serving.finish_if_idle(own)
    assert not lease.is_held(QueueFolder(bench.folder).lease)


def test_after_a_reboot_nothing_starts_by_itself_and_one_call_starts_what_waits(bench: Bench) -> None:
    folders = [run_store.create(bench.folder, plan_for(), TOML, datetime.now(UTC)) for _ in range(2)]
    bench.written(*(folder.name for folder in folders))
    for _ in range(3):
        state = bench.lab.queue_state()
        assert (state.state, state.running, state.waiting) == ("stopped", False, 2)
        assert bench.states(folders) == ["queued", "queued"]
    assert [bench.starts(folder) for folder in folders] == [[], []]
    bench.lab.start_queue()
    assert bench.lab.queue_state().state == "running"
    eventually(lambda: is_over(bench))
    assert bench.states(folders) == ["finished", "finished"]


def test_a_killed_supervisor_leaves_its_worker_at_work_and_the_next_one_waits_for_it(bench: Bench) -> None:
    first, second = bench.enqueued("hold", "quick")
    eventually(lambda: bench.is_at_work(first))
    bench.kill_supervisor()
    state = bench.lab.queue_state()
    assert (state.state, state.waiting, state.slots[0].run) == ("stopped", 1, first.name)
    bench.lab.start_queue()
    served = QueueFolder(bench.folder).log
    eventually(lambda: served.read_text().count("serving as pid") == 2)
    serving = supervisor.Supervisor(bench.folder, (CPU,), STANDIN, {})
    serving.step()  # what the new one does, many times over
    assert serving.children == []
    assert bench.states([first, second]) == ["running", "queued"]
    bench.release()
    eventually(lambda: is_over(bench))
    assert bench.states([first, second]) == ["finished", "finished"]
    assert [len(bench.starts(folder)) for folder in (first, second)] == [1, 1]
    assert not (bench.folder / "overlap").exists()


@pytest.mark.slow
def test_ten_kills_of_the_supervisor_start_no_run_twice_and_lose_none(bench: Bench) -> None:
    chance = random.Random(4)
    folders = bench.enqueued(*["quick", "fail"] * 6)
    for kill in range(10):
        bench.lab.start_queue()
        before = bench.lab.queue_state().slots[0].run
        if kill % 2:  # between the start of a worker and its first word
            eventually(lambda before=before: queue.run_on_device(bench.folder, "cpu") not in {"", before})
        else:
            deadline = time.monotonic() + chance.uniform(0.0, 0.6)
            eventually(lambda deadline=deadline: time.monotonic() > deadline)
        bench.kill_supervisor()
    bench.lab.start_queue()
    eventually(lambda: is_over(bench), 60)
    assert bench.states(folders) == ["finished", "failed"] * 6
    assert [len(bench.starts(folder)) for folder in folders] == [1] * 12
    assert not (bench.folder / "overlap").exists()
    assert QueueFolder(bench.folder).log.read_text().count("serving as pid") > 5


def test_a_killed_worker_frees_its_device_and_its_run_is_lost_until_it_is_queued_again(bench: Bench) -> None:
    first, second = bench.enqueued("hold", "quick")
    eventually(lambda: bench.is_at_work(first))
    owner = lease.owner(first.lease)
    assert owner is not None
    assert lease.signal_owner(owner, signal.SIGKILL)
    eventually(lambda: bench.state(second) == "finished")
    assert bench.state(first) == "lost"
    bench.release()
    bench.lab.resume_queued(first)
    eventually(lambda: bench.state(first) == "finished")
    assert len(bench.starts(first)) == 2


def test_paused_and_failed_runs_can_be_queued_again_and_finished_ones_not(bench: Bench) -> None:
    paused, failed, finished = bench.enqueued("hold", "fail", "quick")
    eventually(lambda: bench.is_at_work(paused))
    bench.lab.stop(paused)
    eventually(lambda: is_over(bench))
    assert bench.states([paused, failed, finished]) == ["paused", "failed", "finished"]
    bench.release()
    bench.lab.resume_queued(paused)
    bench.lab.resume_queued(failed)
    assert bench.lab.status(failed).text == "" or bench.state(failed) != "queued"
    eventually(lambda: is_over(bench))
    assert bench.states([paused, failed]) == ["finished", "failed"]
    assert [len(bench.starts(folder)) for folder in (paused, failed)] == [2, 2]
    with pytest.raises(UsageError) as caught:
        bench.lab.resume_queued(finished)
    assert caught.value.code == "run-state"


def test_a_worker_that_dies_without_a_word_is_tried_once_and_the_next_goes_on(bench: Bench) -> None:
    mute, good = bench.enqueued("mute", "quick")
    eventually(lambda: is_over(bench))
    assert bench.states([mute, good]) == ["waiting", "finished"]
    assert QueueFolder(bench.folder).log.read_text().count(f"{mute.name} started") == 1


def test_a_run_with_a_damaged_plan_leaves_the_queue_and_the_next_goes_on(bench: Bench) -> None:
    hold, damaged, good = bench.enqueued("hold", "quick", "quick")
    eventually(lambda: bench.is_at_work(hold))
    damaged.plan.write_text("{")
    bench.release()
    eventually(lambda: is_over(bench))
    assert bench.states([damaged, good]) == ["damaged", "finished"]
    assert "cannot be started" in QueueFolder(bench.folder).log.read_text()


def test_a_run_that_was_started_otherwise_keeps_its_device(bench: Bench) -> None:
    direct, worker = bench.lab.start(plan_for(label="hold"), TOML)
    eventually(lambda: bench.is_at_work(direct))
    (queued,) = bench.enqueued("quick")
    serving = supervisor.Supervisor(bench.folder, (CPU,), STANDIN, {})
    serving.step()
    assert serving.children == []
    assert bench.lab.queue_state().slots[0].run == direct.name
    bench.release()
    assert worker.wait(30) == 0
    eventually(lambda: bench.state(queued) == "finished")
    assert not (bench.folder / "overlap").exists()


def test_each_gpu_takes_one_run_that_sees_it_alone_and_the_cpu_one_beside(bench: Bench) -> None:
    bench.lab = bench.opened((*GPUS, CPU))
    gpu_runs = bench.enqueued("hold", "hold", "hold", device="cuda")
    (cpu_run,) = bench.enqueued("hold")
    eventually(lambda: all(bench.is_at_work(folder) for folder in (*gpu_runs[:2], cpu_run)))
    assert bench.state(gpu_runs[2]) == "queued"
    slots = {slot.device: slot.run for slot in bench.lab.queue_state().slots}
    assert slots == {"cuda:0": gpu_runs[0].name, "cuda:1": gpu_runs[1].name, "cpu": cpu_run.name}
    seen = [bench.starts(folder)[0].text.partition("DEVICES=")[2] for folder in gpu_runs[:2]]
    assert seen == ["GPU-aa", "GPU-bb"]
    bench.release()
    eventually(lambda: is_over(bench))
    assert not (bench.folder / "overlap").exists()


def test_a_run_for_any_gpu_leaves_the_one_that_another_asks_for_by_number(bench: Bench) -> None:
    bench.lab = bench.opened(GPUS)
    now = datetime.now(UTC)
    anywhere, first = (
        run_store.create(bench.folder, plan_for(asked, "hold"), TOML, now) for asked in ("cuda", "cuda:0")
    )
    bench.written(anywhere.name, first.name)
    (second,) = bench.enqueued("hold", device="cuda:0")
    eventually(lambda: bench.is_at_work(anywhere) and bench.is_at_work(first))
    assert bench.state(second) == "queued"
    assert bench.starts(anywhere)[0].text.endswith("=GPU-bb")
    assert bench.starts(first)[0].text.endswith("=GPU-aa,GPU-bb")
    bench.release()
    eventually(lambda: is_over(bench))
    assert bench.states([anywhere, first, second]) == ["finished"] * 3


def test_a_run_on_two_gpus_takes_both_at_once_and_no_later_run_overtakes_it(bench: Bench) -> None:
    bench.lab = bench.opened((*GPUS, CPU))
    (first,) = bench.enqueued("hold", device="cuda")
    eventually(lambda: bench.is_at_work(first))
    plan = msgspec.structs.replace(plan_for("cuda"), devices=("cuda", "cuda"), step_shards=8)
    both = bench.lab.enqueue(plan, TOML)
    (later,) = bench.enqueued("quick", device="cuda")
    (beside,) = bench.enqueued("hold", device="cpu")
    eventually(lambda: bench.is_at_work(beside))
    assert bench.states([first, both, later]) == ["running", "queued", "queued"]
    bench.release()
    eventually(lambda: bench.states([both, later]) == ["finished", "finished"])
    log = QueueFolder(bench.folder).log.read_text()
    assert log.index(f"{both.name} started on cuda:0, cuda:1") < log.index(f"{later.name} started")


def test_runs_for_devices_that_went_away_wait_and_keep_nobody_busy(bench: Bench) -> None:
    bench.lab = bench.opened(GPUS)
    folder = run_store.create(bench.folder, plan_for("cuda:7"), TOML, datetime.now(UTC))
    bench.written(folder.name)
    (other,) = bench.enqueued("quick", device="cuda")
    eventually(lambda: not bench.lab.queue_state().running)
    assert bench.states([folder, other]) == ["queued", "finished"]
    assert "not here: 1" in QueueFolder(bench.folder).log.read_text()


def test_stopping_a_run_whose_worker_is_just_being_started_stops_it(bench: Bench) -> None:
    (folder,) = bench.enqueued("hold")
    eventually(lambda: queue.run_on_device(bench.folder, "cpu") == folder.name)
    bench.lab.stop(folder)
    eventually(lambda: is_over(bench))
    assert bench.state(folder) == "paused"


def test_a_second_supervisor_leaves_at_once(bench: Bench) -> None:
    bench.enqueued("hold")
    command = [sys.executable, "-m", "cerank.scheduler.supervisor", str(bench.folder)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode == ExitCode.HELD
    assert "held by pid" in second.stdout


def test_a_log_that_grew_large_begins_anew(bench: Bench) -> None:
    files = QueueFolder(bench.folder)
    files.path.mkdir(parents=True)
    files.log.write_bytes(b"x" * (1 << 20) + b"\n")
    bench.enqueued("quick")
    eventually(lambda: is_over(bench))
    assert 0 < files.log.stat().st_size < 10_000


def test_an_entry_is_spent_by_any_start_after_it_was_queued(bench: Bench) -> None:
    folder = run_store.create(bench.folder, plan_for(label="fail"), TOML, datetime.now(UTC))
    bench.written(folder.name)
    assert local_launcher.start(plan_for(), folder, command=STANDIN).wait(30) == ExitCode.FAILED
    assert bench.state(folder) == "failed"
    assert bench.lab.queued() == []
    serving = supervisor.Supervisor(bench.folder, (CPU,), STANDIN, {})
    serving.step()
    assert serving.children == []
    assert queue.entries(bench.folder) == ()


def test_a_slot_whose_note_is_damaged_is_still_taken(bench: Bench) -> None:
    slot = queue.take_device(bench.folder, "cpu", "some-run")
    assert slot is not None
    assert queue.run_on_device(bench.folder, "cpu") == "some-run"
    QueueFolder(bench.folder).assignment("cpu").write_text("{")
    assert queue.run_on_device(bench.folder, "cpu") == "?"
    assert queue.take_device(bench.folder, "cpu", "another") is None
    slot.release()
    assert queue.run_on_device(bench.folder, "cpu") == ""


def test_runs_of_an_unreadable_kind_use_no_device(bench: Bench) -> None:
    broken = RunFolder(bench.folder / "runs" / "broken")
    broken.path.mkdir(parents=True)
    with Lease.take(broken.lease):
        assert bench.lab.queue_state().slots[0].run == ""


def test_a_queue_that_cannot_start_a_worker_stops_and_keeps_its_entries(bench: Bench) -> None:
    bench.lab.worker = (str(bench.folder / "no-such-program"),)
    (folder,) = bench.enqueued("quick")
    eventually(lambda: bench.lab.queue_state().state == "stopped")
    assert bench.lab.queued() == [folder]
    assert "no such file" in QueueFolder(bench.folder).log.read_text()
    bench.lab = bench.opened((CPU,))
    bench.lab.start_queue()
    eventually(lambda: bench.state(folder) == "finished")


@pytest.mark.slow
def test_a_supervisor_cut_at_any_disk_operation_starts_the_run_once_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "REFRESH_SECONDS", 0.0)
    made: list[RunFolder] = []

    def before() -> None:
        made.append(run_store.create(bench.folder, plan_for(label="fail"), TOML, datetime.now(UTC)))
        bench.written(made[-1].name)

    def over(serving: supervisor.Supervisor) -> bool:
        serving.step()
        return not serving.children and queue.entries(bench.folder) == ()

    def act() -> None:
        serving = supervisor.Supervisor(bench.folder, (CPU,), STANDIN, {})
        eventually(lambda: over(serving))

    points = 0
    for _ in crash_points(act, before):
        successor = supervisor.Supervisor(bench.folder, (CPU,), STANDIN, {})
        eventually(lambda successor=successor: over(successor))
        eventually(lambda: bench.state(made[-1]) == "failed")  # an orphan's entry is spent before it ends
        assert len(bench.starts(made[-1])) == 1
        points += 1
    assert points > 10
