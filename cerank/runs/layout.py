"""The names of everything in a lab and in a run directory.

Invariant: names are made here; outside text becomes part of one only through `slug`, which no name escapes from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import msgspec

from cerank.core.metrics import StepMetrics, Validation
from cerank.text.plain_names import plain_name, slug

__all__ = ["JobFolder", "QueueFolder", "ReadingRow", "RunFolder", "plain_name", "runs_folder", "slug"]

ReadingRow: TypeAlias = StepMetrics | Validation  # a row of readings.jsonl

_STEP_NAME = re.compile(r"step-([0-9]{6,})")
_ATTEMPT_NAME = re.compile(r"([0-9]+)\.json")


def runs_folder(lab: Path) -> Path:
    """Return where a lab keeps its runs, a folder each."""
    return lab / "runs"


class QueueFolder(msgspec.Struct, frozen=True):
    """The paths of a lab's queue. All of it may be deleted while nothing runs: only the order is lost."""

    lab: Path

    @property
    def path(self) -> Path:
        """The folder that holds the queue's files."""
        return self.lab / "queue"

    @property
    def entries(self) -> Path:
        """`queue.Queue`: the runs that wait, in order."""
        return self.path / "queue.json"

    @property
    def lock(self) -> Path:
        """The file whose lock lets one process change the queue at a time."""
        return self.path / "lock"

    @property
    def lease(self) -> Path:
        """The file whose lock makes one process the supervisor."""
        return self.path / "lease"

    @property
    def log(self) -> Path:
        """Return the log of the supervisor."""
        return self.path / "log.txt"

    def slot(self, key: str) -> Path:
        """Return the file whose lock a worker holds as long as it uses a device."""
        return self.path / "slots" / f"{slug(key)}.lock"

    def assignment(self, key: str) -> Path:
        """Return `queue.DeviceAssignment`: the run that a device was last given to."""
        return self.path / "slots" / f"{slug(key)}.json"


