"""Submitting runs so that no stage that several of them share is trained twice.

A stage that several runs share becomes a job of its own, in the name of the first of them: it ends when that stage is
finished, and the jobs of the runs wait for it. Where an executor cannot make jobs wait, runs that share a stage are one
job, which carries them out one after another.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.errors import CerankError
from cerank.executors.interface import Job, JobExecutor, Needs, SubmittedJob
from cerank.executors.on_node import arguments_for
from cerank.files import json_records
from cerank.planning.stage_keys import stage_keys
from cerank.recipes.plan import Plan
from cerank.runs import job_records, run_store
from cerank.runs.job_records import JobRecord, SubmissionMark
from cerank.runs.layout import RunFolder

Keys = tuple[str, ...]  # of a run's stages, in order; none where it may not use those of other runs


class SharedStage(msgspec.Struct, frozen=True):
    """A stage that several runs share and none has finished, with those before it."""

    key: str
    index: int  # in the chain
    run: int  # the run in whose name it is trained, by its place in the submission


def shared_stages(runs: Sequence[Keys], known: set[str]) -> list[SharedStage]:
    """Return the stages to train before the runs themselves, those of few predecessors first.

    Of stages that the same runs share, only the last is listed: who trains it has trained those before it.

    Args:
        runs: for each run the keys of its stages.
        known: keys of stages that are finished, or that a job of an earlier submission trains.

    Example:
        >>> [stage.key for stage in shared_stages([("a", "b", "c"), ("a", "b", "d"), ("a", "e")], set())]
        ['a', 'b']
    """
    sharers: dict[str, list[int]] = {}
    for run, keys in enumerate(runs):
        for key in keys:
            sharers.setdefault(key, []).append(run)
    stages: dict[str, SharedStage] = {}
    for keys in runs:
        for index, key in enumerate(keys):
            is_last = index + 1 == len(keys) or sharers[keys[index + 1]] != sharers[key]
            if len(sharers[key]) > 1 and is_last and key not in known:
                stages[key] = SharedStage(key, index, sharers[key][0])
    return sorted(stages.values(), key=lambda stage: (stage.index, stage.run))


class Submission:
    """The runs that are submitted together.

    Args:
        executor: where they are carried out.
        folders: their folders, all in one lab.
    """

    def __init__(self, executor: JobExecutor, folders: Sequence[RunFolder]) -> None:
        self.executor, self.folders = executor, list(folders)
        self._plans = [run_store.load_plan(folder) for folder in folders]
        self._needs = [needs_of(plan) for plan in self._plans]
        self._keys = [stage_keys(plan) if plan.shares else () for plan in self._plans]
        self._submitted: list[str] = []
        limit = executor.options.get("max_requeues", 20)
        self._max_requeues = limit if isinstance(limit, int) else 20
        self._mark: SubmissionMark | None = None  # jobs that the user starts by hand belong to no submission

    def submit(self) -> list[JobRecord]:
        """Submit all of them and return the record of each run's job, which is in its folder by then.

        Raises:
            UsageError: the executor refuses; then none of them is submitted.
            RunFailedError: the lab cannot be written to.
        """
        for plan in self._plans:
            if len(plan.devices) > 1:
                self.executor.devices(str(len(plan.devices)), plan.device)  # it raises if its jobs get fewer
        self._mark = SubmissionMark(id=secrets.token_hex(6), time=json_records.timestamp(datetime.now(UTC)))
        before: list[tuple[RunFolder, bytes | None]] = []
        try:
            for folder in self.folders:  # before a job can begin: one of an earlier submission ends as it starts
                before.append((folder, job_records.submission_mark(folder)))
                job_records.mark_submission(folder, self._mark)
            records = self._submit_in_order() if self.executor.waits_for_jobs else self._submit_groups()
            for folder, record in zip(self.folders, records, strict=True):
                run_store.clear_stop(folder)
                run_store.clear_failure(folder)
                job_records.save(folder, record)
        except BaseException:  # Ctrl-C, too: no job may stay that no run knows of
            with contextlib.suppress(CerankError):  # the first error is the one to show
                self.executor.cancel(self._submitted)
            for folder, mark in before:  # a job of an earlier submission may still wait, and shall go on
                with contextlib.suppress(CerankError):
                    job_records.restore_submission_mark(folder, mark, self._mark.id)
            raise
        return records

    def _submit_in_order(self) -> list[JobRecord]:
        """Submit a job for each shared stage, and then one for each run, which waits for the stage that it needs."""
        finished = finished_stages(self.folders[0].lab, {key for keys in self._keys for key in keys})
        jobs = {**stages_under_way(self.folders), **dict.fromkeys(finished, "")}  # key -> the job to wait for
        own: list[dict[str, str]] = [{} for _ in self.folders]  # run -> key -> the job that trains it in its name
        stages = shared_stages(self._keys, set(jobs))
        for level in sorted({stage.index for stage in stages}):
            now = [stage for stage in stages if stage.index == level]
            waits = [self._before(stage.run, stage.index, jobs) for stage in now]
            works = [self._job([stage.run], until=stage.index) for stage in now]
            for stage, submitted in zip(now, self._submit_all(works, waits), strict=True):
                jobs[stage.key] = own[stage.run][stage.key] = submitted.id
        waits = [self._before(run, len(keys), jobs) for run, keys in enumerate(self._keys)]
        works = [self._job([run]) for run in range(len(self.folders))]
        records = []
        for run, submitted in enumerate(self._submit_all(works, waits)):
            rest = [key for key in self._keys[run] if key not in jobs]
            trains = own[run] | dict.fromkeys(rest, submitted.id)
            records.append(self._record(submitted, tuple(own[run].values()), trains))
        return records

    def _submit_groups(self) -> list[JobRecord]:
        """Submit one job for all runs that share a stage, directly or through others."""
        records: dict[int, JobRecord] = {}
        for group, job in zip(_groups(self._keys), self.grouped_jobs(), strict=True):
            (submitted,) = self._submit(job)
            records |= {run: self._record(submitted, (), {}) for run in group}
        return [records[run] for run in range(len(self.folders))]

    def grouped_jobs(self) -> list[Job]:
        """Return one job for all runs that share a stage, directly or through others."""
        return [self._job(group) for group in _groups(self._keys)]

    def _before(self, run: int, end: int, jobs: Mapping[str, str]) -> str:
        """Return the job that a run must wait for: that of its last stage before `end` that a job trains; else ""."""
        waits = [jobs[key] for key in self._keys[run][: end + 1] if jobs.get(key)]
        return waits[-1] if waits else ""

    def _job(self, runs: Sequence[int], until: int | None = None) -> Job:
        folders = [self.folders[run] for run in runs]
        stage = "" if until is None else f"-stage-{until + 1}"
        needs = [self._needs[run] for run in runs]
        return Job(
            needs=max(needs, key=lambda own: own.processes),
            name=f"cerank-{run_store.short_name(folders[0])}{stage}",
            lab=folders[0].lab.resolve(),
            arguments=arguments_for(
                folders,
                until=until,
                max_requeues=self._max_requeues,
                submission=self._mark.id if self._mark is not None else "",
            ),
        )

    def _submit_all(self, jobs: Sequence[Job], waits: Sequence[str]) -> Iterator[SubmittedJob]:
        """Submit jobs, those that wait for and need the same together; return what they got, in the order given."""
        submitted: dict[int, SubmittedJob] = {}
        alike = [(wait, job.needs) for wait, job in zip(waits, jobs, strict=True)]
        for wait, needs in dict.fromkeys(alike):
            numbers = [number for number, own in enumerate(alike) if own == (wait, needs)]
            answers = self._submit(*(jobs[number] for number in numbers), after=(wait,) if wait else ())
            submitted |= dict(zip(numbers, answers, strict=True))
        return (submitted[number] for number in range(len(jobs)))

    def _submit(self, *jobs: Job, after: Sequence[str] = ()) -> list[SubmittedJob]:
        answers = self.executor.submit(jobs, after)
        self._submitted += [answer.id for answer in answers if answer.id]
        return answers

    def _record(self, job: SubmittedJob, before: tuple[str, ...], trains: dict[str, str]) -> JobRecord:
        return JobRecord(
            executor=self.executor.name,
            kind=self.executor.kind,
            id=job.id,
            before=before,
            trains=trains,
            options=dict(self.executor.options),
            time=json_records.timestamp(datetime.now(UTC)),
            host=socket.gethostname(),
            log=job.log,
        )


def needs_of(plan: Plan) -> Needs:
    """Return what the processes of a plan compute with."""
    return Needs(plan.device.partition(":")[0], max(1, len(plan.devices)), plan.threads)


def jobs_of(executor: JobExecutor, folders: Sequence[RunFolder]) -> list[Job]:
    """Return the jobs of an executor that cannot make jobs wait: one for all runs that share a stage."""
    return Submission(executor, folders).grouped_jobs()


def _groups(runs: Sequence[Keys]) -> list[list[int]]:
    """Return the runs in groups that share stages, each in its order."""
    group_of = list(range(len(runs)))
    first: dict[str, int] = {}
    for run, keys in enumerate(runs):
        for key in keys:
            other = group_of[first.setdefault(key, run)]
            own = group_of[run]
            group_of = [other if group == own else group for group in group_of]
    return [[run for run in range(len(runs)) if group_of[run] == group] for group in dict.fromkeys(group_of)]


def finished_stages(lab: Path, keys: set[str]) -> set[str]:
    """Return which of these stages a run of the lab has finished, or an earlier stage of the same chain."""
    finished = set()
    for folder in run_store.folders(lab) if keys else []:
        try:
            plan = run_store.load_plan(folder)
            own = stage_keys(plan)
        except (CerankError, KeyError):
            continue  # a damaged run, or a plan of an older format; no worker can use it, either
        named = zip(own, plan.recipe.chain, strict=True)
        finished |= {key for at, (key, name) in enumerate(named) if key in keys and folder.final(at, name).is_dir()}
    return finished


def runs_waiting_for(folder: RunFolder) -> list[RunFolder]:
    """Return the runs of the lab whose jobs wait for a stage that a job of this run was to finish, and has not."""
    record = job_records.load(folder)
    if record is None or not record.trains:
        return []
    others = [other for other in run_store.folders(folder.lab) if other.name != folder.name]
    wanting: dict[RunFolder, set[str]] = {}
    for other, own in job_records.records(others):
        if own.executor != record.executor or own.is_canceled or other.done.exists():
            continue
        try:
            plan = run_store.load_plan(other)
            keys = set(stage_keys(plan)) if plan.shares else set()
        except (CerankError, KeyError):
            continue  # a damaged run; its job ends by itself
        wanting[other] = keys & record.trains.keys() - own.trains.keys()
    finished = finished_stages(folder.lab, {key for keys in wanting.values() for key in keys})
    return [other for other, keys in wanting.items() if keys - finished]


def stages_under_way(folders: Sequence[RunFolder]) -> dict[str, str]:
    """Return key -> job of the stages that jobs of other runs of the lab are going to finish."""
    names = {folder.name for folder in folders}
    others = [folder for folder in run_store.folders(folders[0].lab) if folder.name not in names]
    jobs: dict[str, str] = {}
    for folder, record in job_records.records(others):
        if record.is_canceled or folder.done.exists() or folder.failure.exists():
            continue
        states = job_records.answer_of(folder.lab, record.executor).states
        jobs |= {key: job for key, job in record.trains.items() if job and (job not in states or states[job].is_live)}
    return jobs
