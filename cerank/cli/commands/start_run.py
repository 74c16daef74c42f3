"""Commands that start, go on with, stop and delete runs."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cerank import recipes
from cerank.app import Lab, estimates, plans
from cerank.cli import options, table_columns
from cerank.cli.output import emit, put, say
from cerank.errors import ExitCode, UsageError
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.settings import Settings, resolve
from cerank.text.safe_text import counted

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Its short name, label or id, or a part of one.")]


def settings_of(
    lab: str | None = None,
    cache: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    form: str | None = None,
    json: bool = False,
) -> Settings:
    """The settings in force for a command with these options."""
    given = options.flags(lab=lab, cache=cache, device=device, threads=threads, form=form, json=json)
    return resolve(given, os.environ, Path.cwd()).settings


def run(
    recipe: options.RecipeNames = None,
    base: options.Bases = None,
    dataset: options.Dataset = None,
    seed: options.Seed = None,
    test: options.Test = None,
    first_stage: options.FirstStage = None,
    depth: options.Depth = None,
    set_: options.Set = None,
    matrix: options.MatrixName = "",
    name: options.MatrixTitle = "",
    seeds: options.Seeds = "",
    baseline: options.Baseline = "",
    pairs_per_second: options.Speed = 0.0,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="Your own word for the run.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its work, and start nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it in the background.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Start it when a device is free; see `cerank queue`.")] = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Fine-tune and re-rank as a recipe says, and show the paired comparison.

    The work is done by a worker of its own, which a closed terminal does not reach. Ctrl-C stops it at a checkpoint.

    A matrix (--matrix, or several recipes, bases or seeds) goes to the queue whole; asked for again, it queues what is
    missing. Stages that its runs share are trained once.
    """
    settings = settings_of(lab, cache, device, threads, form, json)
    if pairs_per_second and not dry_run:
        raise UsageError("it tells the time of a plan that is shown", where="--pairs-per-second", hint="with --dry-run")
    parts = plans.parts_of(dataset) if dataset else None
    data = options.changes(data=parts, tests=test, first_stages=first_stage, depth=depth)
    if matrix or name or seeds or baseline or len(recipe or ()) > 1 or len(base or ()) > 1:
        from cerank.cli.commands import run_matrix

        _refuse_in_a_matrix(label, detach=detach, seed=seed, seeds=seeds)
        asked = run_matrix.Asked(
            matrix=matrix,
            name=name,
            recipes=tuple(recipe or ()),
            bases=tuple(base or ()),
            seeds=seeds or ("" if seed is None else str(seed)),
            baseline=baseline,
            data=data,
            overrides=tuple(set_ or ()),
        )
        run_matrix.run(settings, asked, dry_run=dry_run, pairs_per_second=pairs_per_second)
        return
    if not recipe:
        raise UsageError("nothing to run", hint="give --recipe or --matrix; `cerank recipes list` and `matrices`")
    (only,) = base or (None,)
    loaded = recipes.load(recipe[0], set_ or (), {**options.changes(base=only, seed=seed), **data})
    from cerank.cli import live_status

    with live_status.preparing() as tell:
        plan = plans.plan_of(loaded.recipe, settings, now=datetime.now(UTC), label=label, tell=tell)
    if dry_run:
        _show(plan, settings, pairs_per_second, wide=wide)
    elif queue:
        _line_up(settings, plan, loaded.toml)
    else:
        _start(settings, plan, loaded.toml, detach=detach, wide=wide)


def _refuse_in_a_matrix(label: str, *, detach: bool, seed: int | None, seeds: str) -> None:
    """Refuses what would do nothing for a matrix."""
    if seeds and seed is not None:
        raise UsageError("--seed and --seeds are both given", hint=f"--seeds {seed},... takes any number of seeds")
    if label:
        raise UsageError("runs of a matrix have labels of their own", where="--label", hint="--name names it")
    if detach:
        raise UsageError("runs of a matrix go to the queue", where="--detach", hint="`cerank queue` shows them")


