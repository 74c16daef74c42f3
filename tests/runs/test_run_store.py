from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from cerank.core.metrics import Event, Progress
from cerank.errors import HeldError, RunFailedError, UsageError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.files.journal import Journal
from cerank.files.lease import Lease
from cerank.recipes.plan import Plan
from cerank.runs import records, run_store, user_labels
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt, Done, Failure
from tests.files.crashes import crash_points
from tests.refusals import refused

RECIPE = b'name = "contrastive"  # as given\r\n'


@pytest.fixture
def run(tmp_path: Path, plan: Plan, now: datetime) -> RunFolder:
    return run_store.create(tmp_path, plan, RECIPE, now)


def started(run: RunFolder, number: int = 1) -> None:
    json_records.save(run.attempt(number), Attempt(number=number, started="2026-11-23T10:43:31+00:00"))


def happened(run: RunFolder, *kinds: str) -> None:
    with Journal(run.events, Event) as out:
        for kind in kinds:
            out.append(Event(kind, "", "2026-11-23T10:43:31+00:00"))


def test_a_new_run_is_named_by_time_recipe_and_base_and_holds_recipe_and_plan(
    run: RunFolder, plan: Plan, tmp_path: Path
) -> None:
    assert re.fullmatch(r"2026-11-23-104331-contrastive-minilm-[0-9a-f]{4}", run.name)
    assert run.path.parent == tmp_path / "runs"
    assert run.recipe.read_bytes() == RECIPE
    assert run_store.load_plan(run) == plan
    assert run_store.load_plan(run).fingerprint == plan.fingerprint


def test_the_same_plan_at_the_same_time_makes_another_run(tmp_path: Path, plan: Plan, now: datetime) -> None:
    names = {run_store.create(tmp_path, plan, RECIPE, now).name for _ in range(5)}
    assert len(names) == 5


def test_a_run_named_by_paths_and_odd_texts_stays_in_its_lab(tmp_path: Path, plan: Plan, now: datetime) -> None:
    recipe = msgspec.structs.replace(plan.recipe, name="../../x\n\x1b", base="/home/me/../models/My Model/")
    made = run_store.create(tmp_path, msgspec.structs.replace(plan, recipe=recipe), RECIPE, now)
    assert made.path.parent == tmp_path / "runs"
    assert re.fullmatch(r"2026-11-23-104331-x-my-model-[0-9a-f]{4}", made.name)


def test_a_run_cut_at_any_disk_operation_of_its_making_is_whole_or_not_listed(
    tmp_path: Path, plan: Plan, now: datetime
) -> None:
    lab = tmp_path / "lab"
    counts = set()
    for _ in crash_points(lambda: run_store.create(lab, plan, RECIPE, now), lambda: disk.remove_tree(lab)):
        rows = run_store.list_runs(lab, now)
        assert all(row.status.state == "waiting" and row.plan == plan for row in rows)
        counts.add(len(rows))
    assert counts == {0, 1}


def test_a_run_cut_at_any_disk_operation_of_its_removal_is_whole_or_not_listed(
    tmp_path: Path, plan: Plan, now: datetime
) -> None:
    lab = tmp_path / "lab"
    made: list[RunFolder] = []
    counts = set()
    for _ in crash_points(
        lambda: run_store.remove(made[-1]), lambda: made.append(run_store.create(lab, plan, RECIPE, now))
    ):
        rows = [row for row in run_store.list_runs(lab, now) if row.folder == made[-1]]
        assert all(row.status.state == "waiting" for row in rows)
        counts.add(len(rows))
        disk.remove_tree(lab)
    assert counts == {0, 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"fingerprint":"","plan":{}}',
        b'{"fingerprint":1,"plan":null}',
        b"[" * 100_000,
    ],
)
def test_a_nonsense_plan_is_damage(run: RunFolder, content: bytes, now: datetime) -> None:
    run.plan.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        run_store.load_plan(run)
    assert caught.value.where == str(run.plan)
    assert run_store.status(run, now).state == "damaged"


