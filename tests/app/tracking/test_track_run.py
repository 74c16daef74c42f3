"""A tracker gets every step once, and then the result; whatever it does, the run is as it was."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cerank.app.tracking import track_run, tracking_process
from cerank.app.tracking.track_run import TrackingRecord, follow
from cerank.app.tracking.tracking_process import GuardedTracker, TrackingRequest, check_request
from cerank.core.metrics import Position, StepMetrics, Validation
from cerank.errors import ExitCode, UsageError
from cerank.files import json_records
from cerank.files.lease import Lease
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt
from cerank.tracking.trackers import TRACKERS
from cerank.worker.run_log import RunLog
from tests.refusals import refused
from tests.tracking.recorded_tracker import RecordedTracker
from tests.trained_run import TrainedRun

RECORD = TrackingRecord(kind="recorded", project="cerank")
OPENED: dict[str, RecordedTracker] = {}


@TRACKERS.add("recorded")
def _open(run, to):
    return OPENED["next"]


@pytest.fixture
def finished(trained: TrainedRun, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, beside which a tracker may write."""
    return RunFolder(shutil.copytree(trained.folder.path, tmp_path / "lab" / "runs" / trained.folder.name))


def now() -> datetime:
    return datetime(2026, 1, 2, tzinfo=UTC)