def _line_up(settings: Settings, plan: Plan, toml: bytes) -> None:
    folder = Lab(settings).enqueue(plan, toml)
    say(f"run {run_store.title(folder)} is queued; `cerank queue` shows its place")
    put(folder.name + "\n")


def _show(plan: Plan, settings: Settings, pairs_per_second: float, *, wide: bool) -> None:
    """What a run would read and do."""
    from cerank.app.comparison import power_analysis

    if (settings.format or "table") == "table" and sys.stdout.isatty():
        put(recipes.render(plan.requested_recipe))
    cases = power_analysis.of_plan(plan)
    if pairs_per_second:
        work = estimates.timed(plans.work_of(plan), estimates.told(plan.recipe, pairs_per_second))
        source = "by --pairs-per-second"
    else:
        from cerank.cli import live_status

        with live_status.preparing() as tell:
            tell("measuring this machine's speed at these settings")
            paces, source = estimates.measured(plan)
        known = {} if paces else estimates.rates(settings.lab, plan.recipe, plan.device, plan.threads)
        work = estimates.of_plan(plan, paces) if paces else estimates.timed(plans.work_of(plan), known)
        source = "by earlier runs of this lab" if known else source
    minutes = estimates.total(work)
    say(f"about {estimates.format_minutes(minutes)}: {source}" if minutes is not None else f"time unknown: {source}")
    shared = plans.shared_queries(plan)
    shown = [table_columns.inputs(plan), table_columns.work(work)]
    shown += [table_columns.shared(shared)] if shared else []
    emit([*shown, *([table_columns.outlooks(cases, settings.format)] if cases else [])], settings.format, wide=wide)


def _start(settings: Settings, plan: Plan, toml: bytes, *, detach: bool, wide: bool) -> None:
    from cerank.cli import live_status

    folder, worker = Lab(settings).start(plan, toml)
    if detach:
        say(
            f"run {run_store.title(folder)} goes on in the background; "
            f"`cerank logs -f {run_store.short_name(folder)}` follows it"
        )
        put(folder.name + "\n")
        return
    say(f"run {run_store.title(folder)}")
    raise typer.Exit(live_status.follow(Lab(settings), folder, worker, settings.format, wide=wide))


def resume(
    name: RunName,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it in the background.")] = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    form: options.Format = None,
) -> None:
    """Go on with a run that was paused, lost or failed, from its newest checkpoint, to the same bits."""
    from cerank.cli import live_status

    settings = settings_of(lab, form=form)
    home = Lab(settings)
    folder = home.find(name)
    worker = home.resume(folder)
    if detach:
        live_status.wait_until_held(home, folder, worker)
        say(
            f"run {run_store.title(folder)} goes on in the background; "
            f"`cerank logs -f {run_store.short_name(folder)}` follows it"
        )
        return
    raise typer.Exit(live_status.follow(home, folder, worker, settings.format, wide=wide))


def stop(
    name: RunName,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Return once it has stopped.")] = False,
    lab: options.Lab = None,
) -> None:
    """Stop a run at its next step, with a checkpoint; `cerank resume` goes on from there."""
    from cerank.cli import live_status

    home = Lab(settings_of(lab))
    folder = home.find(name)
    again = f"go on with `cerank resume {run_store.short_name(folder)}`"
    home.stop(folder)
    if wait:
        live_status.wait_until_still(home, folder)
        say(f"run {run_store.title(folder)} is {home.status(folder).state}; {again}")
    else:
        say(f"run {run_store.title(folder)} stops at its next step; {again}")


def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Short names, labels, ids, or parts of them.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    lab: options.Lab = None,
) -> None:
    """Delete runs with their checkpoints, rankings and measures."""
    home = Lab(settings_of(lab))
    folders = list(dict.fromkeys(home.find(name) for name in names))
    for folder in folders:
        say(f"{run_store.title(folder)}  {table_columns.size_of(folder.path)}")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("deleting needs a yes", hint="give --yes")
        if not typer.confirm(f"Delete {counted(len(folders), 'run')}?", err=True):
            raise typer.Exit(ExitCode.USAGE)
    for folder in folders:
        title = run_store.title(folder)
        home.remove(folder)
        say(f"deleted {title}")
