"""`cerank run --matrix`: show a matrix with its cost and what is missing, or put its runs into the queue."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from cerank.app import Lab, estimates, next_steps, run_request
from cerank.app.matrix import cluster_forecast, matrix_runs
from cerank.app.matrix.matrix_runs import MatrixOutline, MatrixRuns
from cerank.app.matrix.outline_times import OutlineTimes
from cerank.app.run_request import RunRequest
from cerank.app.teaching import planned_teaching
from cerank.app.teaching.planned_teaching import TeachingPlace
from cerank.app.tracking import waiting_trackers
from cerank.app.tracking.tracking_process import TrackingRequest
from cerank.cli.output import Column, Table, emit, info, is_for_machines
from cerank.cli.tables import plan_tables
from cerank.machine.devices import resolve_device
from cerank.planning import several_devices
from cerank.runs import job_records, run_store
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown
from cerank.text.table_data import Kind, Value

_TEACHERS = "Teachers of all runs together, before anything is asked"


def run(
    home: Lab,
    request: RunRequest,
    tracking: TrackingRequest,
    *,
    dry_run: bool,
    pairs_per_second: float,
    nodes: int = 0,
) -> None:
    """Show the matrix, or queue (or submit, where the lab has an executor) those of its runs that are missing.

    Args:
        home: lab of the runs.
        request: which runs.
        tracking: trackers that runs queued now are sent to, from their first step on.
        dry_run: only show them.
        pairs_per_second: training speed, where the user knows it; 0 estimates it.
        nodes: how many nodes share the runs, for a prediction; 0 makes none.
    """
    from cerank.cli import live_status

    settings = home.plan_settings()
    grid = run_request.load_matrix(request)
    if dry_run:
        devices, now = several_devices.device_count(settings), datetime.now(UTC)
        with live_status.status_line() as tell:
            times = OutlineTimes(settings, pairs_per_second, now if home.executor is None else None, tell)
            outlined = matrix_runs.outline(grid, settings, node_devices=devices, times=times)
        _show_outline(grid, outlined, settings, times)
        if outlined.together and not pairs_per_second:
            where = times.source if outlined.is_measured else ""
            minutes = estimates.format_minutes(estimates.total(outlined.together))
            info(several_devices.time_in_words(devices, minutes, where))
        if nodes:
            is_measured = outlined.is_measured
            words = cluster_forecast.in_words(
                outlined.tasks, nodes, devices, settings.hour_price, is_measured=is_measured
            )
            info(words)
        return
    queued_matrix = matrix_runs.queue_missing_runs(home, grid, datetime.now(UTC), info)
    added = zip(queued_matrix.added, queued_matrix.attempts, strict=True)
    before = {folder.path: count for folder, count in added}
    waiting_trackers.start_when_they_begin(before, tracking if tracking.kinds else None)
    name = queued_matrix.record.name
    if home.executor is None:
        live_status.print_names(home, queued_matrix.added)
    else:
        records = [record for folder in queued_matrix.added if (record := job_records.load(folder)) is not None]
        live_status.tell_submitted(home, queued_matrix.added, records)
    done = "queued" if home.executor is None else "submitted"
    info(
        f"Matrix {name}: {counted(len(queued_matrix.added), 'run')} {done}; "
        f"{len(queued_matrix.there)} were already finished, running or queued."
    )
    if queued_matrix.added and home.executor is None:
        plan = run_store.load_plan(queued_matrix.added[0])
        info(live_status.wait_in_words(home, queued_matrix.added, plan))
    shown = next_steps.command(home.folder, "queue" if home.executor is None else "ps")
    info(f"{shown} shows them, and {next_steps.command(home.folder, f'report {name}')} writes the tables.")


def _show_outline(grid: MatrixRuns, matrix_outline: MatrixOutline, settings: Settings, times: OutlineTimes) -> None:
    matrix = grid.matrix
    place = TeachingPlace(settings.lab, settings.cache, resolve_device(settings.device), settings.threads or 1)
    teaching = planned_teaching.of_recipes([cell.recipe for cell in grid.cells], place)
    tables = [
        _run_table(matrix_outline, {} if is_for_machines(settings.format) else run_store.short_names(settings.lab)),
        *([plan_tables.work_table(matrix_outline.work)] if matrix_outline.work else []),
        *([_shared_table(matrix_outline)] if matrix_outline.shared else []),
        *([planned_teaching.table(teaching.teachers, _TEACHERS)] if teaching.teachers else []),
        _missing_table(matrix_outline),
    ]
    emit(tables, settings.format)
    trained = sum(len(row.chain) - len(row.taken) for row in matrix_outline.rows)
    stages = sum(len(row.chain) for row in matrix_outline.rows)
    pairs = sum(part.pairs for part in matrix_outline.work if part.part.startswith("train "))
    scored = sum(part.pairs for part in matrix_outline.work) - pairs
    info(
        f"Matrix {matrix.name}: {counted(len(matrix_outline.rows), 'run')}, {counted(stages, 'stage')}: "
        f"{trained} to train, {stages - trained} reused from another run."
    )
    has_filter = any(stage.filter.is_on for cell in grid.cells for _, stage in cell.recipe.chained())
    bound = "About" if has_filter else "At most"
    left = f"{bound} {pairs:,} pairs to train on and {scored:,} to score; {_time_text(matrix_outline, times)}."
    info(left if matrix_outline.work else "All runs are finished; there is nothing left to do.")
    if teaching.teachers:
        info(f"{planned_teaching.total_in_words(teaching)}. An answer that several runs need is asked for once.")
    for name, why in teaching.unknown.items():
        info(f"What the teachers of {name} take is not known: {why}")
    for base, template in dict.fromkeys((cell.recipe.base, cell.recipe.base_template) for cell in grid.cells):
        if template:
            info(f"{base} reads documents as {shown(template, 200)}")
    recipe = grid.cells[0].recipe
    tests = len(recipe.data.test)
    what = f"every recipe against {grid.baseline}"
    if recipe.evaluate.primary:
        what = f"the primary questions ({'; '.join(recipe.evaluate.primary)})"
    info(
        f"Family of tests: {what} on {counted(tests, 'test set')} x "
        f"{counted(len(recipe.data.first_stages), 'first stage')}; "
        f"{counted(matrix_outline.comparisons, 'comparison')} corrected together."
    )
    if matrix_outline.needs:
        count = len(matrix_outline.needs)
        info(f"{counted(count, 'input')} {'is' if count == 1 else 'are'} missing; no run can start without them.")
    else:
        info("No input is missing.")
    if matrix.paper:
        from cerank.app.report.paper.released_table import lacks_release

        info(
            lacks_release(matrix.paper, settings.cache)
            or f"`cerank report {matrix.name}` prints the paper's table again"
        )


def _time_text(matrix_outline: MatrixOutline, times: OutlineTimes) -> str:
    minutes = estimates.total(matrix_outline.work)
    if minutes is None:
        return f"the time is unknown: {times.why_unknown} (you can give --pairs-per-second)"
    ends = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + minutes * 60))
    takes = f"on one device at most about {estimates.format_minutes(minutes)}, until {ends} if it starts now"
    return f"{takes} ({times.source})"


def _run_table(matrix_outline: MatrixOutline, short: Mapping[str, str]) -> Table:
    has_folds = any(row.fold for row in matrix_outline.rows)
    columns = (
        Column("recipe", "recipe"),
        Column("base", "base"),
        Column("seed", "seed", "number", 0),
        *([Column("fold", "fold", "number", 0)] if has_folds else []),
        Column("trains", "trains", priority=1),
        Column("takes_over", "reuses", priority=2),
        Column("seconds", "time", "duration"),
        Column("run", "run", "name"),
        Column("state", "state"),
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            row.recipe,
            row.base,
            row.seed,
            *([row.fold] if has_folds else []),
            " > ".join(name for name in row.chain if name not in row.taken),
            ", ".join(row.taken),
            0.0 if row.state == "finished" else estimates.seconds_of(row.minutes),
            short.get(row.run, row.run),
            row.state,
        )
        for row in matrix_outline.rows
    )
    return Table("runs", columns, rows, "Runs, in queue order")


def _shared_table(matrix_outline: MatrixOutline) -> Table:
    number: Kind = "number"
    columns = (Column("part", "part"), Column("pairs", "pairs through the model", number, 0))
    rows = tuple((part.part, part.pairs) for part in matrix_outline.shared)
    return Table("shared", columns, rows, "Reused: work that another run does or has done")


def _missing_table(matrix_outline: MatrixOutline) -> Table:
    columns = (Column("kind", "kind"), Column("name", "name"), Column("text", "what"), Column("how", "how to get it"))
    rows = tuple((need.kind, need.name, need.text, need.how) for need in matrix_outline.needs)
    return Table("needs", columns, rows, "Missing inputs", empty="No input is missing.")
