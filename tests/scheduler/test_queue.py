from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.app import Lab
from cerank.errors import HeldError, UsageError
from cerank.files import disk, lease
from cerank.files.disk import DamagedError
from cerank.files.lease import Lease
from cerank.runs import queue
from cerank.runs.layout import QueueFolder, RunFolder
from tests.files.crashes import crash_points
from tests.scheduler.conftest import CPU, TOML, Bench, eventually, plan_for


@pytest.fixture
def waiting(bench: Bench) -> list[RunFolder]:
    """Three runs behind one that holds the only slot; nothing else moves."""
    first, *rest = bench.enqueued("hold", "quick", "quick", "quick")
    eventually(lambda: bench.is_at_work(first))
    eventually(lambda: len(queue.entries(bench.folder)) == 3)
    return rest


def test_queued_runs_are_listed_in_order_and_have_their_own_state(bench: Bench, waiting: list[RunFolder]) -> None:
    assert bench.lab.queued() == waiting
    assert [row.status.state for row in bench.lab.listed()].count("queued") == 3
    state = bench.lab.queue_state()
    assert (state.state, state.waiting, state.slots[0].device) == ("running", 3, "cpu")
    assert state.slots[0].run not in {"", *(folder.name for folder in waiting)}


@pytest.mark.parametrize(
    ("place", "order"),
    [(1, [2, 0, 1]), (2, [0, 2, 1]), (3, [0, 1, 2]), (99, [0, 1, 2]), (0, [2, 0, 1]), (-5, [2, 0, 1])],
)
def test_a_run_moves_to_a_place_and_beyond_the_ends_to_the_end(
    bench: Bench, waiting: list[RunFolder], place: int, order: list[int]
) -> None:
    bench.lab.move(waiting[2], place)
    assert bench.lab.queued() == [waiting[index] for index in order]


def test_what_is_not_queued_cannot_be_moved(bench: Bench, waiting: list[RunFolder]) -> None:
    bench.lab.unqueue(waiting[0])
    with pytest.raises(UsageError) as caught:
        bench.lab.move(waiting[0], 1)
    assert caught.value.code == "not-queued"


def test_stopping_a_queued_run_takes_it_out_and_leaves_it_waiting(bench: Bench, waiting: list[RunFolder]) -> None:
    assert bench.lab.stop(waiting[1]) is False
    assert bench.lab.queued() == [waiting[0], waiting[2]]
    assert bench.state(waiting[1]) == "waiting"
    with pytest.raises(UsageError) as caught:
        bench.lab.stop(waiting[1])
    assert caught.value.code == "run-state"


def test_removing_a_queued_run_removes_its_entry(bench: Bench, waiting: list[RunFolder]) -> None:
    bench.lab.remove(waiting[0])
    assert [entry.run for entry in queue.entries(bench.folder)] == [waiting[1].name, waiting[2].name]


def test_a_run_that_is_deleted_behind_our_back_neither_shows_nor_stops_the_others(
    bench: Bench, waiting: list[RunFolder]
) -> None:
    disk.remove_tree(waiting[0].path)
    assert bench.lab.queued() == waiting[1:]
    bench.release()
    eventually(lambda: bench.states(waiting[1:]) == ["finished"] * 2)


def test_queueing_a_queued_run_again_is_refused_and_keeps_its_place(bench: Bench, waiting: list[RunFolder]) -> None:
    with pytest.raises(UsageError) as caught:
        bench.lab.resume_queued(waiting[0])
    assert caught.value.code == "run-state"
    queue.add(waiting[0], datetime.now(UTC))
    assert bench.lab.queued() == waiting


def test_resuming_a_queued_run_starts_it_now_and_once(bench: Bench, waiting: list[RunFolder]) -> None:
    worker = bench.lab.resume(waiting[1])
    assert worker.wait(30) == 0
    assert bench.lab.queued() == [waiting[0], waiting[2]]
    bench.release()
    eventually(lambda: bench.states(waiting) == ["finished"] * 3)
    assert [len(bench.starts(folder)) for folder in waiting] == [1, 1, 1]


