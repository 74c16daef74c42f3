"""The command that declares the plan of a comparison before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit, info, write_output


def declare(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="TOML file with the plan. Default: list the plans of the lab."),
    ] = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Declare how rankings will be compared, before they are: the plan is kept with its time, under a hash to publish.

    `cerank compare A B --plan TITLE` then compares by it, and says whether it was made before the results were known.
    """
    from cerank.app.evidence import declared_plans

    settings = settings_of(lab, cache, form=form, json=json)
    if file is None:
        emit(declared_plans.table(settings), settings.format)
        return
    plan = declared_plans.read_plan(file)
    declared_plan, path = declared_plans.declare(settings, plan)
    write_output(declared_plans.as_text(declared_plan))
    info(f"Kept in {path}. Publish the hash, in a repository or a registry, to show that it was made now.")
