from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.run_views import label_runs, verdict_summaries
from cerank.app.run_views.run_list import details, goes_with, ordered
from cerank.app.run_views.run_monitor import LabMonitor, state_changes, state_counts
from cerank.app.run_views.run_updates import LogFollower
from cerank.core.metrics import Validation
from cerank.errors import UsageError
from cerank.files import journal
from cerank.runs import queue, run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.run_summaries import LatestValidation
from cerank.scheduler.queue_status import DeviceState, QueueState
from tests.refusals import refused
from tests.tui.labs import NOW, LabFolder, reading


@pytest.fixture
def lab(tmp_path: Path) -> LabFolder:
    (tmp_path / "runs").mkdir()
    return LabFolder(tmp_path)


def test_an_entry_that_did_not_change_is_the_same_object(lab: LabFolder) -> None:
    still, moving = lab.finished(lab.started(lab.run("still"), 5)), lab.started(lab.run("moving"), 5)
    watch = LabMonitor(lab.path)
    first = watch.poll()
    assert [entry.state for entry in first] == ["finished", "lost"]
    second = watch.poll()
    assert all(one is other for one, other in zip(first, second, strict=True))
    lab.failed(moving)
    third = watch.poll()
    assert third[0] is first[0]
    assert third[1].state == "failed"
    assert [(change.before, change.now) for change in state_changes(second, third)] == [("lost", "failed")]
    run_store.remove(still)
    assert [entry.name for entry in watch.poll()] == [moving.name]


