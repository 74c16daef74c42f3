"""Several runs that one name stands for, those of a sweep or a matrix, and which of many runs an action is for.

Invariant: the command line and the dashboard choose by the same rules, which are here; nothing here acts on a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from cerank.app.lab import Lab
from cerank.app.run_views.run_monitor import LIVE_STATES
from cerank.files.disk import DamagedError
from cerank.recipes.sweep_schema import SweepRecord
from cerank.runs import declared_records, run_store
from cerank.runs.declared_records import MATRICES, SWEEPS
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import shown

_CAN_RESUME = frozenset({"waiting", "paused", "lost", "failed"})


class MemberRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a sweep or a matrix, as it stands."""

    folder: RunFolder
    state: str
    was_stopped_early: bool = False  # by its sweep, which has done with it
    also_in: tuple[str, ...] = ()  # other sweeps and matrices that it is a run of: "matrix grid"


class RunsOfRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a sweep or a matrix."""

    noun: str  # "sweep" or "matrix"
    name: str
    runs: tuple[MemberRun, ...]  # those that the lab has, the oldest first; at least one
    has_more: bool = False  # whether a sweep makes more trials than it has so far

    @property
    def title(self) -> str:
        """Return what messages call it: "sweep rates"."""
        return f"{self.noun} {shown(self.name, 80)}"


def can_stop(state: str) -> bool:
    """Return whether a run in this state is at work, or will be without anybody doing anything."""
    return is_at_work(state) or state == "queued"


def can_resume(state: str, *, was_stopped_early: bool = False, is_meant: bool = False) -> bool:
    """Return whether a run in this state may be put in the queue.

    Args:
        state: state of the run.
        was_stopped_early: whether its sweep stopped it, which has done with it.
        is_meant: whether the user named this run and no other.
    """
    return state in _CAN_RESUME and (is_meant or not was_stopped_early)


def is_at_work(state: str) -> bool:
    """Return whether a worker is at a run in this state."""
    return state in LIVE_STATES


def place_in_stopping(state: str) -> int:
    """Return when a run is stopped among many: those in the queue first, or one would start as another ends."""
    return 0 if state == "queued" else 1


def of_record(lab: Lab, text: str) -> RunsOfRecord | None:
    """Return the runs of the sweep or matrix called `text`; None where a run is called so, or nothing of it is left.

    Args:
        lab: lab of the runs.
        text: name of the sweep or matrix, as it was declared.
    """
    folders = run_store.of_record(lab.folder, text)
    if not folders:
        return None
    noun, _ = declared_records.kind_of(lab.folder, text)
    lab.refresh_jobs()
    sweep = _sweep(lab.folder, text) if noun == "sweep" else None
    early = {trial.run for trial in sweep.trials if trial.stopped} if sweep is not None else set()
    others = records_of_runs(lab.folder, (folder.name for folder in folders))
    title = f"{noun} {shown(text, 80)}"
    runs = tuple(
        MemberRun(
            folder=folder,
            state=lab.status(folder).state,
            was_stopped_early=folder.name in early,
            also_in=tuple(other for other in others.get(folder.name, ()) if other != title),
        )
        for folder in folders
    )
    has_more = sweep is not None and len(sweep.trials) < sum(sweep.planned.values())
    return RunsOfRecord(noun=noun, name=text, runs=runs, has_more=has_more)


def records_of_runs(lab: Path, runs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return run id -> the sweeps and matrices of the lab that it is a run of, as "sweep rates"; only those of some.

    Args:
        lab: folder of the lab.
        runs: ids of runs.
    """
    chosen, titles = set(runs), dict[str, tuple[str, ...]]()
    declared = [(SWEEPS.noun, record.name, record.members) for record in SWEEPS.load_all(lab)]
    declared += [(MATRICES.noun, record.name, record.members) for record in MATRICES.load_all(lab)]
    for noun, name, members in declared:
        for run in chosen.intersection(members.values()):
            titles[run] = (*titles.get(run, ()), f"{noun} {shown(name, 80)}")
    return titles


def states_in_words(runs: Sequence[MemberRun]) -> str:
    """Return how many of the runs are in each state: "17 finished, 2 failed, 1 stopped early by the sweep"."""
    counts: dict[str, int] = {}
    for run in runs:
        words = "stopped early by the sweep" if run.was_stopped_early and run.state != "finished" else run.state
        counts[words] = counts.get(words, 0) + 1
    return ", ".join(f"{count} {words}" for words, count in counts.items())


def sharing_in_words(runs: Sequence[MemberRun]) -> str:
    """Return how many of the runs are those of other sweeps or matrices, too, and of which; "" for none."""
    shared = [run for run in runs if run.also_in]
    if not shared:
        return ""
    of = ", ".join(dict.fromkeys(title for run in shared for title in run.also_in))
    return f"{len(shared)} of these runs {'belongs' if len(shared) == 1 else 'belong'} to {of}, too"


def _sweep(lab: Path, name: str) -> SweepRecord | None:
    try:
        return SWEEPS.load_if_there(lab, name)
    except DamagedError:  # it was written over since its runs were found
        return None
