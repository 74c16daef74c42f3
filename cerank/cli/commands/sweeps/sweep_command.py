"""The command that searches settings on validation alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerank.app import Lab, estimates, next_steps
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info, is_for_machines
from cerank.cli.tables import plan_tables
from cerank.errors import ExitCode, UsageError
from cerank.machine.devices import resolve_device
from cerank.planning import several_devices
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Value

if TYPE_CHECKING:
    from cerank.app.sweeps.sweep_arms import SweepPlan
    from cerank.app.sweeps.sweep_driver import SweepStatus
    from cerank.app.sweeps.sweep_queue import SweepOutline

_TEACHERS = "Teachers of all trials together, before anything is asked"
POLL_SECONDS = 1.0  # between looks at the trials
_MOST_SHOWN = 48  # trials that a dry run lists for people


def sweep(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A sweep: a .toml file (`cerank guide sweeps`).")],
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="METHOD", help="grid, random, tpe or asha, in place of the file's."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", help="Trials of each arm, in place of the file's number.", min=1),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of what is drawn, in place of the file's.", min=0)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the sweep, in place of the file's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the trials and what each arm costs, without starting anything.")
    ] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Queue what can be queued, and return without waiting for the trials."),
    ] = False,
    results: Annotated[bool, typer.Option("--results", help="Show the trials so far, and queue nothing.")] = False,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            metavar="FOLDER",
            help="Once all trials are over, write the best setting of each arm as a recipe.",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --write: replace recipes that exist.")] = False,
    pairs_per_second: options.Speed = 0.0,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    on: options.On = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Search settings on validation alone, with the same number of trials for each recipe.

    Trials go to the queue as runs that train and validate, and never read a test set. The command waits for them; if
    you interrupt it, they go on, and the same command continues: nothing is done twice.
    """
    from cerank.app.sweeps import sweep_arms, sweep_driver, tuned_recipes
    from cerank.recipes.sweep_schema import load_sweep

    _check_options(
        dry_run=dry_run, detach=detach, results=results, write=write, replace=replace, speed=pairs_per_second
    )
    places = {"--device": device, "--threads": threads, "--on": on}
    if unused := [name for name, value in places.items() if value is not None and (results or write)]:
        what = f"{unused[0]} does nothing with {'--results' if results else '--write'}, which queues no trial"
        raise UsageError(what, where=unused[0], hint="leave it out", code="options-conflict")
    settings = settings_of(lab, cache, device, threads, form, json, on=on)
    given = (("method", method), ("trials", trials), ("seed", seed), ("name", name))
    changes: dict[str, object] = {key: value for key, value in given if value is not None}
    plan = sweep_arms.load_arms(load_sweep(file, changes))
    home = Lab(settings)
    if dry_run:
        _show_outline(plan, home, pairs_per_second, wide=wide)
        return
    if results or write:
        status = sweep_driver.status(home, plan)
    else:
        status = sweep_driver.begin(home, plan, datetime.now(UTC), info)
        info(_in_words(plan, status, home))
        if not detach:
            status = _wait(home, plan, status)
    files = tuned_recipes.write(plan, status, Path(write), replace=replace) if write else []
    _show(plan, status, settings, files, wide=wide)
    if files:
        info(f"{tuned_recipes.run_command(plan, files)} tests what the sweep found, with seeds that it has not seen.")
    if not (results or write or detach or status.is_over):
        raise typer.Exit(ExitCode.PAUSED)


def _check_options(
    *, dry_run: bool, detach: bool, results: bool, write: str | None, replace: bool, speed: float
) -> None:
    """Reject options that would do nothing beside others."""
    modes = [
        name
        for name, is_given in (
            ("--dry-run", dry_run),
            ("--detach", detach),
            ("--results", results),
            ("--write", bool(write)),
        )
        if is_given
    ]
    if len(modes) > 1 and set(modes) != {"--results", "--write"}:
        what = f"{' and '.join(modes)} cannot be combined"
        raise UsageError(what, where=modes[1], hint="give one of them", code="options-conflict")
    if write == "":
        raise UsageError("names no folder", where="--write", hint="--write . writes into this one", code="no-folder")
    if replace and not write:
        what = "--replace only works with --write"
        raise UsageError(what, where="--replace", hint="add --write FOLDER", code="options-conflict")
    if speed and not dry_run:
        what = "--pairs-per-second only works with --dry-run"
        raise UsageError(what, where="--pairs-per-second", hint="add --dry-run", code="option-needs-dry-run")