def test_a_still_lab_is_not_read_again(lab: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("one", "two", "three"):
        lab.finished(lab.started(lab.run(label), 5))
    watch = LabMonitor(lab.path)
    watch.poll()
    read: list[RunFolder] = []
    row = run_store.row
    monkeypatch.setattr(run_store, "row", lambda folder, now: (read.append(folder), row(folder, now))[1])
    for _ in range(30):
        watch.poll()
    assert len(read) <= 3


def test_an_edit_in_place_is_seen_in_the_end(lab: LabFolder) -> None:
    made = lab.finished(lab.started(lab.run("one"), 5))
    watch = LabMonitor(lab.path)
    watch.poll()
    lab.damaged(made)
    states = {watch.poll()[0].state for _ in range(70)}
    assert states == {"finished", "damaged"}


def test_a_worker_that_dies_is_lost_at_the_next_look(lab: LabFolder) -> None:
    lab.running(lab.started(lab.run("one"), 5))
    watch = LabMonitor(lab.path)
    entry = watch.poll()[0]
    assert (entry.state, entry.at, entry.share) == ("running", "2/2 distill 61%", 0.61)
    lab.close()
    assert watch.poll()[0].state == "lost"


def test_a_queued_run_says_what_it_waits_for_and_stays_the_same_object(lab: LabFolder) -> None:
    busy = lab.running(lab.started(lab.run("busy"), 5))
    for label in ("next", "after that"):
        queue.add(lab.run(label), NOW)
    state = QueueState(running=True, waiting=2, slots=(DeviceState("cpu", busy.name),))
    monitor = LabMonitor(lab.path, lambda: state)
    entries = monitor.poll()
    assert entries[1].at.endswith(entries[0].short_name)
    assert monitor.poll()[1] is entries[1]
    state = QueueState(running=True, waiting=2, slots=(DeviceState("cpu", "brisk-otter in /another/lab"),))
    assert monitor.poll()[1].waits_for.endswith("brisk-otter in /another/lab")
    state = QueueState(running=False, waiting=2, slots=(DeviceState("cpu"),))
    assert "cerank queue start" in monitor.poll()[1].waits_for
    state = QueueState(running=True, waiting=2, slots=(DeviceState("cpu"),))
    assert [entry.waits_for for entry in monitor.poll()[1:]] == ["starting", "1 ahead"]
    assert [entry.place for entry in ordered(monitor.poll(), "age", is_falling=True)] == [1, 2, 0]
    names = [entry.short_name for entry in ordered(monitor.poll(), "run", is_falling=True)]
    assert names == sorted(names, reverse=True)  # the order that the heading's arrow says, queued or not


def test_a_stopped_run_says_where(lab: LabFolder) -> None:
    lab.running(lab.started(lab.run("one"), 5), done=18, total=20)
    lab.close()
    assert LabMonitor(lab.path).poll()[0].at == "at distill 18 of 20"


def test_the_newest_validation_is_found_whatever_comes_after_it(lab: LabFolder) -> None:
    made = lab.run("one")
    glance = LatestValidation(made)
    assert glance.refresh() is None
    with journal.Journal(made.readings, ReadingRow) as rows:
        rows.append(Validation(0, 10, {"nDCG@10": 0.1}))
        for step in range(11, 12_000):  # more than a block and its overlap
            rows.append(reading(0, step, 0.5))
        assert glance.refresh() == Validation(0, 10, {"nDCG@10": 0.1})
        rows.append(Validation(0, 20, {"nDCG@10": 0.2}))
        assert glance.refresh() == Validation(0, 20, {"nDCG@10": 0.2})
        rows.append(reading(0, 21, 0.5))
    with made.readings.open("ab") as file:
        file.write(b'{"type":"validation","stage":0,"st')
    assert glance.refresh() == Validation(0, 20, {"nDCG@10": 0.2})
    made.readings.write_bytes(b"")
    assert glance.refresh() is None


def test_states_are_counted_as_signs(lab: LabFolder) -> None:
    lab.run("one")
    lab.finished(lab.started(lab.run("two"), 5))
    lab.finished(lab.started(lab.run("three"), 5))
    assert state_counts(LabMonitor(lab.path).poll()) == "1· 2✔"
    assert state_counts(LabMonitor(lab.path).poll(), as_words=True) == "1 waiting, 2 finished"


def test_notes_stand_beside_the_plan_and_a_broken_one_hides_nothing(lab: LabFolder) -> None:
    made = lab.run("old")
    label_runs.note(made, "  new \x1b name ", "a, b #c a")
    entry = LabMonitor(lab.path).poll()[0]
    assert entry.label == "new ⟨001b⟩ name"
    assert entry.notes.tags == ("a", "b", "c")
    made.user_labels.write_bytes(b"{")
    assert LabMonitor(lab.path).poll()[0].label == "old"
    with refused(UsageError, "label-too-long", 120):
        label_runs.note(made, "x" * 121, "")


def test_what_goes_with_a_run_is_named(lab: LabFolder) -> None:
    made = lab.finished(lab.started(lab.run("one"), 5))
    made.final(0, "contrastive").mkdir(parents=True)
    (made.final(0, "contrastive") / "model.safetensors").write_bytes(b"x" * 2_000_000)
    said = goes_with(LabMonitor(lab.path).poll())
    assert "2.0 MB" in said
    assert "contrastive" in said


def test_facts_say_nothing_twice_and_nothing_empty(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run("one"), 20))
    lab.damaged(lab.run("two"))
    for entry in LabMonitor(lab.path).poll():
        found = details(entry)
        assert len({word for word, _ in found}) == len(found)
        assert all(text for _, text in found)


def test_a_log_is_read_from_its_last_megabyte_and_followed_by_whole_lines(lab: LabFolder) -> None:
    made = lab.started(lab.run("one"), 1)
    made.log.write_bytes(b"old\n" + b"x" * 1_500_000 + b"\nlast\nhal")
    log = LogFollower(made)
    lines = log.poll()
    assert lines[0].startswith("10:00:02 [1] started")
    assert lines[-1] == "last"
    assert "old" not in lines
    assert max(map(len, lines)) <= 2001
    with made.log.open("ab") as file:
        file.write(b"f\n\xff\xfe\n")
    assert log.poll() == ["half", "��"]
    assert log.poll() == []


def test_summaries_that_are_no_longer_wanted_end_their_process(lab: LabFolder, tmp_path: Path) -> None:
    folder = lab.finished(lab.started(lab.run("one"), 5))
    asked: list[bool] = []
    verdict_summaries.compute_in_process(tmp_path / "cache", [folder], lambda: not asked.append(True))
    assert asked
    assert verdict_summaries.load_summary(tmp_path / "cache", folder) is None
