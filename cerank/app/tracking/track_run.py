"""Follow a run by its journals and send what is new to a tracker, then its result.

Invariant: the run's files are only read, and its worker never knows. What was sent is recorded beside the run, so that
another tracking of the run, after a stop or a failure, sends the rest and nothing twice.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.core.metrics import Position, StepMetrics, Validation
from cerank.errors import CerankError
from cerank.executors import polling
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.files.journal import Tail
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder, slug
from cerank.runs.records import Attempt
from cerank.text.table_data import Table
from cerank.tracking.tracker import (
    LONGEST_SETTING,
    Destination,
    MetricRow,
    Outcome,
    Setting,
    TrackedRun,
    Tracker,
)

POLL_SECONDS = 2.0
WAITING_POLL_SECONDS = 10.0  # while the run has not started
_START_SECONDS = 120.0  # that a worker may take from its start to the run's lease
_OPEN = {"waiting", "queued", "running", "stopping"}  # states in which a run needs nobody


class TrackingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one tracker was sent of a run."""

    kind: str
    project: str
    is_offline: bool = False
    tracker_id: str = ""
    where: str = ""
    steps: Position | None = None  # the last step that was sent
    validations: Position | None = None
    has_result: bool = False
    is_over: bool = False  # the tracking, by itself or because of `failure`
    failure: str = ""
    time: str = ""  # UTC, ISO 8601


def record_file(folder: RunFolder, kind: str) -> Path:
    """Return where `TrackingRecord` of a tracker is kept."""
    return folder.trackers / f"{slug(kind)}.json"


def load_record(folder: RunFolder, kind: str) -> TrackingRecord | None:
    """Return what a tracker was sent of a run; None where it was never tracked, or the record cannot be read."""
    try:
        return json_records.load_if_there(record_file(folder, kind), TrackingRecord)
    except DamagedError:
        return None


def save_record(folder: RunFolder, record: TrackingRecord) -> TrackingRecord:
    """Save a record with the present time, and return it; of a run that was removed nothing is saved.

    Raises:
        RunFailedError: the disk refuses.
    """
    record = msgspec.structs.replace(record, time=json_records.timestamp(datetime.now(UTC)))
    if not folder.path.is_dir():
        return record
    with contextlib.suppress(OSError):  # without parents, for the run may be removed at this moment
        folder.trackers.mkdir()
    json_records.save(record_file(folder, record.kind), record)
    return record


def tracked_run(folder: RunFolder, plan: Plan) -> TrackedRun:
    """Return a run as trackers list it: its recipe as flat settings, without the path of the home folder."""
    settings: dict[str, Setting] = {"seed": plan.recipe.seed, "device": plan.device, "plan": plan.fingerprint}
    settings |= dict(_flat("", msgspec.to_builtins(plan.recipe)))
    return TrackedRun(key=folder.name, title=run_store.title(folder), recipe=plan.recipe.name, settings=settings)


def _flat(prefix: str, value: object) -> Iterator[tuple[str, Setting]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, bool | int | float) or value is None:
        yield prefix, value
    else:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        yield prefix, text.replace(f"{Path.home()}/", "~/")[:LONGEST_SETTING]


def destination(folder: RunFolder, record: TrackingRecord) -> Destination:
    """Return where a tracker keeps its files of all runs of the lab; the folder is made."""
    path = folder.lab / "trackers" / slug(record.kind)
    disk.make_folder(path)
    return Destination(project=record.project, folder=path, is_offline=record.is_offline, tracker_id=record.tracker_id)


