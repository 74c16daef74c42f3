"""Commands that show runs and change nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cerank.app import Lab
from cerank.app.run_views.rank_table import rank_table
from cerank.app.run_views.run_monitor import LabMonitor, plain_line
from cerank.cli import options
from cerank.cli.commands.start_run import RunName, settings_of
from cerank.cli.document_meta import document_meta, meta_of_comparison
from cerank.cli.output import emit, info, is_for_machines, write_output
from cerank.cli.tables import measured_tables, plan_tables, run_tables, stage_tables
from cerank.errors import CerankError, MissingError, UsageError
from cerank.files import json_records
from cerank.files.safe_open import read_file
from cerank.runs import run_store

if TYPE_CHECKING:
    from cerank.app.run_views.run_monitor import RunEntry

_POLL = 0.5  # seconds between two reads of a log that is followed
_WATCH_POLL = 2.0  # seconds between two looks at a lab that is watched


def ps(
    quiet: options.Quiet = False,
    every_trial: Annotated[
        bool,
        typer.Option("--all", help="A row for each trial of a sweep; otherwise, a sweep is one row."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print a plain line for each change, until nothing is running or queued.")
    ] = False,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List the runs of the lab, the newest last."""
    settings = settings_of(lab, form=form, json=json)
    if every_trial and (quiet or watch or json or form not in {None, "", "table"}):
        what = "--all only works with the table; --quiet, --watch and other formats have every run"
        raise UsageError(what, where="--all", hint="leave it out", code="options-conflict")
    if watch:
        if quiet or json or form:
            raise UsageError("--watch prints plain lines", hint="leave out --quiet, --json and --format")
        _watch(Lab(settings))
        return
    home = Lab(settings)
    if quiet:
        write_output("".join(f"{folder.name}\n" for folder in run_store.folders(home.folder)))
        return
    monitor = LabMonitor(home.folder, cache=settings.cache, refresh_jobs=home.refresh_jobs)
    entries = monitor.poll(now=datetime.now(UTC))
    emit(run_tables.run_table(entries, settings.lab, settings.format, all_trials=every_trial), settings.format)
    monitor.save_index()


def _watch(lab: Lab) -> None:
    """Print a line for each run that is at work or waits, and one for each change, for logs and screen readers."""
    monitor = LabMonitor(lab.folder, lab.queue_state, refresh_jobs=lab.refresh_jobs)
    before: dict[str, tuple[str, str]] = {}
    while True:
        entries = monitor.poll()
        active = [entry for entry in entries if entry.is_live or entry.state == "queued"]
        for entry in entries:
            now = _progress_mark(entry)
            is_new = entry in active if entry.name not in before else before[entry.name] != now
            before[entry.name] = now
            if is_new:
                write_output(f"{datetime.now().astimezone():%H:%M:%S} {plain_line(entry)}\n")
        if not active:
            info("Nothing is running or queued.")
            return
        time.sleep(_WATCH_POLL)


def _progress_mark(entry: RunEntry) -> tuple[str, str]:
    """Return what changes whenever a line about the run is worth reading: its state, and each tenth of its stage."""
    tenth = "" if entry.share is None else f"{10 * entry.share:.0f}"
    return entry.state, f"{entry.stage} {tenth}" if entry.is_live else entry.waits_for


def show(
    name: RunName,
    notes: Annotated[
        bool,
        typer.Option("--notes", help="Show every note under the result, not only those that warn of a wrong reading."),
    ] = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show one run: its result, validations, stages, inputs and files."""
    from cerank.app import fold_runs
    from cerank.app.comparison import recorded_looks, run_answer
    from cerank.app.rankings import depth_report
    from cerank.cli.live_status import print_answers
    from cerank.datasets.query_overlaps import SharedQueries

    settings = settings_of(lab, form=form, json=json)
    home = Lab(settings)
    folder = home.find(name)
    home.refresh_jobs()
    row = run_store.row(folder, datetime.now(UTC))
    row = msgspec.structs.replace(row, short_name=run_store.short_name(folder))
    shown, meta = [run_tables.state_table(row, settings.format)], document_meta()
    if row.plan is not None:
        try:  # what the run was made for comes first
            answer = run_answer.of_run(folder)
            meta = meta_of_comparison(answer.comparison)
            recorded_looks.record_shown(settings, [answer.comparison], by="show", pooled=answer.pooled)
            print_answers(answer.paragraphs)
            shown += measured_tables.result_tables(
                answer, settings.format, settings.hour_price, run=row.short_name, with_all_notes=notes
            )
            for sentence in run_answer.what_was_read(folder, row.plan):
                info(sentence)
            if of_folds := fold_runs.in_words(folder, row.plan):
                info(of_folds)
            curves = depth_report.declared(folder, row.plan)
            depth_table = depth_report.full_table if is_for_machines(settings.format) else depth_report.table
            if curves is not None:
                recorded_looks.record_shown(settings, [curves.comparison], by="show")
                shown.append(depth_table(curves))
        except CerankError as error:
            info(error.what if isinstance(error, MissingError) else f"No result can be shown: {error}")
        shown.append(stage_tables.validation_table(folder, row.plan))
        shown.append(stage_tables.stage_table(folder, row.plan))
        shown += [losses] if (losses := stage_tables.loss_table(folder, row.plan)) else []
        shown += [devices] if (devices := rank_table(folder, row.plan)) is not None else []
        overlaps = json_records.load_if_there(folder.overlaps, SharedQueries)
        shown += [plan_tables.shared_query_table(overlaps.overlaps)] if overlaps and overlaps.overlaps else []
        shown += [plan_tables.input_table(row.plan), stage_tables.ranking_table(folder, row.plan)]
        shown.append(run_tables.file_table(folder, row.plan))
    emit(shown, settings.format, wide=wide, meta=meta)


def logs(
    name: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log as it grows.")] = False,
    lab: options.Lab = None,
) -> None:
    """Print the events of a run; if it failed, also the output of its worker."""
    from cerank.app.run_views.run_updates import Follower

    home = Lab(settings_of(lab))
    folder = home.find(name)
    follower = Follower(folder)
    while True:
        update = follower.poll()
        for event in update.events:
            write_output(f"{event.time} [{event.attempt}] {event.kind}: {event.text}\n")
        if not follow or update.status.state not in {"running", "stopping", "waiting", "queued"}:
            break
        time.sleep(_POLL)
    if update.status.state in {"failed", "lost", "waiting"} and folder.log.is_file():
        write_output(read_file(folder.log).decode("utf-8", "replace"))
