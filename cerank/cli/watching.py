"""Commands that look at runs and change nothing."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cerank.cli import options, tables
from cerank.cli.output import emit, put, say
from cerank.cli.running import RunName, settings_of
from cerank.errors import MissingError
from cerank.lab import Lab
from cerank.reading import read_file
from cerank.store import records

_POLL = 0.5  # seconds between looks at a log that is followed


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
        put("".join(f"{row.folder.name}\n" for row in rows))
        return
    emit(tables.listing(rows, settings.lab, settings.format), settings.format)


def show(
    name: RunName,
    wide: options.Wide = False,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show one run: how it stands, its plan, its validations, its table, and where its files are."""
    from cerank.cli.following import tell
    from cerank.data.overlaps import Shared
    from cerank.lab import answering

    settings = settings_of(lab, form=form, json=json)
    home = Lab(settings)
    folder = home.find(name)
    row = next(entry for entry in home.listed() if entry.folder == folder)
    answers: tuple[str, ...] = ()
    shown = [tables.state(row, settings.format)]
    if row.plan is not None:
        shown += [tables.inputs(row.plan), tables.stages(folder, row.plan), tables.validations(folder, row.plan)]
        overlaps = records.load_if_there(folder.overlaps, Shared)
        shown += [tables.shared(overlaps.overlaps)] if overlaps and overlaps.overlaps else []
        try:
            told = answering.of_run(folder)
            shown += tables.results(told, settings.format)
            answers = told.paragraphs
        except MissingError as error:
            say(error.what)
        shown.append(tables.rankings(folder, row.plan))
        shown.append(tables.places(folder, row.plan))
    emit(shown, settings.format, wide=wide)
    tell(answers)


def logs(
    name: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the run does.")] = False,
    lab: options.Lab = None,
) -> None:
    """Print a run's events, and what its worker wrote."""
    from cerank.lab.following import Follower

    home = Lab(settings_of(lab))
    folder = home.find(name)
    follower = Follower(folder)
    while True:
        news = follower.look()
        for event in news.events:
            put(f"{event.time} [{event.attempt}] {event.kind}: {event.text}\n")
        if not follow or news.status.state not in {"running", "stopping", "waiting", "queued"}:
            break
        time.sleep(_POLL)
    if news.status.state in {"failed", "lost", "waiting"} and folder.log.is_file():
        put(read_file(folder.log).decode("utf-8", "replace"))
