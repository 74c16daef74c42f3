"""The command that opens the dashboard."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cerank.app import Lab
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info
from cerank.errors import UsageError

Name = Annotated[
    str, typer.Argument(metavar="[RUN]", help="Run to open: its short name, label or id, or a part of one of these.")
]


def tui(
    name: Name = "",
    keys: Annotated[
        bool, typer.Option("--keys", help="List every key with the id by which keys.toml may change it, and leave.")
    ] = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Open the dashboard, to start, watch, stop and compare runs in a terminal.

    Runs continue when the dashboard is closed.
    """
    settings = settings_of(lab, cache, device, threads)
    if keys:
        emit(_key_table(), settings.format)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", hint="`cerank ps` and `cerank show` work without one")
    home = Lab(settings)
    at = home.find(name).name if name else ""
    from cerank.tui.app import run

    said = run(home, at)
    if said:
        info(said)


def _key_table() -> Table:
    from cerank.app.dashboard_state import keys_file
    from cerank.tui.common.key_bindings import all_bindings

    columns = (Column("id", "id", "name"), Column("keys", "keys", "name"), Column("does", "what it does"))
    rows = tuple((name, keys, does) for name, (keys, does) in all_bindings().items())
    note = f'{keys_file()} may give them other keys: "runs.new" = "ctrl+n"'
    return Table("keys", columns, rows, notes=(note,))
