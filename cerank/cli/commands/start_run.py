"""Commands that start, resume, stop and delete runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from cerank import recipes
from cerank.app import Lab, estimates, next_steps, plans, run_request
from cerank.app.matrix.fold_recipes import FoldRecipe
from cerank.app.run_request import RunRequest
from cerank.app.tracking import track_run, tracking_process, waiting_trackers
from cerank.app.tracking.tracking_process import TrackingRequest
from cerank.cli import options
from cerank.cli.output import emit, info, write_output
from cerank.cli.tables import plan_tables, power_tables
from cerank.errors import UsageError
from cerank.executors.interface import JobExecutor
from cerank.planning import (
    base_fit,
    node_schedule,
    several_devices,
    shared_speed,
    training_memory,
    truncation_estimates,
    workload,
)
from cerank.planning.workload import WorkItem
from cerank.recipes.plan import Plan
from cerank.runs import job_records, run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Flags, Settings, resolve
from cerank.text.safe_text import counted

_MOST_NAMED = 3  # identical runs that a new one is told of by name

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Run: its short name, label or id, or a part of one of these.")
]
RunOrGroup = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Run: its short name, label or id, or a part of one of these; or a sweep or matrix, for all its runs.",
    ),
]


def settings_of(
    lab: str | None = None,
    cache: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    form: str | None = None,
    json: bool = False,
    devices: str | None = None,
    on: str | None = None,
) -> Settings:
    """Return the settings in force for a command with these options."""
    flags = Flags(
        lab=lab, cache=cache, device=device, threads=threads, format="json" if json else form, devices=devices,
        executor=on,
    )  # fmt: skip
    return resolve(flags, os.environ, Path.cwd()).settings


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
    folds: options.Folds = "",
    split_by: options.SplitBy = "",
    pairs_per_second: options.Speed = 0.0,
    nodes: Annotated[
        int,
        typer.Option(
            "--nodes",
            metavar="N",
            help="With --dry-run: predict time and cost if N machines share the runs, each stage on one of them.",
        ),
    ] = 0,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="Label for the run.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the run would read and do, without starting it.")
    ] = False,
    detach: options.Detach = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Put the run into the queue; it starts when a device is free.")
    ] = False,
    print_command: Annotated[
        bool,
        typer.Option(
            "--print-command",
            help="Make the run, and print the shell command that carries it out, for a cluster's job script.",
        ),
    ] = False,
    track: options.Track = None,
    track_project: options.TrackProject = "",
    track_offline: options.TrackOffline = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    devices: options.Devices = None,
    shard_parameters: options.ShardParameters = False,
    threads: options.Threads = None,
    on: options.On = None,
    slurm: options.Slurm = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Fine-tune and re-rank as a recipe says, and show the paired comparison of the stages.

    A separate process does the work; it continues if the terminal is closed. Ctrl-C stops the run at a checkpoint.

    A matrix (--matrix, or several recipes, base models or seeds) is put into the queue as a whole. If you give the same
    command again, only missing runs are queued. Equal stages of several runs are trained once.

    With --on, jobs of a cluster carry the runs out; `cerank ps` shows whether they wait, and why.
    """
    given = settings_of(lab, cache, device, threads, form, json, devices, on)
    settings, job_options = _executor_settings(given, on, slurm)
    _check_forecast_options(pairs_per_second, nodes, dry_run=dry_run)
    if print_command and (detach or queue or dry_run):
        what = "--print-command leaves the start to you"
        raise UsageError(what, where="--print-command", hint="omit --detach, --queue and --dry-run")
    tracking = TrackingRequest(kinds=tuple(track or ()), project=track_project, is_offline=track_offline)
    tracking_process.check_request(tracking, "--track")
    lab_of_runs = Lab(settings, options=job_options)
    settings = lab_of_runs.plan_settings()
    _check_executor_options(lab_of_runs, is_here=queue or print_command)
    if settings.executor == "local" and not print_command:
        lab_of_runs.check_devices(settings.devices, settings.device)  # before minutes of hashing, and in a dry run, too
    request = RunRequest(
        recipes=tuple(recipe or ()),
        bases=tuple(base or ()),
        seed=seed,
        dataset=dataset or "",
        tests=tuple(test or ()),
        first_stages=tuple(first_stage or ()),
        depth=depth,
        overrides=(*(set_ or ()), *(["compute.shard_parameters=true"] if shard_parameters else [])),
        matrix=matrix,
        matrix_name=name,
        seeds=seeds,
        baseline=baseline,
        folds=folds,
        split_by=split_by,
    )
    if split_by and not dataset:
        what = "it divides the dataset that stands for training, validation and test"
        raise UsageError(what, where="--split-by", hint="name it with --dataset", code="options-conflict")
    if request.is_matrix:
        from cerank.cli.commands import run_matrix

        _check_matrix_options(label, detach=detach or print_command)
        run_matrix.run(lab_of_runs, request, tracking, dry_run=dry_run, pairs_per_second=pairs_per_second, nodes=nodes)
        return
    loaded = run_request.load_recipe(request)
    if loaded.recipe.data.folds:
        _check_fold_options(detach=detach or print_command, nodes=nodes)
        rounds = run_request.load_folds(request, label)
        _run_folds(lab_of_runs, rounds, tracking, pairs_per_second, dry_run=dry_run, wide=wide)
        return
    from cerank.cli import live_status

    with live_status.status_line() as tell:
        plan = plans.plan_of(loaded.recipe, settings, now=datetime.now(UTC), label=label, tell=tell)
    _tell_tests(plan)
    _tell_first_stages([plan])
    _tell_finished(lab_of_runs, plan)
    if dry_run:
        is_here = lab_of_runs.executor is None
        _show_plan(plan, settings, pairs_per_second, wide=wide, is_measured=is_here, nodes=nodes)
    elif print_command:
        folder, command = lab_of_runs.prepare(plan, loaded.toml)
        tracking_process.start(folder, tracking)
        show = next_steps.command(lab_of_runs.folder, "show", folder)
        info(f"Run {run_store.title(folder)} waits for this command. {show} tells how far it is.")
        write_output(command + "\n")
    elif queue:
        _enqueue(lab_of_runs, plan, loaded.toml, tracking)
    elif lab_of_runs.executor is not None:
        folder, record = lab_of_runs.start_elsewhere(plan, loaded.toml)
        waiting_trackers.start_when_they_begin({folder.path: 0}, tracking)
        live_status.tell_submitted(lab_of_runs, [folder], [record])
    else:
        _start(lab_of_runs, plan, loaded.toml, tracking, detach=detach, wide=wide)