def test_a_plan_that_was_edited_is_damage(run: RunFolder) -> None:
    text = run.plan.read_text()
    assert '"seed":42' in text
    run.plan.write_text(text.replace('"seed":42', '"seed":43'))
    with pytest.raises(DamagedError) as caught:
        run_store.load_plan(run)
    assert caught.value.where == str(run.plan)


def test_a_plan_from_before_a_setting_existed_is_read_with_its_default(run: RunFolder, plan: Plan) -> None:
    stored = json_records.load(run.plan, records.StoredPlan)
    older = bytes(stored.plan).replace(b'"pooling":"auto",', b"")
    assert older != bytes(stored.plan)
    again = records.StoredPlan(stored.fingerprint, hashlib.sha256(older).hexdigest(), msgspec.Raw(older))
    run.plan.write_bytes(msgspec.json.encode(again))
    assert run_store.load_plan(run) == plan
    assert run_store.load_plan(run).fingerprint == stored.fingerprint


def test_a_broken_run_is_one_damaged_row_beside_the_others(tmp_path: Path, plan: Plan, now: datetime) -> None:
    good = run_store.create(tmp_path, plan, RECIPE, now)
    bad = [run_store.create(tmp_path, plan, RECIPE, now + timedelta(hours=hour)) for hour in range(1, 6)]
    bad[0].plan.unlink()
    bad[1].done.write_bytes(b"\0\0")
    bad[2].events.write_bytes(b'nonsense\n{"kind":"a","text":"","time":""}\n')
    disk.remove_tree(bad[3].path)
    bad[3].path.mkdir()
    bad[4].plan.unlink()
    bad[4].plan.mkdir()
    (tmp_path / "runs" / "a-file").write_text("not a run")
    (tmp_path / "runs" / "a-link").symlink_to(good.path)
    rows = {row.folder: row.status for row in run_store.list_runs(tmp_path, now)}
    assert set(rows) == {good, *bad}
    assert rows.pop(good).state == "waiting"
    for status in rows.values():
        assert status.state == "damaged"
        assert status.text


def test_an_absent_lab_has_no_runs(tmp_path: Path, now: datetime) -> None:
    assert run_store.list_runs(tmp_path / "nothing", now) == []


def test_a_run_that_was_never_started_waits(run: RunFolder, now: datetime) -> None:
    assert run_store.status(run, now) == run_store.Status(state="waiting")


def test_a_held_run_is_running_and_a_request_makes_it_stopping(run: RunFolder, now: datetime) -> None:
    started(run)
    happened(run, "started")
    json_records.save(run.progress, Progress("train", done=3, total=10))
    with Lease.take(run.lease):
        status = run_store.status(run, now)
        assert (status.state, status.attempts) == ("running", 1)
        assert status.progress == Progress("train", done=3, total=10)
        run.stop.touch()
        assert run_store.status(run, now).state == "stopping"
        run_store.clear_stop(run)
        assert run_store.status(run, now).state == "running"


def test_a_run_whose_worker_said_that_it_paused_is_paused(run: RunFolder, now: datetime) -> None:
    started(run)
    happened(run, "started", "paused")
    assert run_store.status(run, now).state == "paused"
    happened(run, "started")
    assert run_store.status(run, now).state == "lost"