def test_a_device_that_is_not_here_is_refused_before_a_run_is_made(bench: Bench) -> None:
    for act in (bench.lab.enqueue, bench.lab.create, bench.lab.start):
        with pytest.raises(UsageError) as caught:
            act(plan_for("cuda:3"), TOML)
        assert caught.value.code == "device-not-found"
    assert bench.lab.listed() == []


def test_a_damaged_queue_says_so_and_hides_no_run(bench: Bench) -> None:
    bench.written()
    QueueFolder(bench.folder).entries.write_bytes(b'{"entries":[{"run":"x"')
    with pytest.raises(DamagedError) as caught:
        bench.lab.enqueue(plan_for(), TOML)
    assert str(QueueFolder(bench.folder).entries) in caught.value.where
    assert bench.lab.listed() == []
    assert "queue.json" in bench.lab.queue_state().damage
    folder, worker = bench.lab.start(plan_for(), TOML)
    assert worker.wait(30) == 0
    assert bench.state(folder) == "finished"


ADDER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from cerank.runs import queue
from cerank.runs.layout import RunFolder
lab, who = Path(sys.argv[1]), sys.argv[2]
sys.stdin.read(1)
for number in range(20):
    queue.add(RunFolder(lab / "runs" / f"{who}-{number:02d}"), datetime.now(UTC))
    if number % 3 == 0:
        queue.move(RunFolder(lab / "runs" / f"{who}-{number:02d}"), 1)
    if number % 4 == 3:
        queue.remove(lab, [f"{who}-{number - 1:02d}"])
"""


def test_four_processes_change_the_queue_at_once_and_no_entry_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ADDER, str(tmp_path)]
    adders = [subprocess.Popen([*command, who], stdin=subprocess.PIPE, text=True) for who in "abcd"]
    for adder in adders:
        assert adder.stdin is not None
        adder.stdin.write("x")
        adder.stdin.close()
    assert [adder.wait(60) for adder in adders] == [0, 0, 0, 0]
    names = [entry.run for entry in queue.entries(tmp_path)]
    expected = {f"{who}-{number:02d}" for who in "abcd" for number in range(20) if number % 4 != 2}
    assert len(names) == len(expected)
    assert set(names) == expected


def test_a_change_cut_at_any_disk_operation_leaves_the_queue_before_or_after_it(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    one, two = RunFolder(lab / "runs" / "one"), RunFolder(lab / "runs" / "two")

    def before() -> None:
        disk.remove_tree(lab)
        lab.mkdir()
        queue.add(one, datetime.now(UTC))

    seen = set()
    for _ in crash_points(lambda: queue.add(two, datetime.now(UTC)), before):
        seen.add(tuple(entry.run for entry in queue.entries(lab)))
    assert seen == {("one",), ("one", "two")}


def test_who_hangs_while_changing_the_queue_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PATIENCE", 0.0)
    QueueFolder(tmp_path).path.mkdir()
    with Lease.take(QueueFolder(tmp_path).lock), pytest.raises(HeldError) as caught:
        queue.add(RunFolder(tmp_path / "runs" / "x"), datetime.now(UTC))
    assert str(os.getpid()) in caught.value.what


def test_looking_at_a_lab_without_a_queue_makes_none(tmp_path: Path, bench: Bench) -> None:
    lab = Lab(bench.lab.settings, devices=(CPU,))
    assert lab.queued() == []
    assert lab.queue_state().state == "idle"
    assert not QueueFolder(bench.folder).path.exists()


def test_a_lock_that_was_handed_over_lives_and_dies_with_the_child(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    own = Lease.take(path)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(own.descriptor,))
    own.hand_over()
    with pytest.raises(ValueError, match="released"):
        _ = own.descriptor
    assert lease.is_held(path)
    child.kill()
    child.wait(30)
    assert not lease.is_held(path)


def test_an_adopted_lease_names_its_new_owner_and_is_not_inherited_any_further(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    given = Lease.take(path)
    descriptor = os.dup(given.descriptor)
    os.set_inheritable(descriptor, True)
    path.write_bytes(b"")
    adopted = Lease.from_descriptor(path, descriptor)
    given.hand_over()
    owner = lease.owner(path)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert not os.get_inheritable(descriptor)
    assert lease.is_held(path)
    adopted.release()
    assert not lease.is_held(path)
