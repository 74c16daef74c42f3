"""What stop, resume and rm do with the name of a sweep or a matrix: they act on all of its runs that the verb fits."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import typer

from cerank.app import Lab, next_steps
from cerank.app.run_views import several_runs
from cerank.app.run_views.several_runs import MemberRun, RunsOfRecord
from cerank.app.tracking import waiting_trackers
from cerank.cli import live_status
from cerank.cli.output import info
from cerank.cli.tables import run_tables
from cerank.errors import CerankError, ExitCode, HeldError, UsageError
from cerank.executors.interface import JobExecutor
from cerank.files.hashing import sha256_json
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import counted

_MOST_NAMED = 5  # runs

Place = tuple[Lab, JobExecutor | None]  # where a run is resumed: None is this machine


def stop(home: Lab, named: RunsOfRecord, *, wait: bool) -> None:
    """Stop the runs that are at work and take those that wait out of the queue.

    Args:
        home: lab of the runs.
        named: the runs.
        wait: whether to return only once no worker is at any of them.

    Raises:
        UsageError: none is at work or queued; or the executor of one refuses to cancel its job, and the others are
            stopped all the same.
    """
    able = [run for run in named.runs if several_runs.can_stop(run.state)]
    if not able:
        what = f"no run of {named.title} is at work or queued: {several_runs.states_in_words(named.runs)}"
        raise UsageError(what, code="run-state")
    refusals = dict(_refusals(home, sorted(able, key=lambda each: several_runs.place_in_stopping(each.state))))
    unanswered = {why for run in able if run.state == "queued" and (why := home.why_unanswered(run.folder))}
    for why in sorted(unanswered):
        info(f"An executor gave no answer, so jobs may still start, and then end before they begin a run: {why}")
    if wait:
        for folder in (run.folder for run in able if run.folder not in refusals):
            live_status.wait_until_stopped(home, folder)
    states = [home.status(run.folder).state for run in able]
    ending = sum(map(several_runs.is_at_work, states))
    parts = [f"{ending} will stop after the current step"] if ending else []
    parts += [
        f"{states.count(state)} {'is' if states.count(state) == 1 else 'are'} {state}"
        for state in dict.fromkeys(states)
        if not several_runs.is_at_work(state)
    ]
    again = next_steps.command(home.folder, f"resume {shlex.quote(named.name)}")
    info(f"{counted(len(able), 'run')} of {named.title}: {', '.join(parts)}. Resume them with {again}.")
    _tell_others(named, able, "stopped")
    names = {run.folder.name for run in named.runs}
    waiting = [other for run in able for other in home.runs_waiting_for(run.folder) if other.name not in names]
    if waiting:
        short = dict.fromkeys(run_store.short_name(other) for other in waiting)
        info(
            f"Jobs of {counted(len(short), 'other run')} wait for a stage that one of these was to train, and do not "
            f"begin without it: {', '.join(short)}. Stop and resume them, too."
        )
    for folder, error in refusals.items():
        info(f"Run {run_store.title(folder)} was not stopped: {error.what}")
    if refusals:
        raise next(iter(refusals.values()))


def _refusals(home: Lab, runs: Sequence[MemberRun]) -> Iterator[tuple[RunFolder, CerankError]]:
    """Stop each of the runs, and yield those that cannot be stopped, with why."""
    for run in runs:
        try:
            if several_runs.can_stop(home.status(run.folder).state):  # it may have finished meanwhile
                home.stop(run.folder)
        except CerankError as error:
            if several_runs.can_stop(home.status(run.folder).state):
                yield run.folder, error


def resume(named: RunsOfRecord, place_of: Callable[[RunFolder], Place], given: Mapping[str, object]) -> None:
    """Put the runs that wait, or were paused, lost or failed, in the queue, or submit them again.

    Args:
        named: the runs.
        place_of: the lab with which a run is resumed, and where.
        given: option -> value, of those that a run in the queue cannot have.

    Raises:
        UsageError: none can be resumed, or an option was given that does nothing.
    """
    for option, value in given.items():
        if value:
            what = f"{option} does nothing with a {named.noun}, whose runs go to the queue"
            raise UsageError(what, where=option, hint="leave it out, or name a single run", code="options-conflict")
    able = [run for run in named.runs if several_runs.can_resume(run.state, was_stopped_early=run.was_stopped_early)]
    if not able:
        what = f"no run of {named.title} can be resumed: {several_runs.states_in_words(named.runs)}"
        hint = "the same `cerank sweep` command queues the trials that follow" if named.has_more else ""
        raise UsageError(what, hint=hint, code="run-state")
    places = [place_of(run.folder) for run in able]
    by_place: dict[str, tuple[Place, list[RunFolder]]] = {}
    for run, place in zip(able, places, strict=True):
        by_place.setdefault(_key_of(place[1]), (place, []))[1].append(run.folder)
    for (lab, executor), folders in by_place.values():
        _resume_at(lab, executor, folders, named)
    _tell_others(named, able, "resumed")


def _key_of(executor: JobExecutor | None) -> str:
    """Return what tells places apart: jobs are submitted with the options of their run's last one, each its own."""
    return "" if executor is None else sha256_json([executor.name, executor.kind, dict(executor.options)])