def _tell_tests(plan: Plan) -> None:
    """Say which test collections a name for several came to, and which are not on disk."""
    if "data.test" in plan.reasons:
        info(plan.reasons["data.test"])


def _tell_first_stages(planned: Sequence[Plan]) -> None:
    """Say what is odd about the candidates' files, once of each file."""
    first_stages = [entry for plan in planned for entry in plan.inputs if entry.role == "first_stage"]
    names = {(entry.sha256, note): entry.name for entry in reversed(first_stages) for note in entry.notes}
    for (_, note), name in reversed(names.items()):
        info(f"first stage {name}: {note}")


def _tell_finished(lab: Lab, plan: Plan) -> None:
    """Say which finished runs have the same plan, since this one will come to what they came to."""
    if not (finished := run_store.finished_like(lab.folder, plan)):
        return
    more = f" and {len(finished) - _MOST_NAMED} more" if len(finished) > _MOST_NAMED else ""
    names = f"{', '.join(run_store.title(folder) for folder in finished[:_MOST_NAMED])}{more}"
    count = "an identical run is" if len(finished) == 1 else f"{len(finished)} identical runs are"
    info(f"note: {count} finished: {names}; a new one gives the same figures")


def _check_fold_options(*, detach: bool, nodes: int) -> None:
    """Reject options that have no effect on the runs of folds."""
    if nodes:
        what = "--nodes predicts for one run or for a matrix, and folds make several runs"
        raise UsageError(
            what, where="--nodes", hint="add --name NAME, which makes a matrix of them", code="options-conflict"
        )
    if detach:
        what = "--detach and --print-command are for one run, and folds make several, which go to the queue"
        raise UsageError(what, where="--detach", hint="`cerank queue` shows them", code="options-conflict")


