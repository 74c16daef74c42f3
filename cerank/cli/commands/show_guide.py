"""The command that lists the guides and shows one of them."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cerank import guides
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info, write_output
from cerank.errors import UsageError

LESS = "-FRX"  # leave at once if it fits one screen, show colors, keep the text on the terminal afterwards


def _names(incomplete: str) -> list[str]:
    return [name for name in guides.ORDER if name.startswith(incomplete)]


def guide(
    name: Annotated[
        str, typer.Argument(metavar="[GUIDE]", help="Guide to show. Default: list all guides.", autocompletion=_names)
    ] = "",
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List the guides, or show one: verdicts, recipes, datasets, matrices, output formats and more.

    On a terminal a guide opens in your pager; in a pipe or file it is plain Markdown.
    """
    if name and (form or json):
        raise UsageError(
            "a guide is Markdown and has no other format", where="--format", hint="omit --format and --json"
        )
    if name:
        _show(guides.find(name))
        return
    columns = (Column("guide", "guide", "name"), Column("summary", "what it explains"))
    rows = tuple((entry.name, entry.summary) for entry in guides.guides())
    emit(Table("guides", columns, rows), settings_of(form=form, json=json).format)
    info("`cerank guide NAME` shows a guide.")


def _show(chosen: guides.Guide) -> None:
    if not sys.stdout.isatty():
        write_output(chosen.markdown)
        return
    from rich.console import Console

    from cerank.cli.guide_tables import GuideMarkdown

    os.environ.setdefault("LESS", LESS)
    console = Console()
    with console.pager(styles=console.color_system is not None):
        console.print(GuideMarkdown(chosen.markdown))
