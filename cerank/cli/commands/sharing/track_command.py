"""The command that sends a run to experiment trackers."""

from __future__ import annotations

from typing import Annotated

import typer

from cerank.app import Lab
from cerank.app.tracking import track_run, tracking_process
from cerank.app.tracking.tracking_process import TrackingRequest
from cerank.cli import options
from cerank.cli.commands.start_run import RunName, settings_of
from cerank.cli.output import Column, Table, emit, info
from cerank.errors import ExitCode
from cerank.runs import run_store

_COLUMNS = (
    Column("tracker", "Tracker", "name"),
    Column("state", "State"),
    Column("steps", "Last step"),
    Column("where", "Where"),
)


def track(
    name: RunName,
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="TRACKER",
            help="wandb, trackio, mlflow or tensorboard; an extra of that name installs each. May be repeated.",
            autocompletion=options.completed_from(lambda: options.TRACKER_NAMES),
        ),
    ],
    project: Annotated[
        str,
        typer.Option("--project", metavar="NAME", help="Project under which trackers file the run. Default: cerank."),
    ] = "",
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Send nothing to a server: trackers keep the run on this machine."),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Send in the background and return at once.")] = False,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Send the curves, tables and verdict of a run to wandb, trackio, mlflow or tensorboard.

    A finished run is sent whole, one that is running is followed until it ends. What a tracker was sent before is not
    sent again. A process of its own does the work; Ctrl-C leaves it in the background.
    """
    settings = settings_of(lab, form=form, json=json)
    folder = Lab(settings).find(name)
    request = TrackingRequest(kinds=tuple(to), project=project, is_offline=offline)
    tracking_process.check_request(request, "--to")
    processes = tracking_process.start(folder, request)
    if detach:
        info(f"Run {run_store.title(folder)} is being sent; {folder.trackers} has a log for each tracker")
        return
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:
        info(f"The trackers go on in the background; {folder.trackers} has a log for each")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    rows = []
    for kind, code in zip(request.kinds, codes, strict=True):
        record = track_run.load_record(folder, kind)
        failure = (record.failure if record is not None else "") or (f"exit code {code}" if code else "")
        if code == ExitCode.HELD:
            failure = "another process sends this run to it"
        position = record.steps if record is not None else None
        rows.append(
            (
                kind,
                failure or "sent",
                f"{position.step} of stage {position.stage + 1}" if position is not None else "",
                record.where if record is not None else "",
            )
        )
    emit(Table("trackers", _COLUMNS, tuple(rows)), settings.format)
    if any(codes):
        raise typer.Exit(ExitCode.HELD if set(codes) <= {0, ExitCode.HELD} else ExitCode.FAILED)