def _run_folds(
    lab: Lab,
    rounds: Sequence[tuple[FoldRecipe, str]],
    tracking: TrackingRequest,
    pairs_per_second: float,
    *,
    dry_run: bool,
    wide: bool,
) -> None:
    """Queue (or submit) a run for each fold, once all of them are planned; a dry run shows that of the first.

    Stages that are the same in all folds are trained once.
    """
    from cerank.cli import live_status

    settings, now = lab.plan_settings(), datetime.now(UTC)
    with live_status.status_line() as tell:
        planned = []
        for of_fold, label in rounds:
            plan = plans.plan_of(of_fold.recipe, settings, now=now, label=label, tell=tell)
            planned.append((msgspec.structs.replace(plan, shares=True), of_fold.toml))
    _tell_first_stages([plan for plan, _ in planned])
    if dry_run:
        all_folds = [plan for plan, _ in planned]
        is_here = lab.executor is None
        _show_plan(all_folds[0], settings, pairs_per_second, wide=wide, is_measured=is_here, all_folds=all_folds)
        info(f"{counted(len(rounds), 'run')} like this one, the first of them shown")
        return
    if lab.executor is not None:
        folders = [lab.create(plan, toml) for plan, toml in planned]
        records = lab.submit(folders)
        live_status.tell_submitted(lab, folders, records)
    else:
        folders = [lab.enqueue(plan, toml) for plan, toml in planned]
        live_status.tell_queued(lab, folders, planned[0][0], ", one for each fold")
    waiting_trackers.start_when_they_begin({folder.path: 0 for folder in folders}, tracking)
    name = run_store.short_name(folders[0])
    info(
        f"Once all have finished, {next_steps.command(lab.folder, f'folds {name}')} compares what they did together, "
        f"and {next_steps.command(lab.folder, 'compare')} and report know them as {name}@folds."
    )


def _check_forecast_options(pairs_per_second: float, nodes: int, *, dry_run: bool) -> None:
    """Reject options that only predict, where something is to be started."""
    if pairs_per_second and not dry_run:
        raise UsageError(
            "--pairs-per-second only works with --dry-run",
            where="--pairs-per-second",
            hint="add --dry-run",
            code="option-needs-dry-run",
        )
    if nodes and not dry_run:
        hint = "add --dry-run; how many jobs run at once is the executor's: --slurm array_limit=8"
        raise UsageError("--nodes only predicts", where="--nodes", hint=hint, code="option-needs-dry-run")
    if not 0 <= nodes <= node_schedule.MOST_NODES:
        what = f"must be 1 to {node_schedule.MOST_NODES:,}; given: {nodes}"
        raise UsageError(what, where="--nodes", code="nodes-out-of-range")


def _executor_settings(
    settings: Settings, on: str | None, slurm: list[str] | None
) -> tuple[Settings, dict[str, Any] | None]:
    """Return the settings with the executor that --on and --slurm ask for, and the options of its job."""
    if not slurm:
        return settings, None
    from cerank.executors import slurm_script

    job_options: dict[str, Any] = {}
    for text in slurm:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            hint = "such as --slurm time=4:00:00"
            raise UsageError(f"not KEY=VALUE; given: {text!r:.80}", where="--slurm", hint=hint, code="executor-option")
        if key in slurm_script.LISTS:
            job_options.setdefault(key, []).append(value)
        else:
            job_options[key] = int(value) if key in slurm_script.COUNTS and value.isdecimal() else value
    if on is None and settings.executor == "local":
        settings = msgspec.structs.replace(settings, executor="slurm")
    kind = settings.executors.get(settings.executor, {}).get("kind", settings.executor)
    if kind != "slurm":
        what = f"--slurm has options for Slurm, and '{settings.executor}' is no such executor"
        raise UsageError(what, where="--slurm", hint="give --on slurm", code="executor-option")
    return settings, job_options


def _check_executor_options(lab: Lab, *, is_here: bool) -> None:
    """Reject options that need the run's processes on this machine, where an executor has them elsewhere."""
    if lab.executor is not None and is_here:
        what = f"--queue and --print-command are for this machine, not for {lab.executor.name}"
        raise UsageError(what, where="--on", hint="leave them out, or give --on local", code="executor-option")


