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
from cerank.runs.lab_address import LabAddress, is_address, parsed
from cerank.settings import Settings

Name = Annotated[
    str, typer.Argument(metavar="[RUN]", help="Run to open: its short name, label or id, or a part of one of these.")
]


def tui(
    name: Name = "",
    keys: Annotated[
        bool, typer.Option("--keys", help="List every key with the id by which keys.toml may change it, and leave.")
    ] = False,
    lab: options.LabOrAddress = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Open the dashboard, to start, watch, stop and compare runs in a terminal.

    Runs continue when the dashboard is closed.
    """
    address = parsed(lab) if lab is not None and is_address(lab) else None
    settings = settings_of(None if address else lab, cache, device, threads)
    if keys:
        emit(_key_table(), settings.format)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", hint="`cerank ps` and `cerank show` work without one")
    if address is not None:
        said = _over_ssh(address, settings, name)
        if said:
            info(said)
        return
    home = Lab(settings)
    at = home.find(name).name if name else ""
    from cerank.tui.app import run

    said = run(home, at)
    if said:
        info(said)


def _over_ssh(address: LabAddress, settings: Settings, name: str) -> str:
    """Run the dashboard over a lab on another machine; return the message to print then."""
    from cerank.app.over_ssh.remote_access import RemoteAccess
    from cerank.app.over_ssh.ssh_connection import SshConnection
    from cerank.tui.app import run

    connection = SshConnection(address)
    try:
        connection.open()
        access = RemoteAccess(connection, settings)
        at = connection.call("named_runs", {"texts": [name]}, kind=tuple[str, ...])[0][0] if name else ""
        return run(access.lab, at, access)
    finally:
        connection.close()


def _key_table() -> Table:
    from cerank.app.dashboard_state import keys_file
    from cerank.tui.common.key_bindings import all_bindings

    columns = (Column("id", "id", "name"), Column("keys", "keys", "name"), Column("does", "what it does"))
    rows = tuple((name, keys, does) for name, (keys, does) in all_bindings().items())
    note = f'{keys_file()} may give them other keys: "runs.new" = "ctrl+n"'
    return Table("keys", columns, rows, notes=(note,))
