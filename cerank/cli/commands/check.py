"""Commands that look for damage in one run or in the whole lab."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cerank.app import next_steps
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info, is_for_machines
from cerank.errors import ExitCode, UsageError
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.app.checks.doctor import Finding

_VERIFIED = (Column("run", "Run"), Column("key", "What"), Column("value", "Is"))
_FOUND = (Column("state", "State"), Column("where", "Where"), Column("what", "What"), Column("hint", "What to do"))

Run = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Run: its short name, label or id, or a part of one of these.")
]
Fix = Annotated[
    bool,
    typer.Option(
        "--fix",
        help="Rename damaged files that can be regenerated to *.bad, and delete temporary files of killed runs.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="Show every check, not only those that found a problem.")]


def verify(
    run: Run,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="URL",
            help="Address of a re-ranking server: compare its scores with the run's, in place of the run's files.",
        ),
    ] = "",
    server_model: Annotated[
        str,
        typer.Option("--server-model", metavar="NAME", help="Name of the model on the server, as vLLM asks for it."),
    ] = "",
    queries: Annotated[
        int | None,
        typer.Option("--queries", min=1, metavar="N", help="Number of test queries to ask the server. Default: 20."),
    ] = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compute every checksum of a run and its measures again, and compare them with the stored ones.

    Exits with 1 if something differs. Lists then show the run as damaged until `cerank resume` has regenerated what
    can be regenerated.

    With --against, a server (cerank serve, vLLM, text-embeddings-inference, Infinity) is asked for scores of test
    queries of the run, and they are compared with those that the run was measured by; exits with 1 if they differ.
    """
    from cerank.app.checks.verify_run import verify

    settings = settings_of(lab, cache, form=form, json=json)
    if against:
        _verify_server(settings, run, against, server_model, queries or 20)
        return
    if server_model or queries is not None:
        what = f"{'--server-model' if server_model else '--queries'} only works with --against"
        raise UsageError(what, hint="--against names the server", code="option-needs-against")
    rows: list[tuple[str, str, str]] = []
    is_well = True
    for folder in [run_store.find(settings.lab, text) for text in run]:
        name = folder.name if is_for_machines(settings.format) else run_store.short_name(folder)
        verification_result = verify(folder, datetime.now(UTC))
        is_well = is_well and not verification_result.problems
        rows += [
            (name, "files with a checksum", str(verification_result.files)),
            (name, "models and checkpoints verified", str(verification_result.models)),
            (name, "rankings measured again", str(verification_result.rankings)),
            (name, "values compared", str(verification_result.values)),
            (name, "largest difference", f"{verification_result.largest:.1e}" if verification_result.largest else "0"),
            (name, "verdict", "intact" if not verification_result.problems else "damaged"),
            *((name, "problem", problem) for problem in verification_result.problems),
        ]
        if verification_result.problems:
            info(
                f"{run_store.title(folder)} is damaged. "
                f"{next_steps.command(settings.lab, 'resume', folder)} regenerates what can be regenerated."
            )
    emit(Table("verified", _VERIFIED, tuple(rows)), settings.format)
    if not is_well:
        raise typer.Exit(ExitCode.FAILED)


def _verify_server(settings: Settings, runs: list[str], url: str, server_model: str, queries: int) -> None:
    from cerank.app.serving.verify_server import check_server

    rows: list[tuple[str, str, str]] = []
    agrees = True
    for name in runs:
        check = check_server(settings, name, url, server_model=server_model, queries=queries, progress=info)
        agrees = agrees and check.agrees
        rows += [
            (name, "server", check.url),
            (name, "measured by", check.system),
            (name, "scores", f"{check.pairs} of {counted(check.queries, 'query')}"),
            (
                name,
                "activation",
                "sigmoid, on both sides" if check.has_sigmoid else "none",
            ),
            (name, "largest difference", f"{check.largest:.1e}"),
            (name, "mean difference", f"{check.mean:.1e}"),
            (name, "of texts that fit", f"{check.largest_whole:.1e} at most"),
            (name, "of texts that are cut", f"{check.largest_cut:.1e} at most, of {check.cut}"),
            (name, "queries in another order", str(check.reordered)),
            (name, "verdict", check.where),
        ]
    emit(Table("verified", _VERIFIED, tuple(rows)), settings.format)
    if not agrees:
        raise typer.Exit(ExitCode.FAILED)


def doctor(
    fix: Fix = False,
    all_: All = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    on: options.On = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Check the lab, its runs, the cache and this machine, and print what to do about each problem.

    Exits with 1 if something is wrong. It reads every byte of every run, which takes some seconds per gigabyte.

    With --on, a job of some seconds looks at a machine of the cluster instead: Python, torch and its GPU, the base
    models, and whether the lab is seen and written to from there.
    """
    from cerank.app.checks import doctor as examining

    settings = settings_of(lab, cache, form=form, json=json, on=on)
    if on is not None and on != "local":
        findings = _examine_executor(settings, fix=fix)
    else:
        findings = examining.examine(settings, fix=fix, with_speed=True)
    short = {} if is_for_machines(settings.format) else run_store.short_names(settings.lab)
    shown = [finding for finding in findings if all_ or finding.is_told or finding.state != "good"]
    rows = tuple(
        (finding.state, short.get(finding.where, finding.where), finding.what, finding.hint) for finding in shown
    )
    emit(Table("doctor", _FOUND, rows, empty="No problem was found."), settings.format)
    wrong = sum(finding.state == "wrong" for finding in findings)
    info(f"{counted(len(findings), 'check')} done, {counted(wrong, 'problem')} found")
    if wrong:
        raise typer.Exit(ExitCode.FAILED)


def _examine_executor(settings: Settings, *, fix: bool) -> list[Finding]:
    """Return what a probe finds on the machines of the settings' executor."""
    from cerank.app import Lab
    from cerank.app.checks import probe_executor
    from cerank.cli import live_status
    from cerank.executors.command_template import CommandExecutor

    executor = Lab(settings).executor
    if fix:
        raise UsageError(
            "--fix repairs the lab from here", where="--fix", hint="leave out --on", code="executor-option"
        )
    if executor is None or (isinstance(executor, CommandExecutor) and executor.prints):
        what = f"nothing can be asked of '{settings.executor}'"
        raise UsageError(what, where="--on", hint="give an executor that takes jobs", code="executor-option")
    with live_status.status_line() as tell:
        return probe_executor.examine(settings, executor, tell=tell)