def _check_matrix_options(label: str, *, detach: bool) -> None:
    """Reject options that have no effect on a matrix."""
    if label:
        raise UsageError(
            "--label cannot be given for a matrix, whose runs get labels automatically",
            where="--label",
            hint="name the matrix with --name",
            code="matrix-option",
        )
    if detach:
        raise UsageError(
            "--detach and --print-command cannot be given for a matrix, whose runs go to the queue",
            where="--detach",
            hint="`cerank queue` shows them",
            code="matrix-option",
        )


def _enqueue(lab: Lab, plan: Plan, toml: bytes, tracking: TrackingRequest) -> None:
    from cerank.cli import live_status

    folder = lab.enqueue(plan, toml)
    waiting_trackers.start_when_they_begin({folder.path: 0}, tracking)
    live_status.tell_queued(lab, [folder], plan)


def _truncation_sentences(plan: Plan, *, is_measured: bool) -> Iterable[str]:
    """Return how many documents the run would cut; a login node may have no torch, with which they are tokenized."""
    if is_measured:
        return truncation_estimates.truncation_in_words(plan)
    return ["how many documents are cut is counted by the run itself"]


def _show_time(
    plan: Plan, settings: Settings, work: Sequence[WorkItem], source: str, nodes: int, *, is_told: bool
) -> None:
    """Print how long a run takes on one device, on its devices together, and on nodes where some are given."""
    from cerank.app.matrix import cluster_forecast

    minutes, count = estimates.total(work), max(1, len(plan.devices))
    together: dict[str, estimates.Rate] = {}
    where = ""
    if count > 1 and not is_told:
        together, where = estimates.of_devices(plan, settings.lab)
    divided = shared_speed.shared_work(work, count, together)
    info(f"about {estimates.format_minutes(minutes)}: {source}" if minutes is not None else f"time unknown: {source}")
    if nodes:
        tasks = node_schedule.tasks_of([(name, name) for name in plan.recipe.chain], divided)
        info(cluster_forecast.in_words(tasks, nodes, count, settings.hour_price, is_measured=bool(together)))
    if count > 1:
        info(several_devices.time_in_words(count, estimates.format_minutes(estimates.total(divided)), where))


def _timer(
    plan: Plan, settings: Settings, pairs_per_second: float, *, is_measured: bool
) -> tuple[Callable[[Plan], tuple[WorkItem, ...]], str]:
    """Return what gives the work of a plan, or of one of its folds, with its minutes, and where the speed is from."""
    from cerank.cli import live_status

    if pairs_per_second:
        rates = estimates.told(plan.recipe, pairs_per_second)
        return lambda of_run: estimates.timed(plans.work_of(of_run), rates), "by --pairs-per-second"
    with live_status.status_line() as tell:
        tell("measuring the speed of this machine with these settings")
        unknown = "nothing like it ran in this lab; you can give --pairs-per-second"
        paces, source = estimates.measured(plan) if is_measured else ({}, unknown)
    if paces:
        return lambda of_run: estimates.of_plan(of_run, paces), source
    known = estimates.rates(settings.lab, plan.recipe, plan.device, plan.threads)
    source = "by earlier runs of this lab" if known else source
    return lambda of_run: estimates.timed(plans.work_of(of_run), known), source


def _tell_time_of_folds(all_folds: Sequence[Plan], work_of: Callable[[Plan], tuple[WorkItem, ...]]) -> None:
    """Print how long all folds take; a stage that is the same in several of them is trained once."""
    from cerank.app.matrix.matrix_planning import WorkTotals
    from cerank.planning import stage_keys

    totals = WorkTotals()
    for plan in all_folds:
        totals.add(plan.recipe, stage_keys.stage_keys(plan), work_of(plan))
    minutes, which = estimates.total(totals.done), f"all {counted(len(all_folds), 'fold')}"
    if minutes is not None:
        info(f"{which}, one after another on one device: about {estimates.format_minutes(minutes)}")


