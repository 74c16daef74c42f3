"""Labs made of files alone: what a worker would have left, without one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.app import Lab
from cerank.core.metrics import Event, Progress, StepMetrics, Validation
from cerank.core.rankings import ordered
from cerank.files import journal, json_records, lease
from cerank.recipes.plan import Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Recipe
from cerank.recipes.sweep_schema import SweepRecord, TrialRecord
from cerank.runs import run_store
from cerank.runs.declared_records import SWEEPS
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import Attempt, Done, Failure
from cerank.settings import Settings
from cerank.trec.text_io import write_qrels, write_run

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
CHAIN = ("contrastive", "distill")


def recipe(
    name: str = "two-stages",
    base: str = "minilm",
    seed: int = 42,
    teachers: dict[str, dict[str, object]] | None = None,
    **data: object,
) -> Recipe:
    """A recipe of two stages; the first of `teachers` teaches the second one."""
    taught_by = next(iter(teachers or ()), "embedding")
    stages = {
        "contrastive": {"steps": 100},
        "distill": {"steps": 100, "loss": "ranknet", "source": "teacher", "teacher": taught_by},
    }
    table = {"name": name, "base": base, "seed": seed, "chain": list(CHAIN), "stages": stages, "data": data}
    table |= {"teachers": teachers} if teachers else {}
    return recipe_from(table, "a test")


class LabFolder:
    """Makes runs in a lab."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.leases: list[lease.Lease] = []
        self._count = 0

    @property
    def lab(self) -> Lab:
        """The lab over the folder."""
        cache = self.path / "cache"
        return Lab(Settings(lab=self.path, cache=cache, device="cpu", threads=1, format=""), devices=())

    def run(self, label: str = "", **changed: object) -> RunFolder:
        """A run that waits, with a name that is the same every time."""
        plan = Plan(
            recipe=recipe(**changed),  # type: ignore[arg-type]
            inputs=(),
            device="cpu",
            threads=1,
            cache=str(self.path / "cache"),
            label=label,
            created="2026-11-23T10:00:00+00:00",
        )
        made = run_store.create(self.path, plan, b"", NOW)
        self._count += 1
        folder = RunFolder(
            made.path.with_name(f"2026-11-23-1000{self._count:02d}-two-stages-minilm-aa{self._count:02d}")
        )
        made.short_name.unlink()  # it follows from the id, which is another one now
        made.path.rename(folder.path)
        return folder

    def started(self, folder: RunFolder, steps: int = 0, stage: int = 0, validations: bool = True) -> RunFolder:
        """A run that was started and did so many steps of each stage up to `stage`."""
        json_records.save(folder.attempt(1), Attempt(number=1, started="2026-11-23T10:00:01+00:00"))
        self.event(folder, "started", "attempt 1")
        with journal.Journal(folder.readings, ReadingRow) as rows:
            for place in range(stage + 1):
                for step in range(1, steps + 1):
                    rows.append(reading(place, step, 1.0 / step + (1 - place)))
                    if validations and step % 10 == 0:
                        rows.append(Validation(place, step, {"nDCG@10": 0.3 + step / 1000, "RR@10": 0.4 + place / 10}))
        return folder

    def running(self, folder: RunFolder, done: int = 61, total: int = 100) -> RunFolder:
        """Makes it look as though a worker were at it: this process holds the lease."""
        self.leases.append(lease.Lease.take(folder.lease))
        progress = Progress("train", "distill", done, total, 412.0, 42.0, time="2026-11-23T10:00:10+00:00", attempt=1)
        json_records.save(folder.progress, progress)
        return folder

    def finished(self, folder: RunFolder, after: float = 0.641, queries: tuple[str, str] = ("q1", "q2")) -> RunFolder:
        """Makes it finished, with rankings and measures of two queries."""
        plan = run_store.load_plan(folder)
        test, first = plan.recipe.data.test[0], plan.recipe.data.first_stages[0]
        one, other = queries
        before = {one: {"d1": 3.0, "d2": 2.0, "d3": 1.0}, other: {"d1": 2.0, "d4": 1.0}}
        new = {one: {"d3": 3.0, "d1": 2.0, "d2": 1.0}, other: {"d1": 2.0, "d4": 1.0}}
        for system, scores, value in (("first-stage", before, 0.5), *((name, new, after) for name in CHAIN)):
            for path in (folder.ranking(system, test, first), folder.measures(system, test, first)):
                path.parent.mkdir(parents=True, exist_ok=True)
            folder.ranking(system, test, first).write_bytes(write_run(ordered(scores), system))
            rows = [{"query_id": query, "measures": {"nDCG@10": value, "RR@10": value / 2}} for query in scores]
            lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
            folder.measures(system, test, first).write_bytes(lines)
        folder.qrels(test).parent.mkdir(exist_ok=True)
        folder.qrels(test).write_bytes(write_qrels({one: {"d3": 2, "d1": 0}, other: {"d4": 1}}))
        self.event(folder, "finished", "attempt 1")
        json_records.save(folder.done, Done(time="2026-11-23T10:01:00+00:00", attempt=1, seconds=60.0))
        return folder

    def failed(self, folder: RunFolder, what: str = "out of memory") -> RunFolder:
        """Makes it failed."""
        json_records.save(
            folder.failure, Failure(kind="RunFailedError", what=what, hint="a smaller microbatch", attempt=1)
        )
        return folder

    def damaged(self, folder: RunFolder) -> RunFolder:
        """Breaks its plan."""
        folder.plan.write_bytes(b'{"fingerprint": "x", "plan": 12')
        return folder

    def event(self, folder: RunFolder, kind: str, text: str) -> None:
        """Adds an event."""
        with journal.Journal(folder.events, Event) as rows:
            rows.append(Event(kind, text, "2026-11-23T10:00:02+00:00", 1))

    def close(self) -> None:
        """Gives every lease back."""
        for held in self.leases:
            held.release()


def keep_sweep(lab: LabFolder, runs: list[str], stopped: dict[int, int] | None = None, planned: int = 4) -> SweepRecord:
    """Keep runs as trials of one arm, the learning rate of each ten times that before."""
    trials = tuple(
        TrialRecord(
            arm="cl",
            number=number,
            settings={"stages.*.learning_rate": 10.0 ** (number - 6), "stages.*.group_size": 4},
            run=run,
            stopped=(stopped or {}).get(number, 0),
        )
        for number, run in enumerate(runs, 1)
    )
    record = SweepRecord(
        name="rates",
        sha256="ab" * 32,
        created="t",
        changed="t",
        method="random",
        measure="nDCG@10",
        arms=("cl",),
        planned={"cl": planned},
        trials=trials,
    )
    SWEEPS.save(lab.path, record)
    return record


def reading(stage: int, step: int, loss: float, *, attempt: int = 1) -> StepMetrics:
    """A row of a curve."""
    return StepMetrics(stage, step, loss, 1e-4 / step, 1.5, 4, 32, 0.1, attempt)


def made_collection(path: Path) -> Path:
    """A folder dataset of two queries and four documents."""
    where = path / "collection"
    where.mkdir()
    texts = {"d1": "the first text", "d2": "the second text", "d3": "the third text", "d4": "the fourth text"}
    (where / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "{doc}", "text": "{text}"}}\n' for doc, text in texts.items())
    )
    (where / "queries.jsonl").write_text('{"_id": "q1", "text": "who is there"}\n{"_id": "q2", "text": "and where"}\n')
    (where / "qrels").mkdir()
    (where / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t2\nq2\td4\t1\n")
    return where
