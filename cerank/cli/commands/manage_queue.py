"""Commands that show the queue, start it, change its order, and add and remove runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cerank.app import Lab, next_steps
from cerank.app.tracking import waiting_trackers
from cerank.cli import options
from cerank.cli.command_class import CommandLine
from cerank.cli.commands.start_run import RunName, settings_of
from cerank.cli.output import Column, Table, emit, info, is_for_machines
from cerank.cli.tables import run_tables
from cerank.errors import UsageError
from cerank.runs import run_store
from cerank.scheduler.queue_status import QueueState
from cerank.settings import Settings
from cerank.text.safe_text import counted

queue_app = CommandLine(
    help="The queue: runs that start automatically, in order, one on each free device.",
    invoke_without_command=True,
    no_args_is_help=False,
)

_Place = Annotated[int, typer.Argument(metavar="PLACE", help="New place; the run at place 1 starts next.", min=1)]


@queue_app.callback()
def show_queue(
    context: typer.Context,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show which runs wait, in the order in which they will start, and which run each device has."""
    if context.invoked_subcommand is not None:
        if lab is not None or form is not None or json:
            raise UsageError(
                "options must follow the subcommand", hint=f"cerank queue {context.invoked_subcommand} --lab"
            )
        return
    settings = settings_of(lab, form=form, json=json)
    home = Lab(settings)
    print_queue_state(home.queue_state(), home.folder)
    emit(_queue_table(home, settings), settings.format)


def _queue_table(home: Lab, settings: Settings) -> Table:
    rows = {row.folder: row for row in home.listed()}
    queued = [rows[folder] for folder in home.queued() if folder in rows]
    columns: tuple[Column, ...] = (
        Column("place", "place", "number", 0),
        Column("run", "run", "name"),
        Column("state", "state"),
        Column("device", "device", priority=1),
        Column("label", "label", priority=2),
    )
    is_exact = is_for_machines(settings.format)
    rows_shown: list[tuple[str | int, ...]] = []
    for place, row in enumerate(queued, 1):
        name = row.folder.name if is_exact else row.short_name
        state, device = run_tables.state_text(row.status.state, settings.format), row.plan.device if row.plan else ""
        rows_shown.append((place, name, state, device, row.label, *([row.short_name] if is_exact else [])))
    if is_exact:
        columns = (*columns, Column("short_name", "short_name"))
    return Table(
        "queue",
        columns,
        tuple(rows_shown),
        empty=f"No run is waiting in {settings.lab}. {next_steps.command(settings.lab, 'run --queue')} adds one.",
    )


def print_queue_state(state: QueueState, lab: Path) -> None:
    """Print which run each device has, and how to start a queue that is stopped."""
    short = run_store.short_names(lab)
    for slot in state.slots:
        info(f"{slot.device}: {short.get(slot.run, slot.run) or 'free'}")
    if state.damage:
        info(f"The queue cannot be read: {state.damage}")
    if state.state == "stopped":
        info(stopped_in_words(state, lab))


def stopped_in_words(state: QueueState, lab: Path) -> str:
    """Return that the queue is stopped, what waits in it, and how to start it."""
    waits = "1 run waits" if state.waiting == 1 else f"{counted(state.waiting, 'run')} wait"
    return f"The queue is stopped, and {waits}. Start it with {next_steps.command(lab, 'queue start')}."


@queue_app.command("start")
def start_queue(lab: options.Lab = None) -> None:
    """Start the queue in the background; it ends when it is empty.

    It does not restart after a reboot.
    """
    home = Lab(settings_of(lab))
    before = home.queue_state()
    if before.state == "idle":
        info("No run is waiting, so there is nothing to start.")
        return
    queued = {folder.path: waiting_trackers.attempts_of(folder) for folder in home.queued()}
    home.start_queue()
    waiting_trackers.start_when_they_begin(queued)
    print_queue_state(home.queue_state(), home.folder)


@queue_app.command("add")
def add_to_queue(name: RunName, lab: options.Lab = None) -> None:
    """Put a run that has not started, or is paused, lost or failed, at the end of the queue."""
    home = Lab(settings_of(lab))
    folder = home.find(name)
    before = waiting_trackers.attempts_of(folder)
    home.resume_queued(folder)
    waiting_trackers.start_when_they_begin({folder.path: before})
    info(f"Run {run_store.title(folder)} is queued. {next_steps.command(home.folder, 'queue')} shows its place.")


@queue_app.command("move")
def move_in_queue(name: RunName, place: _Place, lab: options.Lab = None) -> None:
    """Move a queued run to another place in the queue."""
    home = Lab(settings_of(lab))
    folder = home.find(name)
    home.move(folder, place)
    order = [queued.name for queued in home.queued()]
    if folder.name in order:
        info(f"Run {run_store.title(folder)} is at place {order.index(folder.name) + 1} of {len(order)}")


@queue_app.command("drop")
def drop_from_queue(name: RunName, lab: options.Lab = None) -> None:
    """Remove a run from the queue. The run itself is not deleted."""
    home = Lab(settings_of(lab))
    folder = home.find(name)
    if home.status(folder).state != "queued":
        raise UsageError(
            "the run is not in the queue",
            where=run_store.title(folder),
            hint=f"{next_steps.command(home.folder, 'queue')} lists queued runs",
            code="not-queued",
        )
    home.unqueue(folder)
    info(
        f"Run {run_store.title(folder)} was removed from the queue. "
        f"{next_steps.command(home.folder, 'queue add', folder)} puts it back."
    )