def _wait(home: Lab, plan: SweepPlan, status: SweepStatus) -> SweepStatus:
    """Carry the sweep on until all trials are over, or until nobody carries one out."""
    from cerank.app.sweeps import sweep_driver
    from cerank.cli.commands.manage_queue import stopped_in_words

    printed: set[tuple[str, int]] = set()
    was_stopped = False
    _tell_finished(status, printed)
    try:
        while status.is_alive:
            time.sleep(POLL_SECONDS)
            status = sweep_driver.advance(home, plan, datetime.now(UTC), _unsaid)
            _tell_finished(status, printed)
            queue = home.queue_state() if home.executor is None else None
            is_stopped = queue is not None and queue.state == "stopped"
            if queue is not None and is_stopped and not was_stopped:  # by the user, or what served it was killed
                info(stopped_in_words(queue, home.folder))
            was_stopped = is_stopped
    except KeyboardInterrupt:
        shown = next_steps.command(home.folder, "queue")
        info(f"The trials in the queue go on; {shown} shows them. The same command waits for them again.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    for text in status.waiting:
        info(f"{text}; the same command puts it into the queue again")
    return status


def _unsaid(text: str) -> None:
    """Tell of trials that are stopped early; that inputs are opened was said of the first trials."""
    if "stopped early" in text:
        info(text)


def _tell_finished(status: SweepStatus, printed: set[tuple[str, int]]) -> None:
    """Print the trials that were finished since the last call."""
    for each in status.arms:
        for result in each.results:
            key = (result.trial.arm, result.trial.number)
            if result.value is not None and key not in printed:
                settings = ", ".join(f"{path} = {value}" for path, value in result.trial.settings.items())
                info(f"{each.arm.name} {result.trial.number}/{each.arm.trials}: {result.value:.4f} with {settings}")
                printed.add(key)


def _in_words(plan: SweepPlan, status: SweepStatus, home: Lab) -> str:
    from cerank.app.sweeps.trial_results import ALIVE, OVER

    every = [result for each in status.arms for result in each.results]
    over = sum(result.state in OVER for result in every)
    alive = sum(result.state in ALIVE for result in every)
    later = plan.trials - len(every)
    more = f", {later} follow as the search decides about them" if later else ""
    shown = next_steps.command(home.folder, "queue")
    trials = counted(plan.trials, "trial")
    return f"Sweep {plan.sweep.name}: {over} of {trials} over, {alive} queued{more}. {shown} shows them."


def _show(plan: SweepPlan, status: SweepStatus, settings: Settings, files: Sequence[Path], *, wide: bool) -> None:
    from cerank.app.sweeps import trial_results

    short = {} if is_for_machines(settings.format) else run_store.short_names(settings.lab)
    tables = [trial_results.trial_table(plan, status.arms, short), trial_results.best_table(plan, status.arms)]
    if files:
        rows = tuple((name, str(file)) for name, file in zip(plan.recipes, files, strict=True))
        tables.append(Table("written", (Column("arm", "recipe"), Column("file", "file")), rows, "Written"))
    emit(tables, settings.format, wide=wide)
    for text in trial_results.warnings(status.arms):
        info(text)


def _show_outline(plan: SweepPlan, home: Lab, pairs_per_second: float, *, wide: bool) -> None:
    from cerank.app.matrix.outline_times import OutlineTimes
    from cerank.app.sweeps import sweep_queue
    from cerank.app.teaching import planned_teaching
    from cerank.cli import live_status

    settings, now = home.plan_settings(), datetime.now(UTC)
    devices = several_devices.device_count(settings)
    with live_status.status_line() as tell:
        times = OutlineTimes(settings, pairs_per_second, now if home.executor is None else None, tell)
        outlined = sweep_queue.outline(plan, settings, times, devices)
    teaching_place = planned_teaching.TeachingPlace(
        settings.lab, settings.cache, resolve_device(settings.device), settings.threads or 1
    )
    teaching = planned_teaching.of_recipes(sweep_queue.recipes_of_arms(plan), teaching_place)
    columns = (
        Column("arm", "arm"),
        Column("trials", "trials", "number", 0),
        Column("pairs", "pairs of each to train on", "number", 0),
        Column("all_pairs", "pairs of all through the model", "number", 0),
        Column("seconds", "time", "duration"),
        Column("keys", "searches", priority=1),
    )
    rows = tuple(
        (
            *(each.arm.name, each.arm.trials, each.pairs, sum(part.pairs for part in each.work)),
            *(estimates.seconds_of(each.minutes), ", ".join(each.arm.search)),
        )
        for each in outlined.arms
    )
    arm_pairs = sum(part.pairs for each in outlined.arms for part in each.work)
    is_shared = arm_pairs > sum(part.pairs for part in outlined.work)
    notes = ("Arms share stages: these count in each of them, and once in all work together.",) if is_shared else ()
    missing = tuple((need.kind, need.name, need.text, need.how) for need in outlined.needs)
    names = (Column("kind", "kind"), Column("name", "name"), Column("text", "what"), Column("how", "how to get it"))
    tables = [
        Table("arms", columns, rows, "Arms", notes=notes),
        _trial_table(plan, outlined, is_cut=not is_for_machines(settings.format)),
        plan_tables.work_table(outlined.work),
        *([planned_teaching.table(teaching.teachers, _TEACHERS)] if teaching.teachers else []),
        Table("needs", names, missing, "Missing inputs", empty="No input is missing."),
    ]
    emit(tables, settings.format, wide=wide)
    minutes = estimates.total(outlined.work)
    known = f"unknown: {times.why_unknown} (you can give --pairs-per-second)"
    took = f"at most about {estimates.format_minutes(minutes)} ({times.source})" if minutes is not None else known
    guessed = (
        " Which settings it tries depends on its trials; these are drawn at random." if plan.sweep.is_adaptive else ""
    )
    sweep, trials = plan.sweep, counted(plan.trials, "trial")
    info(f"Sweep {sweep.name} by {sweep.method}: {trials}, by {plan.measure} on validation.")
    if sweep.description:
        info(sweep.description)
    info(f"Time on one device: {took}.{guessed}")
    if outlined.together and not pairs_per_second:
        together = estimates.format_minutes(estimates.total(outlined.together))
        info(several_devices.time_in_words(devices, together, times.source if outlined.is_measured else ""))
    if teaching.teachers:
        info(f"{planned_teaching.total_in_words(teaching)}. An answer that several trials need is asked for once.")
    for name, why in teaching.unknown.items():
        info(f"What the teachers of {name} take is not known: {why}")


def _trial_table(plan: SweepPlan, outlined: SweepOutline, *, is_cut: bool) -> Table:
    """Return each trial with what it tries; a stage that it shares with a trial before it takes it no time."""
    from cerank.recipes.search_space import short_paths, value_text

    paths = list(dict.fromkeys(path for arm in plan.arms for path in arm.search))
    columns = (
        Column("arm", "arm"),
        Column("trial", "trial", "number", 0),
        *(Column(path, name) for path, name in zip(paths, short_paths(paths), strict=True)),
        Column("pairs", "pairs to train on", "number", 0, priority=1),
        Column("seconds", "time", "duration"),
    )
    shown = outlined.trials[:_MOST_SHOWN] if is_cut else outlined.trials
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            *(each.trial.arm, each.trial.number),
            *(value_text(each.trial.settings[path]) if path in each.trial.settings else "" for path in paths),
            *(each.pairs, estimates.seconds_of(each.minutes)),
        )
        for each in shown
    )
    left = len(outlined.trials) - len(rows)
    notes = [f"and {counted(left, 'more trial')}; --format tsv lists all"] if left else []
    trained = sum(part.pairs for part in outlined.work if part.part.startswith("train "))
    if sum(each.pairs for each in outlined.trials) > trained:
        notes.append("A stage that two trials share takes the first of them its time, and the other none.")
    title = "Trials, if all were drawn at random" if plan.sweep.is_adaptive else "Trials, in queue order"
    return Table("trials", columns, rows, title, notes=tuple(notes))