class RunReader:
    """The rows of a run's journal as values for a tracker, on one axis over all stages.

    Args:
        folder: the run.
        plan: its plan.
        record: what was sent before, which is passed over.
    """

    def __init__(self, folder: RunFolder, plan: Plan, record: TrackingRecord) -> None:
        self._folder, self._chain = folder, plan.recipe.chain
        self._tail: Tail[ReadingRow] = Tail(folder.readings, ReadingRow)
        self._restarts = 0
        self.steps, self.validations = record.steps, record.validations
        self._start_over()

    def _start_over(self) -> None:
        self._starts: dict[int, int] = {0: 0}  # stage -> steps before it
        self._last = 0
        self._clocks: dict[int, float] = {}  # attempt -> seconds since 1970 at its newest row

    def new(self) -> list[MetricRow]:
        """Return what is new since the last call; a step that was sent is not sent again when it is repeated."""
        rows = self._tail.new()
        if self._tail.restarts != self._restarts:
            self._restarts = self._tail.restarts
            self._start_over()
        out = []
        for row in rows:
            start = self._starts.setdefault(row.stage, self._last)
            self._last = max(self._last, start + row.step)
            seconds = self._moment(row)
            position = Position(row.stage, row.step)
            before = self.validations if isinstance(row, Validation) else self.steps
            if before is not None and position <= before:
                continue
            if isinstance(row, Validation):
                self.validations = position
            else:
                self.steps = position
            values = {name: value for name, value in self._values(row).items() if math.isfinite(value)}
            if values:
                out.append(MetricRow(start + row.step, seconds, values))
        return out

    def _moment(self, row: ReadingRow) -> float:
        """Return about when a row was written: the start of its attempt, and what its rows took since."""
        if row.attempt not in self._clocks:
            try:
                attempt = json_records.load_if_there(self._folder.attempt(row.attempt), Attempt)
                began = datetime.fromisoformat(attempt.started).timestamp() if attempt is not None else time.time()
            except (DamagedError, ValueError):
                began = time.time()
            self._clocks[row.attempt] = began
        self._clocks[row.attempt] += row.seconds
        return self._clocks[row.attempt]

    def _values(self, row: ReadingRow) -> dict[str, float]:
        stage = self._chain[row.stage] if row.stage < len(self._chain) else str(row.stage)
        if isinstance(row, StepMetrics):
            if not row.groups:  # a filter left the step without an update
                return {}
            values = {"loss": row.loss, "learning_rate": row.learning_rate, "gradient_norm": row.grad_norm}
            values |= {f"loss/{name}": value for name, value in row.parts.items()}
            values |= {f"gradient_cosine/{name}": value for name, value in row.cosines.items()}
            speed = row.pairs / row.seconds if row.seconds > 0 else math.nan
            return {f"{stage}/{name}": value for name, value in values.items()} | {f"{stage}/pairs_per_second": speed}
        return {f"{stage}/validation/{name}": value for name, value in row.measures.items()}


def result_of(folder: RunFolder) -> tuple[dict[str, float], list[Table], str] | None:
    """Return a finished run's means, its tables, and its verdicts in words; None where nothing was measured."""
    import statistics

    from cerank.app.comparison import export_comparison, run_answer, stage_costs

    try:
        answer = run_answer.of_run(folder)
    except CerankError:
        return None
    means = {
        f"result/{at.condition.dataset}/{at.condition.first_stage}/{system.label}/{measure}": statistics.fmean(
            values.values()
        )
        for system in answer.comparison.systems
        for at in system.measured
        for measure, values in at.values.items()
    }
    tables = [export_comparison.short_table(answer.comparison), stage_costs.table(answer.costs)]
    notes = [f"- {note}" for note in tables[0].notes]
    return means, tables, "\n\n".join([*answer.paragraphs, "\n".join(notes)]).strip()


def follow(
    folder: RunFolder,
    record: TrackingRecord,
    tracker: Tracker,
    *,
    after_attempt: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> TrackingRecord:
    """Send what the run writes until it ends or stops, then its result; return the record, which is saved as it grows.

    A run whose folder is removed has failed.

    Args:
        folder: the run.
        record: what was sent before.
        tracker: an open tracker.
        after_attempt: number of attempts that had ended when the run was resumed; its state counts from the next one.
        sleep: called between two looks.
    """
    plan = run_store.load_plan(folder)
    reader = RunReader(folder, plan, record)
    began = time.monotonic()
    while True:
        polling.refresh(folder.lab)
        status = run_store.status(folder, datetime.now(UTC))  # first, so that no row of what it says is missed
        if not folder.path.is_dir():
            tracker.close("failed")
            return msgspec.structs.replace(record, is_over=True)
        if rows := reader.new():
            tracker.log(rows)
            steps, validations = reader.steps, reader.validations
            record = save_record(folder, msgspec.structs.replace(record, steps=steps, validations=validations))
        is_starting = status.attempts <= after_attempt and time.monotonic() - began < _START_SECONDS
        if status.state not in _OPEN and not (after_attempt and is_starting):
            break
        sleep(WAITING_POLL_SECONDS if status.state == "queued" else POLL_SECONDS)
    outcome: Outcome = "finished" if status.state == "finished" else "failed"
    if status.state in {"paused", "lost"}:
        outcome = "paused"
    if outcome == "finished" and not record.has_result and (result := result_of(folder)) is not None:
        tracker.result(*result)
        record = msgspec.structs.replace(record, has_result=True)
    tracker.close(outcome)
    return save_record(folder, msgspec.structs.replace(record, is_over=True, failure=""))
