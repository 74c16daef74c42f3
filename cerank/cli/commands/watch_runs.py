"""Commands that show runs and change nothing."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cerank.app import Lab
from cerank.cli import options, table_columns
from cerank.cli.commands.start_run import RunName, settings_of
from cerank.cli.output import emit, info, write_output
from cerank.errors import CerankError, MissingError
from cerank.files import json_records
from cerank.files.safe_open import read_file

_POLL = 0.5  # seconds between two reads of a log that is followed


def ps(
    quiet: options.Quiet = False,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List the runs of the lab, the newest last."""
    settings = settings_of(lab, form=form, json=json)
    rows = Lab(settings).listed()
    if quiet:
        write_output("".join(f"{row.folder.name}\n" for row in rows))
        return
    emit(table_columns.run_table(rows, settings.lab, settings.format), settings.format)


def show(
    name: RunName,
    wide: options.Wide = False,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show one run: its result, validations, stages, inputs and files."""
    from cerank.app.comparison import run_answer
    from cerank.cli.live_status import print_answers
    from cerank.datasets.query_overlaps import SharedQueries

    settings = settings_of(lab, form=form, json=json)
    home = Lab(settings)
    folder = home.find(name)
    row = next(entry for entry in home.listed() if entry.folder == folder)
    shown = [table_columns.state_table(row, settings.format)]
    if row.plan is not None:
        try:  # what the run was made for comes first
            answer = run_answer.of_run(folder)
            print_answers(answer.paragraphs)
            shown += table_columns.result_tables(answer, settings.format, settings.hour_price)
        except CerankError as error:
            info(error.what if isinstance(error, MissingError) else f"No result can be shown: {error}")
        shown.append(table_columns.validation_table(folder, row.plan))
        shown.append(table_columns.stage_table(folder, row.plan))
        overlaps = json_records.load_if_there(folder.overlaps, SharedQueries)
        shown += [table_columns.shared_query_table(overlaps.overlaps)] if overlaps and overlaps.overlaps else []
        shown += [table_columns.input_table(row.plan), table_columns.ranking_table(folder, row.plan)]
        shown.append(table_columns.file_table(folder, row.plan))
    emit(shown, settings.format, wide=wide)


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