def _show_plan(
    plan: Plan,
    settings: Settings,
    pairs_per_second: float,
    *,
    wide: bool,
    is_measured: bool = True,
    nodes: int = 0,
    all_folds: Sequence[Plan] = (),
) -> None:
    """Print what a run would read and do; a run for another machine is not measured on this one.

    With the plans of all folds, of which it is the first, also what these take and can show together.
    """
    from cerank.app.checks import first_stage_room
    from cerank.app.comparison import power_analysis
    from cerank.app.mining import planned_negatives
    from cerank.app.teaching import planned_teaching

    if (settings.format or "table") == "table" and sys.stdout.isatty():
        write_output(recipes.render(plan.requested_recipe))
    expected = power_analysis.of_plan(plan, settings.lab, all_folds)
    work_of, source = _timer(plan, settings, pairs_per_second, is_measured=is_measured)
    work = work_of(plan)
    for entry in plan.inputs:
        if entry.role in {"base", "dataset", "teacher"} and entry.notes:
            info(f"{entry.role} {entry.name}: {'; '.join(entry.notes)}")
    _show_time(plan, settings, work, source, nodes, is_told=bool(pairs_per_second))
    if all_folds:
        _tell_time_of_folds(all_folds, work_of)
    for sentence in (*first_stage_room.sentences(plan), *several_devices.in_words(plan)):
        info(sentence)
    for sentence in (*workload.filter_sentences(plan.recipe, work), *base_fit.optimization_sentences(plan, work)):
        info(sentence)
    for name, memory in base_fit.memory_of(plan).items():
        info(f"memory to train {name}: {training_memory.in_words(memory, plan.recipe.stages[name])}")
    for sentence in _truncation_sentences(plan, is_measured=is_measured):
        info(sentence)
    shared = plans.shared_queries(plan)
    shown = [plan_tables.input_table(plan), plan_tables.work_table(work)]
    negatives = (planned_negatives.mixture_table(plan), planned_negatives.table(plan))
    shown += [table for table in negatives if table is not None]
    teaching = planned_teaching.of_plan(plan, settings.lab)
    shown += [planned_teaching.table(teaching, "Teachers, before anything is asked")] if teaching else []
    shown += [plan_tables.shared_query_table(shared)] if shared else []
    emit([*shown, *([power_tables.expectations(expected)] if expected else [])], settings.format, wide=wide)


def _start(lab: Lab, plan: Plan, toml: bytes, tracking: TrackingRequest, *, detach: bool, wide: bool) -> None:
    from cerank.app.run_views.run_updates import Follower
    from cerank.cli import live_status

    folder, worker = lab.start(plan, toml)
    tracking_process.start(folder, tracking)
    if detach:
        info(
            f"Run {run_store.title(folder)} is running in the background. "
            f"Follow it with {next_steps.command(lab.folder, 'logs -f', folder)}."
        )
        live_status.print_names(lab, [folder])
        return
    info(f"Run {run_store.title(folder)}")
    code = live_status.follow(lab, Follower(folder), worker, lab.settings.format, wide=wide)
    _tell_of_tracking(lab, folder, tracking.kinds)
    raise typer.Exit(code)


def _tell_of_tracking(lab: Lab, folder: RunFolder, kinds: Sequence[str]) -> None:
    """Say where trackers have the run, without waiting for them."""
    again = next_steps.command(lab.folder, "track", folder)
    for kind in kinds:
        record = track_run.load_record(folder, kind)
        if record is not None and record.failure:
            info(f"tracking by {kind} failed: {record.failure}; {again} --to {kind} sends the rest")
        elif record is not None:
            state = "has" if record.is_over else "is being sent"
            info(f"{kind} {state} this run: {record.where or tracking_process.log_file(folder, kind)}")