def test_a_run_whose_worker_begins_during_the_look_is_not_lost(
    run: RunFolder, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases: list[Lease] = []
    count = RunFolder.attempt_numbers

    def beginning(folder: RunFolder) -> list[int]:
        if not leases:
            leases.append(Lease.take(folder.lease, now))
            started(folder)
        return count(folder)

    monkeypatch.setattr(RunFolder, "attempt_numbers", beginning)
    assert run_store.status(run, now).state == "running"
    leases[0].release()


def test_a_run_whose_worker_went_without_a_word_is_lost(run: RunFolder, now: datetime) -> None:
    started(run)
    with Lease.take(run.lease):
        json_records.save(run.progress, Progress("train"))
    assert run_store.status(run, now).state == "lost"


def test_a_finished_run_is_finished_even_while_its_worker_is_leaving(run: RunFolder, now: datetime) -> None:
    started(run)
    with Lease.take(run.lease):
        json_records.save(run.done, Done(time="2026-11-23T11:00:00+00:00"))
        assert run_store.status(run, now).state == "finished"
    assert run_store.status(run, now).state == "finished"


def test_a_failed_run_says_why_until_its_failure_is_cleared(run: RunFolder, now: datetime) -> None:
    started(run)
    json_records.save(run.failure, Failure(kind="RunFailedError", what="the loss is NaN", where="step 7", hint="look"))
    status = run_store.status(run, now)
    assert status.state == "failed"
    assert status.text == "step 7: the loss is NaN (look)"
    run_store.clear_failure(run)
    assert run_store.status(run, now).state == "lost"


def test_a_stale_owner_of_this_very_process_makes_no_run_running(run: RunFolder, now: datetime) -> None:
    started(run)
    Lease.take(run.lease).release()  # the owner inside is alive and is us; the lock is free
    assert run_store.status(run, now).state == "lost"
    assert not run_store.request_stop(run)  # and nobody is signaled: we would have died of it


def test_a_worker_on_another_host_counts_as_running_while_it_beats(run: RunFolder) -> None:
    started(run)
    run.lease.write_bytes(b'{"pid":1,"ticks":5,"boot":"b","host":"another.host"}')
    json_records.save(run.progress, Progress("train"))
    beat = datetime.fromtimestamp(run.progress.stat().st_mtime).astimezone()
    assert run_store.status(run, beat + timedelta(seconds=5)).state == "running"
    assert run_store.status(run, beat + timedelta(seconds=60)).state == "lost"


def test_a_clock_that_jumps_changes_no_state_and_gives_no_negative_age(run: RunFolder, now: datetime) -> None:
    started(run)
    json_records.save(run.progress, Progress("train"))
    for days in (-400, -1, 0, 1, 400):
        with Lease.take(run.lease):
            status = run_store.status(run, now + timedelta(days=days))
            assert status.state == "running"
            assert status.seconds_since_heartbeat >= 0
        assert run_store.status(run, now + timedelta(days=days)).state == "lost"


def test_a_broken_beat_is_only_advice(run: RunFolder, now: datetime) -> None:
    run.progress.write_bytes(b"\0")
    status = run_store.status(run, now)
    assert (status.state, status.progress) == ("waiting", None)


@pytest.fixture
def lab(tmp_path: Path, plan: Plan, now: datetime) -> dict[str, RunFolder]:
    """Three runs: two of "contrastive" labeled "first try" and "both", one of "distill" labeled "both"."""
    made = {}
    for hour, (recipe, label) in enumerate(
        [("contrastive", "first try"), ("contrastive", "both"), ("distill", "both")]
    ):
        changed = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, name=recipe), label=label)
        made[f"{recipe} {label}"] = run_store.create(tmp_path, changed, RECIPE, now + timedelta(hours=hour))
    return made


def test_a_run_is_found_by_its_name_a_unique_part_or_its_label(tmp_path: Path, lab: dict[str, RunFolder]) -> None:
    for folder in lab.values():
        assert run_store.find(tmp_path, folder.name) == folder
    assert run_store.find(tmp_path, "distill") == lab["distill both"]
    assert run_store.find(tmp_path, lab["contrastive both"].name[-4:]) == lab["contrastive both"]
    assert run_store.find(tmp_path, "first try") == lab["contrastive first try"]


def test_a_damaged_run_is_still_found_by_its_name(tmp_path: Path, lab: dict[str, RunFolder]) -> None:
    lab["distill both"].plan.unlink()
    assert run_store.find(tmp_path, "distill") == lab["distill both"]


