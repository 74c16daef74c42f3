"""Runs: those of a lab in a row each, and one of them key by key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cerank.app.run_views import run_list
from cerank.app.run_views.display import GLYPHS, age, at_words, clock, short
from cerank.app.run_views.seed_groups import RunSettings, SeedGroups
from cerank.cli.output import Column, Table, format_of, is_for_machines
from cerank.core.metrics import Progress
from cerank.files import journal
from cerank.recipes.plan import Plan
from cerank.recipes.schema import kept_name
from cerank.runs import job_records, run_summaries
from cerank.runs.job_records import JobStart
from cerank.runs.layout import RunFolder
from cerank.runs.run_store import RunRow
from cerank.text.safe_text import counted, shown
from cerank.text.table_data import key_value_table

if TYPE_CHECKING:
    from cerank.app.run_views.run_monitor import RunEntry


def run_table(rows: Sequence[RunEntry], lab: Path, form: str = "", *, all_trials: bool = False) -> Table:
    """Return the runs of a lab: everything for machines, what fits a line for people.

    Args:
        rows: the runs.
        lab: folder of the lab.
        form: format, as `--format` names it.
        all_trials: for people, each trial of a sweep as a row; otherwise a sweep is one row.
    """
    empty = f"No runs in {lab} yet. Start one with `cerank run --recipe contrastive-then-distill`."
    if format_of(form) != "table":
        first = ("run", "state", "chain", "base", "seed", "at", "left", "label", "why", "short_name")
        keys = (*first, "created", "measure", "score", "test")
        return Table("runs", tuple(Column(key, key) for key in keys), tuple(map(_full_row, rows)), empty=empty)
    if not all_trials:
        rows = SeedGroups(RunSettings()).folded(rows, are_seeds_folded=False)
    scores = [_score(row) for row in rows]
    measures = {measure for measure, _ in scores if measure}
    searched = any(row.trial or row.sweep for row in rows)
    heading = measures.pop() if len(measures) == 1 else "score"
    tests = list(map(run_list.named_test, rows))
    columns: tuple[Column, ...] = (
        Column("run", "run", "name"),
        Column("label", "label", priority=0 if searched else 2),  # nothing else tells trials apart
        Column("state", "state", "name"),
        Column("recipe", "recipe", priority=3),
        Column("base", "base", priority=4),
        Column("seed", "seed", "number", 0, priority=5),
        Column("age", "age", "name", priority=6),
        Column("score", heading, "number", 4, priority=1),
        *([Column("test", "on", priority=1)] if any(tests) else []),
        Column("now", "now", priority=1),
    )
    now = datetime.now(UTC)
    body = tuple(
        _short_row(row, score, now, [test] if any(tests) else [])
        for row, test, (_, score) in zip(rows, tests, scores, strict=True)
    )
    if searched and all(score is None for _, score in scores):
        places = [place for place, column in enumerate(columns) if column.key != "score"]
        columns, body = (
            tuple(columns[place] for place in places),
            tuple(tuple(row[place] for place in places) for row in body),
        )
    sweeps = sum(row.sweep is not None for row in rows)
    note = (
        f"{counted(sweeps, 'sweep')}, a row for each; --all shows the trials, `cerank sweep FILE --results` ranks them"
    )
    return Table("runs", columns, body, notes=(note,) if sweeps else (), empty=empty)


def _score(row: RunEntry) -> tuple[str, float | None]:
    """Return the first measure of a finished run on its first test dataset, with its mean."""
    return row.final or ("", None)


def _full_row(row: RunEntry) -> tuple[str | int | float | None, ...]:
    state, why = row.status.state, row.status.text
    if row.plan is None:
        return (row.folder.name, state, "", "", None, "", None, "", why, row.short_name, "", "", None, "")
    recipe = row.plan.recipe
    at, left = _position(row)
    chain = " > ".join(recipe.chain)
    run = (row.folder.name, state, chain, recipe.base, recipe.seed, at, left, row.label, why, row.short_name)
    measure, score = _score(row)
    return (*run, row.plan.created, measure, score, recipe.data.test[0] if score is not None else "")


def _short_row(
    row: RunEntry, score: float | None, until: datetime, test: Sequence[str]
) -> tuple[str | int | float | None, ...]:
    """Return a run in short cells, `test` after the score; the last says where it is, or why it stands."""
    at, left = _position(row)
    time = clock(left or 0)  # "" below half a second
    now = f"{at}, {time} left" if time else at or _reason(row)
    now = "files changed" if row.status.state == "damaged" else now
    recipe = row.plan.recipe if row.plan else None
    name = row.sweep.title if row.sweep else recipe.name if recipe else ""
    described = (name, recipe.base.rstrip("/").rpartition("/")[2], recipe.seed) if recipe else ("", "", None)
    created = age(row.plan.created, until) if row.plan else ""
    if row.sweep is not None:
        now = f"{row.sweep.progress}, {_validated(row)}".removesuffix(", ")
    elif row.trial is not None and row.state == "finished":
        now = _validated(row)
    elif row.trial is not None and row.trial.stopped:
        now = row.at
    label = row.trial.text() if row.trial is not None and not row.notes.label else row.label
    now = shown(at_words(now, 60))
    return (row.short_name, label, state_text(row.status.state, "table"), *described, created, score, *test, now)


def _validated(row: RunEntry) -> str:
    return f"valid. {row.validated[0]} {short(row.validated[1])}" if row.validated else ""


def state_text(state: str, form: str = "") -> str:
    """Return a state in its word, for people with its sign before it."""
    return f"{GLYPHS[state]} {state}" if format_of(form) == "table" else state


def state_table(row: RunRow, form: str = "") -> Table:
    """Return how one run stands, key by key."""
    status = row.status
    is_short = not is_for_machines(form)
    rows = [("run", row.short_name if is_short else row.folder.name)]
    rows.append(("state", f"{GLYPHS[status.state]} {status.state}"))
    if is_short and row.label:
        rows.insert(1, ("label", row.label))
    if status.text:
        rows.append(("why", _reason(row)))
    if status.progress and status.state in {"running", "stopping"}:
        rows.append(("at", _position_text(status.progress)))
    rows.append(("attempts", str(status.attempts)))
    rows += _job_rows(row.folder)
    if row.plan is not None:
        recipe, plan = row.plan.recipe, row.plan
        rows += [("recipe", recipe.name), ("chain", " > ".join(recipe.chain)), ("base", recipe.base)]
        rows += [("seed", str(recipe.seed)), ("device", f"{plan.device}, {counted(plan.threads, 'thread')}")]
        rows += [("created", plan.created), ("fingerprint", plan.fingerprint)]
        if row.label and not is_short:
            rows.append(("label", row.label))
    rows.append(("id", row.folder.name) if is_short else ("short_name", row.short_name))
    return key_value_table("run", rows)


def _job_rows(folder: RunFolder) -> list[tuple[str, str]]:
    """Return what is known of a run's job on another machine: where it stands, its log, and how earlier ones ended."""
    job = job_records.job_of(folder)
    if job is None:
        return []
    has_ended = folder.done.exists()  # nobody asks for its job any more
    text = f"{job.record.executor} job {job.record.id}" if has_ended else job.text
    rows = [("job", text), ("submitted", f"{job.record.time} on {job.record.host}")]
    rows += [("log of the job", job.record.log)] if job.record.log else []
    if job.record.log and job.state.phase == "ended" and not has_ended:  # where no worker began, nothing else says why
        rows += [("its last line", line) for line in run_summaries.LogTail(Path(job.record.log)).new()[-1:]]
    starts, _ = journal.read_valid_rows(folder.job_starts, JobStart)
    for start in starts:
        if start.kind != "started":
            rows.append((f"{start.time}", f"job {start.job or '-'} on {start.host} {start.kind}: {start.text}"))
    return rows