def files_of(folder: RunFolder) -> dict[str, bytes]:
    """The bytes of everything in the run but what trackers keep there."""
    files = (path for path in sorted(folder.path.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files if folder.trackers not in path.parents}


def test_every_step_of_all_stages_is_sent_once_on_one_axis_and_then_the_verdict(finished: RunFolder) -> None:
    tracker = RecordedTracker()
    record = follow(finished, RECORD, tracker)
    assert tracker.steps_of("contrastive/loss") == [1, 2, 3, 4]
    assert tracker.steps_of("distill/loss") == [5, 6, 7, 8]
    assert tracker.steps_of("distill/validation/nDCG@10") == [4, 8]
    assert [row.step for row in tracker.rows] == sorted(row.step for row in tracker.rows)
    assert [row.seconds for row in tracker.rows] == sorted(row.seconds for row in tracker.rows)
    [(means, tables, text)] = tracker.results
    assert {name.split("/")[-2] for name in means} == {"first-stage", "contrastive", "distill"}
    assert all(0 <= value <= 1 for value in means.values())
    assert tables[0].name == "comparison"
    assert "distill" in text
    assert tracker.outcomes == ["finished"]
    assert record.is_over
    assert record.has_result


def test_a_second_tracking_sends_nothing_again_and_a_stopped_one_sends_the_rest(finished: RunFolder) -> None:
    first = follow(finished, RECORD, RecordedTracker())
    again = RecordedTracker()
    follow(finished, first, again)
    assert (again.rows, again.results, again.outcomes) == ([], [], ["finished"])
    rest = RecordedTracker()
    follow(finished, msgspec.structs.replace(RECORD, steps=Position(0, 3), validations=Position(1, 0)), rest)
    assert rest.steps_of("contrastive/loss") == [4]
    assert rest.steps_of("distill/loss") == [5, 6, 7, 8]
    assert rest.steps_of("distill/validation/nDCG@10") == [8]
    assert len(rest.results) == 1


def test_a_run_is_followed_while_it_runs_and_waited_for_after_it_was_resumed(
    trained: TrainedRun, tmp_path: Path
) -> None:
    folder = run_store.create(tmp_path / "lab", trained.plan, b"", now())
    lease: list[Lease] = []

    def row(step: int, loss: float, seconds: float = 2.0) -> StepMetrics:
        return StepMetrics(0, step, loss, 1e-3, 1.0, groups=2, pairs=8, seconds=seconds)

    def starts() -> None:
        lease.append(Lease.take(folder.lease, now()))
        json_records.save(folder.attempt(1), Attempt(number=1, started="2026-01-02T00:00:00+00:00"))
        log = RunLog(folder, 1, now)
        log.event("started", "by a test")
        log.write_metrics(row(1, 0.5))
        log.write_metrics(row(2, 0.4, seconds=0.0))
        log.close()

    def pauses() -> None:
        log = RunLog(folder, 1, now)
        log.write_metrics(Validation(0, 2, {"nDCG@10": 0.25}))
        log.event("paused", "by a test")
        log.close()
        lease.pop().release()

    happens = iter([starts, pauses])
    tracker = RecordedTracker()
    record = follow(folder, RECORD, tracker, sleep=lambda _seconds: next(happens)())
    assert tracker.steps_of("contrastive/loss") == [1, 2]
    assert tracker.steps_of("contrastive/pairs_per_second") == [1], "a value that is not finite is left out"
    assert tracker.rows[0].values["contrastive/pairs_per_second"] == 4.0
    assert tracker.steps_of("contrastive/validation/nDCG@10") == [2]
    assert (tracker.outcomes, tracker.results) == (["paused"], [])

    def resumes() -> None:
        json_records.save(folder.attempt(2), Attempt(number=2, started="2026-01-02T00:01:00+00:00"))
        log = RunLog(folder, 2, now)
        log.write_metrics(row(3, 0.25))
        log.close()

    happens = iter([resumes])
    follow(folder, record, tracker, after_attempt=1, sleep=lambda _seconds: next(happens)())
    assert tracker.steps_of("contrastive/loss") == [1, 2, 3]


def test_a_tracker_that_raises_or_exits_is_recorded_and_the_run_is_untouched(finished: RunFolder) -> None:
    before = files_of(finished)
    for error in (ConnectionError("refused by 127.0.0.1"), SystemExit(3), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        OPENED["next"] = RecordedTracker(before_log=fail)
        track_run.save_record(finished, RECORD)
        assert tracking_process.track(finished, "recorded", 0, {}) == ExitCode.FAILED
        record = track_run.load_record(finished, "recorded")
        assert record is not None
        assert type(error).__name__ in record.failure
        assert record.steps is None
        assert record.is_over
    assert files_of(finished) == before
    OPENED["next"] = RecordedTracker()
    assert tracking_process.track(finished, "recorded", 0, {}) == ExitCode.OK
    assert len(OPENED["next"].rows) == 12, "all of it is sent by the next try"


def test_a_tracker_that_blocks_is_given_up_with_the_call_named(finished: RunFolder) -> None:
    gave_up = threading.Event()
    reasons: list[str] = []

    def give_up(reason: str) -> None:
        reasons.append(reason)
        gave_up.set()

    guarded = GuardedTracker(lambda: RecordedTracker(before_log=gave_up.wait), 0.05, give_up)
    follow(finished, RECORD, guarded)
    assert "'log'" in reasons[0]


def test_a_tracker_that_raised_does_not_block(finished: RunFolder) -> None:
    gave_up = threading.Event()

    def fail() -> None:
        raise ConnectionError

    guarded = GuardedTracker(lambda: RecordedTracker(before_log=fail), 0.05, lambda _: gave_up.set())
    with pytest.raises(ConnectionError):
        follow(finished, RECORD, guarded)
    assert not gave_up.wait(0.3)


def test_a_run_that_is_removed_ends_its_tracking_and_stays_removed(trained: TrainedRun, tmp_path: Path) -> None:
    folder = run_store.create(tmp_path / "lab", trained.plan, b"", now())
    looks = iter([lambda: shutil.rmtree(folder.path)])
    tracker = RecordedTracker()
    record = follow(folder, RECORD, tracker, after_attempt=1, sleep=lambda _seconds: next(looks)())
    assert (record.is_over, tracker.outcomes) == (True, ["failed"])
    assert not folder.path.exists()


def test_a_tracker_that_fails_after_its_run_was_removed_writes_nothing(finished: RunFolder) -> None:
    def remove_and_fail() -> None:
        shutil.rmtree(finished.path)
        raise ConnectionError

    OPENED["next"] = RecordedTracker(before_log=remove_and_fail)
    track_run.save_record(finished, RECORD)
    assert tracking_process.track(finished, "recorded", 0, {}) == ExitCode.FAILED
    assert not finished.path.exists()


def test_two_processes_do_not_send_one_run_to_one_tracker(finished: RunFolder) -> None:
    track_run.save_record(finished, RECORD)
    with Lease.take(finished.trackers / "recorded.lease", now()):
        assert tracking_process.track(finished, "recorded", 0, {}) == ExitCode.HELD


def test_resuming_a_run_starts_its_trackers_again(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(
        "cerank.app.tracking.tracking_process.subprocess.Popen", lambda line, **_: commands.append(line)
    )
    assert tracking_process.start_again(finished, 2) == []
    track_run.save_record(finished, msgspec.structs.replace(RECORD, project="p", is_offline=True, steps=Position(0, 3)))
    tracking_process.start_again(finished, 2)
    assert [line[-2:] for line in commands] == [["recorded", "2"]]
    record = track_run.load_record(finished, "recorded")
    assert record is not None
    assert (record.project, record.is_offline, record.steps) == ("p", True, Position(0, 3))
    tracking_process.start(finished, TrackingRequest(kinds=("recorded",), project="other"))
    record = track_run.load_record(finished, "recorded")
    assert record is not None
    assert record.steps is None, "another project gets all of it"


def test_settings_are_flat_and_without_the_path_of_the_home_folder(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = run_store.load_plan(finished)
    monkeypatch.setattr(Path, "home", lambda: Path(plan.recipe.base).parent)
    settings = track_run.tracked_run(finished, plan).settings
    assert settings["stages.distill.learning_rate"] == 1e-3
    assert settings["base"] == f"~/{Path(plan.recipe.base).name}"
    assert not [key for key, value in settings.items() if isinstance(value, dict | list)]


def test_what_no_tracker_can_do_is_refused_before_the_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cerank.tracking.trackers.find_spec", lambda _name: None)
    with refused(UsageError, "not-registered", "tensorbord", "tensorboard"):
        check_request(TrackingRequest(kinds=("tensorbord",)), "--track")
    with refused(UsageError, "library-missing", "wandb"):
        check_request(TrackingRequest(kinds=("wandb",)), "--track")
    with refused(UsageError, "name-twice", "--track"):
        check_request(TrackingRequest(kinds=("recorded", "recorded")), "--track")
    for name in ("../up", "", "a b", "x" * 101):
        if name:
            with refused(UsageError, "project-name", "--track-project"):
                check_request(TrackingRequest(kinds=("recorded",), project=name), "--track")
    with refused(UsageError, "usage", "--track"):
        check_request(TrackingRequest(is_offline=True), "--track")