def _resume_at(lab: Lab, executor: JobExecutor | None, folders: Sequence[RunFolder], named: RunsOfRecord) -> None:
    before = {folder.path: waiting_trackers.attempts_of(folder) for folder in folders}
    if executor is None:
        lab.queue_here(folders)
        waiting_trackers.start_when_they_begin(before)
        live_status.tell_queued(lab, folders, run_store.load_plan(folders[0]), f", of {named.title}")
        return
    for folder in folders:
        executor.device(run_store.load_plan(folder).device)
    records = lab.submit(folders, executor)
    waiting_trackers.start_when_they_begin(before)
    live_status.tell_submitted(lab, folders, records, executor)


def delete(home: Lab, names: Sequence[str], *, is_confirmed: bool) -> None:
    """Ask, then delete runs, those of a sweep or a matrix all together.

    Args:
        home: lab of the runs.
        names: runs, sweeps and matrices.
        is_confirmed: whether not to ask.

    Raises:
        UsageError: a name fits none or several, or nobody is there to be asked.
        HeldError: a worker is at one of them; of several, none was deleted.
    """
    groups = {text: several_runs.of_record(home, text) for text in names}
    folders = list(dict.fromkeys(folder for text, named in groups.items() for folder in _folders(home, text, named)))
    of_runs = several_runs.records_of_runs(home.folder, [folder.name for folder in folders])
    titles = {folder: run_store.title(folder) for folder in folders}
    if len(folders) > 1:
        _check_deletable(home, folders, names)
    for folder, title in titles.items():
        of = f"  run of {', '.join(of_runs[folder.name])}" if folder.name in of_runs else ""
        info(f"{title}  {run_tables.size_of(folder.path)}{of}")
    group = groups[names[0]] if len(groups) == 1 else None
    if group is not None and (shared := several_runs.sharing_in_words(group.runs)):
        info(f"{shared}.")
    if not is_confirmed:
        _ask(folders, f" of {group.title}" if group is not None else "")
    if len(folders) > 1:
        _check_deletable(home, folders, names)  # again: one may have started while the user was asked
    for folder in folders if len(folders) > 1 else ():
        home.unqueue(folder)  # none of them starts while others are being deleted
    for folder, title in titles.items():
        home.remove(folder)
        info(f"deleted {title}")
    for record in dict.fromkeys(record for records in of_runs.values() for record in records):
        info(f"The record of {record} stays: {_STAYS[record.partition(' ')[0]]}.")


def _ask(folders: Sequence[RunFolder], of: str) -> None:
    """Ask whether to delete runs, `of` something that is said behind their number; "" for nothing.

    Raises:
        UsageError: nobody is there to be asked.
        typer.Exit: the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError("deleting needs a confirmation", hint="give --yes")
    if not typer.confirm(f"Delete {counted(len(folders), 'run')}{of}?", err=True):
        raise typer.Exit(ExitCode.USAGE)


def _folders(home: Lab, text: str, named: RunsOfRecord | None) -> list[RunFolder]:
    return [run.folder for run in named.runs] if named is not None else [home.find(text)]


_STAYS = {
    "sweep": "a trial that was made counts, and the sweep does not go on without its run",
    "matrix": "`cerank run --matrix` makes the runs anew",
}


def _check_deletable(home: Lab, folders: Sequence[RunFolder], names: Sequence[str]) -> None:
    states = [home.status(folder).state for folder in folders]
    busy = [folder for folder, state in zip(folders, states, strict=True) if several_runs.is_at_work(state)]
    if busy:
        short = ", ".join(run_store.short_name(folder) for folder in busy[:_MOST_NAMED])
        more = f" and {len(busy) - _MOST_NAMED} more" if len(busy) > _MOST_NAMED else ""
        what = f"a worker is at {len(busy)} of the {counted(len(folders), 'run')} ({short}{more}); none was deleted"
        stop_words = f"stop {shlex.quote(names[0]) if len(names) == 1 else 'RUN'} --wait"
        hint = f"{next_steps.command(home.folder, stop_words)} first"
        raise HeldError(what, hint=hint, code="run-held")


def _tell_others(named: RunsOfRecord, able: Sequence[MemberRun], done: str) -> None:
    """Say which runs were left as they are, and which of the others are runs of something else, too."""
    chosen = {run.folder.name for run in able}
    left = [run for run in named.runs if run.folder.name not in chosen]
    if left:
        others = f"The other {len(left)} were" if len(left) > 1 else "The other one was"
        info(f"{others} not {done}: {several_runs.states_in_words(left)}.")
    if shared := several_runs.sharing_in_words(able):
        info(f"{shared}.")
    if named.has_more and done == "resumed":
        info("The same `cerank sweep` command queues the trials that follow.")
