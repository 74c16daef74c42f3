"""The command that asks the index of the lab's runs in SQL."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cerank.app import Lab
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit
from cerank.errors import UsageError


def query(
    statement: Annotated[
        str, typer.Argument(metavar="[SQL]", help='One SELECT statement; "-" reads it from standard input.')
    ] = "",
    tables: Annotated[bool, typer.Option("--tables", help="List the tables and their columns, and leave.")] = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Ask the runs of the lab in SQL, read-only: states, settings, validations and measures.

    The tables are an index that is brought up to date first, from the folders of the runs that changed.
    """
    from cerank.app.run_views import query_index

    settings = settings_of(lab, cache, form=form, json=json)
    if tables:
        if statement:
            raise UsageError("--tables takes no statement", hint="leave out one of the two", code="bad-query")
        emit(query_index.tables(), settings.format, wide=wide)
        return
    if statement == "-":
        statement = sys.stdin.read()
    if not statement.strip():
        hint = 'such as cerank query "SELECT short_name, state FROM runs"; --tables lists what there is'
        raise UsageError("no statement was given", where="SQL", hint=hint, code="bad-query")
    emit(query_index.query(Lab(settings), statement), settings.format, wide=wide)