@pytest.mark.parametrize(("text", "key"), [("contrastive", "contrastive"), ("both", "both"), ("2026", "")])
def test_a_text_that_fits_several_runs_is_refused_with_their_names(
    tmp_path: Path, lab: dict[str, RunFolder], text: str, key: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run_store.find(tmp_path, text)
    assert caught.value.code == "run-ambiguous"
    for label, folder in lab.items():
        assert (run_store.short_name(folder) in caught.value.hint) == (key in label)


@pytest.mark.parametrize("text", ["", ".", "..", "../runs", "/", "a/b", "first", "\x00", "\udcff"])
def test_a_text_that_names_no_run_is_refused_and_never_becomes_a_path(
    tmp_path: Path, lab: dict[str, RunFolder], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run_store.find(tmp_path, text)
    assert caught.value.code == "run-not-found"
    assert caught.value.hint


def test_a_misspelled_label_gets_the_nearest_as_a_hint(tmp_path: Path, lab: dict[str, RunFolder]) -> None:
    with pytest.raises(UsageError) as caught:
        run_store.find(tmp_path, "frist try")
    assert caught.value.hint == "did you mean 'first try'?"


def test_no_hint_names_more_than_five_runs(tmp_path: Path, plan: Plan) -> None:
    for number in range(8):
        run_store.create(tmp_path, msgspec.structs.replace(plan, label=f"trial {number}"), b"", datetime.now(UTC))
    for text, few in (("trail", 5), ("qqqq", 0)):
        with pytest.raises(UsageError) as caught:
            run_store.find(tmp_path, text)
        assert caught.value.hint.count("trial") <= few
        assert len(caught.value.hint) < 200


def test_a_file_that_is_missing_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "bm25.run").touch()
    with pytest.raises(UsageError) as caught:
        run_store.find(tmp_path / "lab", str(tmp_path / "bm24.run"))
    assert str(tmp_path / "bm25.run") in caught.value.hint


def test_finding_in_an_empty_lab_says_that_it_is_empty(tmp_path: Path) -> None:
    with refused(UsageError, "run-not-found", "x") as caught:
        run_store.find(tmp_path, "x")
    assert str(tmp_path) in caught.value.hint  # the lab that has none


def test_a_held_run_is_not_removed(run: RunFolder) -> None:
    with Lease.take(run.lease), pytest.raises(HeldError):
        run_store.remove(run)
    assert run.recipe.exists()
    run_store.remove(run)
    assert list(run.path.parent.iterdir()) == []


def refuse_writes(name: str, path: Path) -> None:
    if name in {"write", "half"}:
        raise RunFailedError("no space left")


def test_a_run_can_be_removed_from_a_full_disk(run: RunFolder) -> None:
    with disk.observe(refuse_writes):
        run_store.remove(run)
    assert list(run.path.parent.iterdir()) == []


def test_a_removal_also_clears_what_a_killed_one_left(tmp_path: Path, plan: Plan, now: datetime) -> None:
    for _ in crash_points(lambda: run_store.remove(run_store.create(tmp_path, plan, RECIPE, now))):
        pass
    left = [path.name for path in (tmp_path / "runs").iterdir() if path.name.endswith(".removed")]
    assert left == []


def test_removing_what_is_gone_is_an_error_that_says_so(run: RunFolder) -> None:
    run_store.remove(run)
    with pytest.raises(RunFailedError):
        run_store.remove(run)


HOLDER = """
import signal, sys
from pathlib import Path
from cerank.files.lease import Lease
with Lease.take(Path(sys.argv[1])):
    print("took", flush=True)
    signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")
def test_a_request_to_stop_leaves_a_file_and_wakes_the_worker(run: RunFolder, now: datetime) -> None:
    command = [sys.executable, "-c", HOLDER, str(run.lease)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "took\n"
        assert run_store.request_stop(run)
        worker.wait(timeout=300)
    assert worker.returncode == -signal.SIGTERM
    assert run.stop.exists()
    run_store.clear_stop(run)
    assert not run.stop.exists()
    run_store.clear_stop(run)


def test_a_lab_that_may_not_be_written_to_is_refused_before_anything_is_made(plan: Plan, now: datetime) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder that refuses even root")
    with pytest.raises(RunFailedError):
        run_store.create(Path("/proc"), plan, RECIPE, now)


def test_a_label_noted_later_finds_the_run_and_one_with_half_characters_does_not_stop_it(
    tmp_path: Path, plan: Plan, now: datetime
) -> None:
    run = run_store.create(tmp_path, msgspec.structs.replace(plan, label="bad \udcff"), RECIPE, now)
    assert "udcff" in run_store.row(run, now).label
    user_labels.save(run, user_labels.UserLabels(label="the good one"))
    assert run_store.find(tmp_path, "the good one") == run
    assert run_store.row(run, now).label == "the good one"