def resume(
    name: RunOrGroup,
    detach: options.Detach = False,
    wide: options.Wide = False,
    devices: options.Devices = None,
    lab: options.Lab = None,
    on: options.On = None,
    slurm: options.Slurm = None,
    form: options.Format = None,
) -> None:
    """Resume a paused, lost or failed run from its latest checkpoint.

    On a CPU the result is bit-identical to that of an uninterrupted run. A run that was started with --devices may go
    on with another number of them. A run that a job carried out is submitted again to the same cluster, with the same
    options; --on local resumes it here.

    Of a sweep or a matrix, all runs that wait, or were paused, lost or failed, go to the queue, but for trials that the
    sweep stopped early.
    """
    from cerank.app.run_views import several_runs
    from cerank.app.run_views.run_updates import Follower
    from cerank.cli import act_on_several, live_status

    given = settings_of(lab, form=form, on=on)
    settings, job_options = _executor_settings(given, on, slurm)

    def place_of(resumed: RunFolder) -> tuple[Lab, JobExecutor | None]:
        record = job_records.load(resumed)
        if on is None and record is not None and (not slurm or record.kind == "slurm"):  # where its last job was
            return (of_runs := Lab(given)), of_runs.executor_of(resumed, job_options)
        return (of_runs := Lab(settings, options=job_options)), of_runs.executor

    if (named := several_runs.of_record(Lab(given), name)) is not None:
        useless = {"--detach": detach, "--devices": devices, "--wide": wide}
        act_on_several.resume(named, place_of, useless)
        return
    folder = run_store.find(settings.lab, name)
    home, executor = place_of(folder)
    if executor is not None:
        home.refresh_jobs(force=True)
        home.check_resumable(folder)
        if devices:
            what = f"a job on {executor.name} uses as many devices as the run was made for"
            raise UsageError(what, where="--devices", hint="omit --devices", code="options-conflict")
        executor.device(run_store.load_plan(folder).device)
        before = waiting_trackers.attempts_of(folder)
        records = home.submit([folder], executor)
        waiting_trackers.start_when_they_begin({folder.path: before})
        live_status.tell_submitted(home, [folder], records, executor)
        return
    follower = Follower(folder)
    follower.poll()  # what earlier workers did was shown then, and is no sign of the new one
    attempts = max(folder.attempt_numbers(), default=0)
    worker = home.resume(folder, devices or "")
    tracking_process.start_again(folder, attempts)
    if detach:
        live_status.wait_until_running(home, folder, worker)
        info(
            f"Run {run_store.title(folder)} is running in the background. "
            f"Follow it with {next_steps.command(home.folder, 'logs -f', folder)}."
        )
        return
    raise typer.Exit(live_status.follow(home, follower, worker, settings.format, wide=wide))


def stop(
    name: RunOrGroup,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the run has stopped.")] = False,
    lab: options.Lab = None,
) -> None:
    """Stop a run after its current step, with a checkpoint; `cerank resume` continues from there.

    Of a sweep or a matrix, all runs that are at work are stopped, and those in the queue leave it.
    """
    from cerank.app.run_views import several_runs
    from cerank.cli import act_on_several, live_status

    home = Lab(settings_of(lab))
    if (named := several_runs.of_record(home, name)) is not None:
        act_on_several.stop(home, named, wait=wait)
        return
    folder = home.find(name)
    resume_hint = f"Resume it with {next_steps.command(home.folder, 'resume', folder)}."
    was_queued = home.status(folder).state == "queued"
    home.stop(folder)
    if was_queued and (why := home.why_unanswered(folder)):
        info(f"Its executor gave no answer, so the job may still start, and then ends before it begins the run: {why}")
    if home.status(folder).state not in {"running", "stopping"}:
        info(f"Run {run_store.title(folder)} is {home.status(folder).state}. {resume_hint}")
    elif wait:
        live_status.wait_until_stopped(home, folder)
        info(f"Run {run_store.title(folder)} is {home.status(folder).state}. {resume_hint}")
    else:
        info(f"Run {run_store.title(folder)} will stop after the current step. {resume_hint}")
    waiting = [run_store.short_name(other) for other in home.runs_waiting_for(folder)]
    if waiting:
        again = next_steps.command(home.folder, "resume RUN")
        info(
            f"Jobs of {counted(len(waiting), 'other run')} wait for a stage that it was to train, and do not begin "
            f"without it: {', '.join(waiting)}. Stop them and submit each again with {again}, or all by the command "
            f"of the matrix; or let this one train on."
        )


def rm(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs: short names, labels, ids, or parts of these; or sweeps and matrices, for all their runs.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    lab: options.Lab = None,
) -> None:
    """Delete runs with their checkpoints, rankings and measures.

    Of a sweep or a matrix, all runs go, and the record of what was declared and tried stays.
    """
    from cerank.cli import act_on_several

    home = Lab(settings_of(lab))
    act_on_several.delete(home, names, is_confirmed=yes)