class JobFolder(msgspec.Struct, frozen=True):
    """The paths of what a lab knows of its jobs on other machines. All but the logs may be deleted."""

    lab: Path

    @property
    def path(self) -> Path:
        """The folder of all of it; absent in a lab that never submitted a job."""
        return self.lab / "jobs"

    @property
    def logs(self) -> Path:
        """The folder of what jobs print before and after their worker."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """The file whose lock lets one process at a time ask the executors how the jobs stand."""
        return self.path / "lock"

    def script(self, name: str) -> Path:
        """Return the script of a submission."""
        return self.path / "scripts" / f"{slug(name)}.sh"

    def answer(self, executor: str) -> Path:
        """Return `job_records.JobAnswer`: what the executor said last."""
        return self.path / f"{slug(executor)}.json"


class RunFolder(msgspec.Struct, frozen=True):
    """The paths in one run directory; it lists folders, and opens and writes nothing.

    A stage is named by its index in the chain, from 0 as in `Position`, and its name; its folder counts from 1.
    A system is what re-ranked, such as "1-contrastive", or the first stage itself.
    """

    path: Path

    @property
    def name(self) -> str:
        """The run's id, unique in its lab."""
        return self.path.name

    @property
    def lab(self) -> Path:
        """Return the folder of the lab that the run belongs to."""
        return self.path.parent.parent

    @property
    def recipe(self) -> Path:
        """The recipe as given, byte for byte."""
        return self.path / "recipe.toml"

    @property
    def plan(self) -> Path:
        """`records.StoredPlan`, written once."""
        return self.path / "plan.json"

    @property
    def attempts(self) -> Path:
        """The folder of the attempts' records."""
        return self.path / "attempts"

    def attempt(self, number: int) -> Path:
        """Return `records.Attempt` of the attempt, from 1."""
        return self.attempts / f"{number}.json"

    def attempt_numbers(self) -> list[int]:
        """Return the attempts that were started, ascending."""
        names = [path.name for path in self.attempts.iterdir()] if self.attempts.is_dir() else []
        return sorted(int(match[1]) for entry in names if (match := _ATTEMPT_NAME.fullmatch(entry)))

    @property
    def lease(self) -> Path:
        """The file whose lock makes one worker the writer."""
        return self.path / "lease"

    @property
    def progress(self) -> Path:
        """`core.metrics.Progress`, rewritten every 2 seconds as a heartbeat."""
        return self.path / "progress.json"

    @property
    def readings(self) -> Path:
        """Journal of `ReadingRow`."""
        return self.path / "readings.jsonl"

    @property
    def events(self) -> Path:
        """Journal of `core.metrics.Event`."""
        return self.path / "events.jsonl"

    @property
    def scorings(self) -> Path:
        """Journal of `core.metrics.Scoring`: what re-ranking took; no result depends on it, and it has no hash."""
        return self.path / "scorings.jsonl"

    @property
    def rank_rows(self) -> Path:
        """Journal of `core.metrics.RankRow`: what each of several processes did; it decides nothing and has no hash."""
        return self.path / "ranks.jsonl"

    @property
    def usage(self) -> Path:
        """Journal of `core.metrics.UsageRow`: what the machine was doing; it decides nothing, and has no hash."""
        return self.path / "usage.jsonl"

    @property
    def overlaps(self) -> Path:
        """`query_overlaps.SharedQueries`: the queries that two parts of the recipe share; written once."""
        return self.path / "overlaps.json"

    @property
    def precisions(self) -> Path:
        """`records.Precisions`: what "auto" came to; written once, so that a resumed run computes as it began."""
        return self.path / "precisions.json"

    @property
    def checksums(self) -> Path:
        """Journal of `checksums.FileChecksum`: size and hash of each file that was written whole."""
        return self.path / "seals.jsonl"

    @property
    def damage(self) -> Path:
        """`checksums.DamageReport`: what a check found wrong, until it is repaired; absent otherwise."""
        return self.path / "damage.json"

    @property
    def log(self) -> Path:
        """Return the file with everything that the worker printed."""
        return self.path / "log.txt"

    @property
    def stop(self) -> Path:
        """The request to stop; an empty file."""
        return self.path / "stop"

    @property
    def user_labels(self) -> Path:
        """`user_labels.UserLabels`: the user's label and tags."""
        return self.path / "notes.json"

    @property
    def place(self) -> Path:
        """`records.RunPlace`: what is elsewhere than in the plan since the run was copied here; else absent."""
        return self.path / "place.json"

    @property
    def job(self) -> Path:
        """`job_records.JobRecord`: the job on other machines that carries the run out; absent where there is none."""
        return self.path / "job.json"

    @property
    def submission(self) -> Path:
        """`job_records.SubmissionMark`: the submission whose jobs may carry the run out; absent before the first."""
        return self.path / "submission.json"

    @property
    def job_starts(self) -> Path:
        """Journal of `job_records.JobStart`: where jobs began to carry the run out, and how each of them ended."""
        return self.path / "jobs.jsonl"

    @property
    def note(self) -> Path:
        """The user's note on the run, in Markdown; absent where there is none."""
        return self.path / "note.md"

    @property
    def trackers(self) -> Path:
        """The folder of what experiment trackers were sent of the run; absent where none was."""
        return self.path / "trackers"

    @property
    def short_name(self) -> Path:
        """`run_names.ShortName`: the run's short name; absent where an older release made the run."""
        return self.path / "name.json"

    @property
    def done(self) -> Path:
        """`records.Done`; there is at most one of this and `failure`."""
        return self.path / "done.json"

    @property
    def failure(self) -> Path:
        """`records.Failure`."""
        return self.path / "failure.json"

    def stage(self, index: int, name: str) -> Path:
        """Return the folder of a stage."""
        return self.path / "stages" / f"{index + 1}-{plain_name(name)}"

    def checkpoints(self, index: int, name: str) -> Path:
        """Return the folder of a stage's checkpoints."""
        return self.stage(index, name) / "checkpoints"

    def checkpoint(self, index: int, name: str, step: int) -> Path:
        """Return the folder of the checkpoint after `step` steps."""
        return self.checkpoints(index, name) / f"step-{step:06d}"

    def checkpoint_steps(self, index: int, name: str) -> list[int]:
        """Return the steps of the checkpoints, ascending, without quarantined ones."""
        folder = self.checkpoints(index, name)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(match[1]) for entry in names if (match := _STEP_NAME.fullmatch(entry)))

    def final(self, index: int, name: str) -> Path:
        """Return the folder of the model that a stage produces."""
        return self.stage(index, name) / "final"

    def best_model(self, index: int, name: str, measure: str) -> Path:
        """Return the folder of the weights of a stage that were best by a measure in its `keep_best`."""
        return self.stage(index, name) / f"best-{slug(measure)}"

    def best_models(self, index: int, name: str) -> list[Path]:
        """Return the folders of all weights of a stage that were best by a measure, without quarantined ones."""
        return sorted(path for path in self.stage(index, name).glob("best-*") if "." not in path.name)

    def reused_stage(self, index: int, name: str) -> Path:
        """Return the path of `records.ReusedStage`: the run a stage was copied from; absent if it was trained here."""
        return self.stage(index, name) / "adopted.json"

    def candidates(self, dataset: str, first_stage: str) -> Path:
        """Return the first stage's ranking that is re-ranked."""
        return self.path / "candidates" / f"{_dataset_and_first_stage(dataset, first_stage)}.run.gz"

    def teacher(self, stage: str) -> Path:
        """Return the teacher's ranking for a stage."""
        return self.path / "teachers" / f"{slug(stage)}.run.gz"

    def teacher_record(self, what: str) -> Path:
        """Return `MadeRanking` for a stage, its validation, or "TEACHER on TEST over FIRST_STAGE"."""
        return self.path / "teachers" / f"{slug(what)}.made.json"

    def dropped_negatives(self, stage: str) -> Path:
        """Return the list of candidates that a stage's filters dropped; see `retrieval/false_negatives`."""
        return self.path / "negatives" / f"{slug(stage)}.dropped.tsv.gz"

    def filter_counts(self, stage: str) -> Path:
        """Return `false_negatives.FilterCounts` of a stage."""
        return self.path / "negatives" / f"{slug(stage)}.json"

    def scores(self, system: str, dataset: str, first_stage: str) -> Path:
        """Return the folder of the finished parts of a re-ranking in progress."""
        return self.path / "scores" / slug(system) / _dataset_and_first_stage(dataset, first_stage)

    def scores_part(self, system: str, dataset: str, first_stage: str, number: int) -> Path:
        """Return the folder of one part, from 0."""
        return self.scores(system, dataset, first_stage) / f"part-{number:06d}"

    def ranking(self, system: str, dataset: str, first_stage: str) -> Path:
        """Return the TREC run of a re-ranking."""
        return self.path / "rankings" / slug(system) / f"{_dataset_and_first_stage(dataset, first_stage)}.run.gz"

    def ranking_stats_file(self, system: str, dataset: str, first_stage: str) -> Path:
        """Return `stage_summary.RankingStats` of `ranking`."""
        return self.path / "rankings" / slug(system) / f"{_dataset_and_first_stage(dataset, first_stage)}.facts.json"

    def measures(self, system: str, dataset: str, first_stage: str) -> Path:
        """Return the per-query measures of `ranking`."""
        return self.path / "measures" / slug(system) / f"{_dataset_and_first_stage(dataset, first_stage)}.jsonl"

    def aggregation(self, system: str) -> Path:
        """Return `AggregationChoice` of a system whose aggregation of passages is chosen on validation."""
        return self.path / "aggregations" / f"{slug(system)}.json"

    def qrels(self, dataset: str) -> Path:
        """Return the relevance judgments that were measured against."""
        return self.path / "qrels" / f"{slug(dataset)}.qrels.gz"


def _dataset_and_first_stage(dataset: str, first_stage: str) -> str:
    return f"{slug(dataset)}.{slug(first_stage)}"