def _reason(row: RunRow | RunEntry) -> str:
    """Return why a run is in its state, with paths inside the run shortened."""
    return row.status.text.replace(f"{row.folder.path}/", "")


def _position(row: RunRow | RunEntry) -> tuple[str, float | None]:
    """Return where a live run is, and the seconds left of it (of its phase, where the run was not estimated)."""
    progress = row.status.progress
    if progress is None or row.status.state not in {"running", "stopping"}:
        return "", None
    return _position_text(progress), progress.expected_seconds


def _position_text(progress: Progress) -> str:
    count = f"{progress.done}/{progress.total}" if progress.total else ""
    return " ".join(part for part in (progress.phase, progress.detail, count) if part)


def file_table(folder: RunFolder, plan: Plan) -> Table:
    """Return where a run keeps what it made."""
    rows = [("run", str(folder.path))]
    for index, name in enumerate(plan.recipe.chain):
        rows.append((f"checkpoint {name}", str(folder.final(index, name))))
        for measure in plan.recipe.stages[name].keep_best:
            rows.append((f"checkpoint {kept_name(name, measure)}", str(folder.best_model(index, name, measure))))
    rows += [("TREC runs", str(folder.path / "rankings")), ("measures", str(folder.path / "measures"))]
    rows.append(("readings", str(folder.readings)))
    return key_value_table("files", rows, "Files")


def size_of(folder: Path) -> str:
    """Return what a folder holds, in words."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return f"{size / 1e6:,.0f} MB"
