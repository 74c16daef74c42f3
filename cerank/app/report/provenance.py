"""What each run recorded of itself: how far its stages moved, what its groups lacked, what was shared, its inputs.

Invariant: nothing is worked out again; a fact stands as the run wrote it when it happened.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence

from cerank import recipes
from cerank.app.comparison.named_systems import RunTarget
from cerank.app.report.report_data import RunRecord, StageRecord
from cerank.app.report.report_scope import ReportScope
from cerank.core.metrics import Event
from cerank.datasets.query_overlaps import SharedQueries
from cerank.files import journal, json_records
from cerank.recipes.plan import Plan
from cerank.runs import records, run_store
from cerank.runs.layout import RunFolder, plain_name
from cerank.training import stage_summary

_OF_STAGE = ("groups counted", "stage finished")
_PASSING = {"started", "checkpoint saved", "finished", "paused", *_OF_STAGE}


def run_records(report_scope: ReportScope) -> tuple[RunRecord, ...]:
    """Return the facts of every run behind the tables, each run once.

    Raises:
        DamagedError: a journal cannot be read.
    """
    out: dict[str, RunRecord] = {}
    for row in report_scope.rows:
        for member in row.members:
            if member.folder.name not in out:
                out[member.folder.name] = _record_of(member, row.model.label)
    return tuple(out.values())


def tied(members: Sequence[RunTarget], system: str, test: str, first_stage: str) -> float | None:
    """Return the mean share of tied documents that the runs recorded of one ranking; None where none did."""
    paths = [member.folder.ranking_stats_file(system, test, first_stage) for member in members]
    shares = [stats.tied for path in paths if (stats := json_records.load_if_there(path, stage_summary.RankingStats))]
    return statistics.fmean(shares) if shares else None


def recipe_file(run: str) -> str:
    """Return where in a report's folder a run's whole recipe stands."""
    return f"recipes/{plain_name(run, 100)}.toml"


def _record_of(member: RunTarget, model: str) -> RunRecord:
    folder, plan = member.folder, member.plan
    events = journal.read(folder.events, Event)
    shared = json_records.load_if_there(folder.overlaps, SharedQueries)
    passing = {*_PASSING, *(["queries shared"] if shared else [])}
    return RunRecord(
        run=folder.name,
        short_name=run_store.short_name(folder),
        label=member.label,
        model=model,
        seed=plan.recipe.seed,
        state=_state(folder),
        fingerprint=plan.fingerprint,
        command=_command(folder.name, plan),
        recipe_toml=recipes.render(plan.requested_recipe),
        inputs=tuple((entry.role, entry.name, entry.sha256) for entry in plan.inputs),
        versions=_versions(folder, plan.versions),
        stages=tuple(_stage(folder, index, name, events) for index, name in enumerate(plan.recipe.chain)),
        shared=shared.overlaps if shared else None,
        events=tuple((event.kind, event.text) for event in events if event.kind not in passing),
    )


def _state(folder: RunFolder) -> str:
    if folder.done.exists():
        return "finished"
    return "failed" if folder.failure.exists() else "not finished"


def _command(run: str, plan: Plan) -> str:
    """Return the command that does the run again from the report's folder."""
    words = ["cerank", "run", "--recipe", recipe_file(run), "--device", plan.device, "--threads", str(plan.threads)]
    if plan.devices:
        is_counted = plan.device in {"cpu", "cuda"}  # any of that kind
        words += ["--devices", str(len(plan.devices)) if is_counted else ",".join(plan.devices)]
    return shlex.join(words)


def _versions(folder: RunFolder, planned: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the versions of the last attempt, else of the plan."""
    numbers = folder.attempt_numbers()
    attempt = json_records.load_if_there(folder.attempt(numbers[-1]), records.Attempt) if numbers else None
    return tuple((attempt.versions if attempt else planned).items())


def _stage(folder: RunFolder, index: int, name: str, events: list[Event]) -> StageRecord:
    """Return a stage's facts, else the last event of each kind that names it."""
    stage_facts = stage_summary.read(folder.final(index, name))
    if stage_facts is not None:
        return StageRecord(stage=name, facts=stage_facts)
    texts = {event.kind: event.text.removeprefix(f"{name}: ") for event in events if event.text.startswith(f"{name}: ")}
    return StageRecord(stage=name, facts=None, events=tuple((kind, texts[kind]) for kind in _OF_STAGE if kind in texts))
