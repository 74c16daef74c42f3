"""The commands that look for damage: one run, or the whole lab."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, is_for_machines, say
from cerank.errors import ExitCode
from cerank.runs import run_store
from cerank.text.safe_text import counted

_VERIFIED = (Column("run", "Run"), Column("key", "What"), Column("value", "Is"))
_FOUND = (Column("state", "State"), Column("where", "Where"), Column("what", "What"), Column("hint", "What to do"))

Run = Annotated[list[str], typer.Argument(metavar="RUN...", help="A run's short name, label or id, or a part of one.")]
Fix = Annotated[
    bool,
    typer.Option("--fix", help="Move aside what is damaged and can be made again; remove killed work's leftovers."),
]
All = Annotated[bool, typer.Option("--all", help="Show what is in order, too.")]


def verify(
    run: Run,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compute every hash of a run again, and its measures from its rankings; exit 1 where something differs.

    A damaged run is marked so and shown so in lists, until `cerank resume` has made again what it can.
    """
    from cerank.app.checks.verify_run import verify

    settings = settings_of(lab, cache, form=form, json=json)
    rows: list[tuple[str, str, str]] = []
    is_well = True
    for folder in [run_store.find(settings.lab, text) for text in run]:
        name = folder.name if is_for_machines(settings.format) else run_store.short_name(folder)
        found = verify(folder, datetime.now(UTC))
        is_well = is_well and not found.problems
        rows += [
            (name, "files with a hash", str(found.files)),
            (name, "sealed models and checkpoints", str(found.models)),
            (name, "rankings measured again", str(found.rankings)),
            (name, "values compared", str(found.values)),
            (name, "largest difference", f"{found.largest:.1e}" if found.largest else "0"),
            (name, "verdict", "as it was written" if not found.problems else "damaged"),
            *((name, "problem", problem) for problem in found.problems),
        ]
        if found.problems:
            say(
                f"{run_store.title(folder)} is damaged: "
                f"`cerank resume {run_store.short_name(folder)}` makes again what can be"
            )
    emit(Table("verified", _VERIFIED, tuple(rows)), settings.format)
    if not is_well:
        raise typer.Exit(ExitCode.FAILED)


def doctor(
    fix: Fix = False,
    all_: All = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Look at the lab, its runs, the cache and this machine, and say what to do; exit 1 where something is wrong.

    Looks at every byte of every run, so it takes some seconds a gigabyte.
    """
    from cerank.app.checks import doctor as examining

    settings = settings_of(lab, cache, form=form, json=json)
    found = examining.examine(settings, fix=fix, with_speed=True)
    short = {} if is_for_machines(settings.format) else run_store.short_names(settings.lab)
    told = [one for one in found if all_ or one.is_told or one.state != "good"]
    rows = tuple((one.state, short.get(one.where, one.where), one.what, one.hint) for one in told)
    emit(Table("doctor", _FOUND, rows, empty="nothing is wrong"), settings.format)
    wrong = sum(one.state == "wrong" for one in found)
    say(f"{counted(len(found), 'thing')} looked at, {wrong} wrong")
    if wrong:
        raise typer.Exit(ExitCode.FAILED)
