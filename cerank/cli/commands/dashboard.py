"""The command that opens the dashboard."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cerank.app import Lab
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import info
from cerank.errors import UsageError

Name = Annotated[
    str, typer.Argument(metavar="[RUN]", help="Run to open: its short name, label or id, or a part of one of these.")
]


def tui(
    name: Name = "",
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Open the dashboard, to start, watch, stop and compare runs in a terminal.

    Runs continue when the dashboard is closed.
    """
    settings = settings_of(lab, cache, device, threads)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", hint="`cerank ps` and `cerank show` work without one")
    home = Lab(settings)
    at = home.find(name).name if name else ""
    from cerank.tui.app import run

    said = run(home, at)
    if said:
        info(said)
