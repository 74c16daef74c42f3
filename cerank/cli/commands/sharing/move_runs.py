"""Commands that move runs between labs, and the one that answers them on the other machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from cerank.app import Lab
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info
from cerank.errors import UsageError
from cerank.registry import nearest
from cerank.runs.lab_address import is_address

if TYPE_CHECKING:
    from cerank.app.over_ssh.copy_runs import CopiedRun
    from cerank.settings import Settings

Checkpoints = Literal["none", "last", "all"]

CheckpointsOption = Annotated[
    str,
    typer.Option(
        "--checkpoints",
        metavar="WHICH",
        help="Checkpoints of training to take along: none, last (of each stage) or all. A run resumes from its last "
        "one. Models of finished stages always go along.",
    ),
]
AllRuns = Annotated[bool, typer.Option("--all", help="Every run of the lab.")]


def copy(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN]... LAB",
            help="Runs, by short name, label or id, or by the name of their sweep or matrix, and the lab they go to: "
            "a folder, or ssh://HOST/FOLDER.",
        ),
    ],
    everything: AllRuns = False,
    checkpoints: CheckpointsOption = "last",
    lab: options.LabOrAddress = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Copy runs to another lab, with every hash checked; after a cut, the same command continues.

    A run that is there already is verified, and what it lacks, such as checkpoints, is added.
    """
    *runs, target = names
    settings = settings_of(None if lab is not None and is_address(lab) else lab, form=form, json=json)
    source = lab if lab is not None and is_address(lab) else str(settings.lab)
    _copy(source, target, _chosen(runs, everything, "LAB"), checkpoints, settings)


def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="LAB [RUN]...",
            help="The lab the runs come from, a folder or ssh://HOST/FOLDER, and the runs, or their sweep or matrix.",
        ),
    ],
    everything: AllRuns = False,
    checkpoints: CheckpointsOption = "last",
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Copy runs from another lab into this one, every hash checked; after a cut, the same command continues.

    A run that is here already is verified, and what it lacks, such as checkpoints, is added.
    """
    source, *runs = names
    settings = settings_of(lab, form=form, json=json)
    _copy(source, str(settings.lab), _chosen(runs, everything, "LAB"), checkpoints, settings)


def _chosen(runs: list[str], everything: bool, lab: str) -> list[str]:
    """Return the runs to copy; none stands for all.

    Raises:
        UsageError: neither runs nor all were asked for, or both.
    """
    if bool(runs) == everything:
        what = "name runs, or give --all, not both" if runs else f"no run is named, only {lab}"
        raise UsageError(what, where="RUN", hint="--all copies every run", code="no-run-named")
    return runs


def _copy(source: str, target: str, runs: list[str], checkpoints: str, settings: Settings) -> None:
    from cerank.app.over_ssh.copy_records import copy_records
    from cerank.app.over_ssh.copy_runs import copy_runs, storage_of

    if checkpoints not in get_args(Checkpoints):
        hint = nearest(checkpoints, get_args(Checkpoints))
        what = f"must be none, last or all; given: {checkpoints!r:.40}"
        raise UsageError(what, where="--checkpoints", hint=hint, code="unknown-checkpoints")
    which: Checkpoints = "none" if checkpoints == "none" else "last" if checkpoints == "last" else "all"
    giving, receiving = storage_of(source, "LAB"), storage_of(target, "LAB", settings.cache)
    copied = copy_runs(giving, receiving, runs, which, info)
    emit(_copied_table(copied), settings.format)
    for text in copy_records(giving, receiving, [run.run for run in copied if run.error is None]):
        info(text)
    for run in copied:
        if run.error is not None:
            raise run.error


def _copied_table(copied: list[CopiedRun]) -> Table:
    columns = (
        Column("run", "run", "name"),
        Column("outcome", "outcome"),
        Column("files", "files sent", "number", 1),
        Column("bytes", "bytes sent", "number", 1),
        Column("kept", "kept from before", "number", 2),
    )
    rows = tuple((run.run, run.outcome, run.files, run.size, run.kept) for run in copied)
    notes = tuple(f"{run.run}: {note}" for run in copied for note in run.notes)
    return Table("copied", columns, rows, notes=notes, empty="There is no run to copy.")


def lab_server(lab: options.Lab = None) -> None:
    """Answer a dashboard or a copy on another machine, which starts this over ssh with --lab ssh://HOST/FOLDER."""
    from cerank.app.over_ssh.lab_server import serve_standard_streams

    settings = settings_of(lab)
    serve_standard_streams(Lab(settings))
