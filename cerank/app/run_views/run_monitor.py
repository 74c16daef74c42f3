"""Watching a lab: an entry for each run, looked at again only where something may have changed.

Invariant: an entry is made from files alone, so two that watch see the same; a broken run is an entry, not an error.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.app import fold_runs
from cerank.app.run_views import display, verdict_summaries
from cerank.app.run_views.run_index import KEPT_STATES, IndexedRun, RunIndex, StoredRun
from cerank.app.run_views.sweep_trials import SweepSummary, SweepTrial, TrialsOfLab, kept_value
from cerank.app.run_views.verdict_summaries import VerdictSummary
from cerank.core.metrics import Progress, Validation
from cerank.files.disk import DamagedError
from cerank.recipes.plan import Plan
from cerank.runs import overlapped_reads, queue, run_names, run_store, run_summaries, user_labels
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.queue import QueueEntry
from cerank.runs.run_store import RunRow, Status
from cerank.runs.run_summaries import LatestValidation
from cerank.runs.user_labels import UserLabels
from cerank.scheduler.queue_status import QueueState

LIVE_STATES = ("running", "stopping")
_TELLING = 3  # steps or queries after which a speed means something
_POLLS_PER_FULL_READ = 60  # polls after which every run was read again, for an edit in place moves no mark
_MOST_READ_AGAIN = 20  # runs that one poll reads again though nothing moved; a lab of thousands takes more polls
TURN_SECONDS = 5  # after which a list that is read once reads other runs in full
READ_IN_TURN = 50  # runs that such a list reads in full though nothing moved: all of a small lab
_POLLS_PER_SAVE = 30  # polls after which what changed is put into the index


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run as lists show it; `plan` is None where it is unreadable."""

    folder: RunFolder
    plan: Plan | None
    status: Status
    notes: UserLabels = UserLabels()
    validation: Validation | None = None  # the newest
    finals: dict[str, float] = {}  # means of the last stage on the first test dataset
    short_name: str = ""  # as `run_store.short_names` has it
    note: str = ""  # first line of the user's note on it
    place: int = 0  # in the queue, from 1; 0 where it is not in it
    verdict: VerdictSummary | None = None  # None until the run is finished and its verdict computed
    trial: SweepTrial | None = None  # what it is a trial of
    kept: float | None = None  # of a finished run without a test set: validation at the weights that it hands on
    members: tuple[RunEntry, ...] = ()  # the runs of a row that stands for seeds, folds or trials, see `seed_groups`
    sweep: SweepSummary | None = None  # of a row that stands for the trials of a sweep
    waits_for: str = ""  # a queued run: the device with the run that uses it, or what else keeps it from starting

    @property
    def runs(self) -> tuple[RunEntry, ...]:
        """The runs that the entry stands for: itself, or those of several seeds and folds, or of a sweep."""
        return self.members or (self,)

    @property
    def name(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def label(self) -> str:
        """Return the label of the run, "" without one; of several seeds the words with which all their labels begin."""
        if self.sweep is not None:
            best = self.sweep.best()
            return f"best {best.trial.text()}" if best else ""
        if self.members:
            every = zip(*(entry.label.split() for entry in self.members), strict=False)
            shared = " ".join(words[0] for words in itertools.takewhile(lambda words: len(set(words)) == 1, every))
            return shared.removesuffix("fold").rstrip() if any(entry.fold for entry in self.members) else shared
        return self.notes.label or (self.plan.label if self.plan else "")

    @property
    def title(self) -> str:
        """Return the short name, followed by the label if there is one."""
        return f"{self.short_name or self.name} ({self.label})" if self.label else self.short_name or self.name

    @property
    def state(self) -> str:
        """The state as a word."""
        return self.status.state

    @property
    def why(self) -> str:
        """Return the reason for the state, with paths relative to the run's folder; "" if the state says enough."""
        return self.status.text.replace(f"{self.folder.path}/", "")

    @property
    def is_live(self) -> bool:
        """Return whether a worker process is carrying out the run."""
        return self.status.state in LIVE_STATES

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return self.plan.recipe.name if self.plan else ""

    @property
    def base(self) -> str:
        """The base's name; of a folder, its last part."""
        return self.plan.recipe.base.rstrip("/").rpartition("/")[2] if self.plan else ""

    @property
    def seed(self) -> int | None:
        """The seed of the recipe."""
        return self.plan.recipe.seed if self.plan else None

    @property
    def fold(self) -> int:
        """The fold of a dataset's queries that the run is tested on, from 1; 0 for none."""
        fold = fold_runs.fold_of(self.plan.recipe) if self.plan else None
        return fold[0] if fold else 0

    @property
    def place_in_group(self) -> str:
        """Return what tells the run from the others of its row: "seed 42", "seed 42 fold 1"."""
        return f"seed {self.seed} fold {self.fold}" if self.fold else f"seed {self.seed}"

    @property
    def created(self) -> str:
        """Return when the run was made, in UTC by ISO 8601; "" if its plan cannot be read."""
        return self.plan.created if self.plan else ""

    @property
    def progress(self) -> Progress | None:
        """Return the newest progress that the run's worker wrote; None if no worker is running."""
        return self.status.progress if self.is_live else None

    @property
    def stage(self) -> str:
        """Return the current phase: "2/2 distill", "2/2 validation", "re-rank distill"; "" if no worker is running."""
        if self.progress is None or self.plan is None:
            return ""
        chain = self.plan.recipe.chain
        detail = self.progress.detail.partition(" on ")[0]
        if self.progress.phase in {"train", "validate"} and detail in chain:
            what = detail if self.progress.phase == "train" else "validation"
            return f"{chain.index(detail) + 1}/{len(chain)} {what}"
        return f"{self.progress.phase} {detail}".strip()

    @property
    def share(self) -> float | None:
        """Return the completed fraction of the current phase, 0 to 1."""
        progress = self.progress
        return min(1.0, progress.done / progress.total) if progress and progress.total else None

    @property
    def seconds_left(self) -> float:
        """Until the run is over, as its worker expects (its phase, where the run was not estimated); 0 for unknown."""
        return (self.progress.expected_seconds if self.progress else None) or 0.0

    @property
    def run_share(self) -> float | None:
        """Return the completed fraction of the whole run, 0 to 1; None without an estimate or without a worker."""
        progress = self.progress
        return None if progress is None or progress.run_seconds_left is None else progress.run_share

    @property
    def pairs_per_second(self) -> float:
        """Return the pairs that go through the model per second; 0 until three steps or queries are done."""
        progress = self.progress
        return progress.pairs_per_second if progress and (progress.done >= _TELLING or not progress.total) else 0.0

    @property
    def validated(self) -> tuple[str, float] | None:
        """Return the stage's validation measure and its newest value; of a sweep, the best trial's."""
        if self.sweep is not None:
            best = self.sweep.best()
            return (self.sweep.measure, best.value) if best and best.value is not None else None
        if self.trial is not None and self.kept is not None:
            return self.trial.measure, self.kept
        if self.validation is None or not self.validation.measures or self.plan is None:
            return None
        chain, measures = self.plan.recipe.chain, self.validation.measures
        name = ""
        if self.validation.stage < len(chain):
            name = self.plan.recipe.stages[chain[self.validation.stage]].validation_measure
        name = name if name in measures else next(iter(measures))
        return name, measures[name]

    @property
    def final(self) -> tuple[str, float] | None:
        """Return the first measure of the final evaluation and its mean."""
        return next(iter(self.finals.items()), None)

    @property
    def at(self) -> str:
        """Return the current phase, such as "2/2 distill 61%", or where the run waits or stopped; else ""."""
        if self.sweep is not None:
            return self.sweep.progress
        if self.trial is not None and self.trial.stopped:
            return f"stopped early, after validation {self.trial.stopped}"
        if self.state == "queued" and self.status.job is not None:
            return self.status.job.text
        if self.state == "queued":
            waits_for = self.waits_for.partition(" in /")[0]  # without the folder of another lab, which details show
            return f"queue #{self.place}" + (f": {waits_for}" if waits_for else "")
        progress = self.status.progress
        if self.state in {"paused", "lost"} and progress is not None and progress.total:
            where = "" if progress.phase == "train" else f"{progress.phase} "
            return f"at {where}{progress.detail.partition(' on ')[0]} {progress.done} of {progress.total}"
        return self.stage + (f" {100 * self.share:.0f}%" if self.share is not None and self.stage else "")


class StateChange(msgspec.Struct, frozen=True):
    """A change of a run's state that the monitor saw."""

    entry: RunEntry
    before: str
    now: str


class _CachedEntry:
    """What is remembered of a run between two polls."""

    def __init__(self, folder: RunFolder) -> None:
        self.mark = -1
        self.latest_validation = LatestValidation(folder)
        self.entry: RunEntry | None = None


class LabMonitor:
    """Watches the runs of a lab; used by one thread at a time."""

    def __init__(
        self,
        lab: Path,
        queue_state: Callable[[], QueueState] | None = None,
        cache: Path | None = None,
        refresh_jobs: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch a lab.

        Args:
            lab: folder of the runs to watch.
            queue_state: returns what each device does; called while runs are queued. None shows no queue.
            cache: where verdicts are kept; None shows none.
            refresh_jobs: asks executors how jobs on other machines stand, if it is time to; called at each poll.
        """
        self._refresh_jobs = refresh_jobs
        self._lab = lab
        self._cache = cache
        self._queue_state = queue_state
        self._index = RunIndex(lab, cache) if cache is not None else None
        self._to_save: set[str] = set()  # runs that the index does not have as they are
        self._queued_entries: dict[str, RunEntry] = {}
        self._trials = TrialsOfLab(lab)
        self._trial_entries: dict[str, tuple[RunEntry, RunEntry]] = {}  # run -> entry, and the same as a trial
        self._kept: dict[str, _CachedEntry] = {}
        self._looks = 0
        self._queued: set[str] = set()
        self._entries: Sequence[QueueEntry] = ()
        self._short: dict[str, str] = {}

    def poll(self, again: Iterable[str] = (), now: datetime | None = None) -> tuple[RunEntry, ...]:
        """Return an entry for each run, the oldest first; one that did not change is the same object as before.

        Args:
            again: names to look at again, whatever their marks say.
            now: set by who looks once and not again: runs in the index are looked into, and some are read in full,
                others each time; it decides which.
        """
        self._refresh_jobs()
        marks = run_summaries.change_times(self._lab)
        self._entries = queue.entries_or_none(self._lab) if marks else []
        queued = [entry.run for entry in self._entries]
        anew = set(again) | (set(queued) ^ self._queued)
        self._queued = set(queued)
        indexed = self._index.load(marks) if self._index is not None and not self._looks else {}
        if now is not None:
            indexed = self._unchanged(indexed, marks, now)
        for name, run in indexed.items():
            if run.recorded_name:
                run_names.cached_names.setdefault(self._folder(name).path, run.recorded_name)
        if set(marks) - set(self._short):
            self._short = run_store.short_names(self._lab)
        self._kept = {name: self._kept.get(name) or _CachedEntry(self._folder(name)) for name in marks}
        for name, run in indexed.items():
            if name not in self._queued:
                self._kept[name].mark = marks[name]
                self._kept[name].entry = self._of_index(name, run)
        period = max(_POLLS_PER_FULL_READ, len(marks) // _MOST_READ_AGAIN)
        stale = [
            name
            for index, (name, mark) in enumerate(marks.items())
            if self._is_stale(name, mark) or name in anew or (self._looks > 0 and (index + self._looks) % period == 0)
        ]
        overlapped_reads.read_all(lambda name: self._read(name, marks[name]), stale)
        out = [entry for name in marks if (entry := self._kept[name].entry) is not None]
        if self._looks % _POLLS_PER_SAVE == 1:  # not in the first, which someone waits for
            self.save_index()
        self._looks += 1
        out = self._as_trials(out)
        return tuple(self._with_queue_places(out, queued)) if queued else tuple(out)

    def _unchanged(
        self, indexed: Mapping[str, IndexedRun], marks: Mapping[str, int], now: datetime
    ) -> dict[str, IndexedRun]:
        """Return the runs of the index in which nothing moved since, without those whose turn it is to be read."""
        names = list(indexed)
        turns = -(-len(names) // READ_IN_TURN)
        turn = int(now.timestamp() // TURN_SECONDS) % max(1, turns)
        waiting = [name for place, name in enumerate(names) if place % turns != turn]

        def has_changed(name: str) -> bool:
            return run_summaries.has_changed_inside(self._folder(name), indexed[name].folders, marks[name])

        changed = overlapped_reads.read_all(has_changed, waiting)
        return {name: indexed[name] for name, is_changed in zip(waiting, changed, strict=True) if not is_changed}

    def _is_stale(self, name: str, mark: int) -> bool:
        """Return whether a run may be otherwise than it was read."""
        entry = self._kept[name].entry
        return entry is None or mark != self._kept[name].mark or entry.is_live or entry.state == "queued"

    def _read(self, name: str, mark: int) -> None:
        """Read a run; its entry stays the same object where nothing changed."""
        cached_entry = self._kept[name]
        cached_entry.mark = mark
        row = run_store.row(self._folder(name), datetime.now(UTC), self._entries)
        entry = _entry(row, cached_entry.latest_validation, self._short.get(name, name), self._cache)
        if cached_entry.entry is None or _without_time(entry) != _without_time(cached_entry.entry):
            cached_entry.entry = entry
            self._to_save.add(name)

    def _of_index(self, name: str, run: IndexedRun) -> RunEntry:
        """Return the entry of a run as the index has it."""
        return RunEntry(
            folder=self._folder(name),
            plan=run.plan,
            status=run.status,
            notes=run.notes,
            note=run.note,
            short_name=self._short.get(name, name),
            validation=run.validation,
            finals=run.finals,
            verdict=run.verdict,
            kept=run.kept,
        )

    def mark_of(self, name: str) -> int:
        """Return the time of change of a run's folder at which it was last read."""
        return self._kept[name].mark

    def save_index(self) -> None:
        """Put what changed into the index; `poll` does so now and then."""
        if self._index is None or not self._to_save:
            return
        cached = {name: self._kept[name] for name in self._to_save & set(self._kept)}
        entries = [item.entry for item in cached.values() if item.entry is not None]
        lasting = [entry for entry in entries if entry.state in KEPT_STATES]
        finished = [entry.folder for entry in lasting if entry.state == "finished"]
        folders = dict(zip(finished, overlapped_reads.read_all(run_summaries.folders_of_files, finished), strict=True))
        stored = []
        for entry in lasting:
            run = IndexedRun(
                plan=entry.plan,
                status=msgspec.structs.replace(entry.status, seconds_since_heartbeat=0.0),
                notes=entry.notes,
                validation=entry.validation,
                finals=entry.finals,
                note=entry.note,
                verdict=entry.verdict,
                kept=entry.kept,
                recorded_name=run_names.cached_names.get(entry.folder.path, ""),
                folders=folders.get(entry.folder, ()),
            )
            stored.append(StoredRun(name=entry.name, mark=cached[entry.name].mark, run=run))
        self._to_save -= self._index.save(stored, self._kept)

    def _as_trials(self, entries: list[RunEntry]) -> list[RunEntry]:
        """Return the entries, those of trials with what they are trials of."""
        trials = self._trials.by_run()
        before, self._trial_entries = self._trial_entries, {}
        for entry in entries if trials else ():
            trial = trials.get(entry.name)
            if trial is None:
                continue
            plain, made = before.get(entry.name, (None, entry))
            if plain is not entry or made.trial != trial:  # else the same object, so that nothing is drawn anew
                made = msgspec.structs.replace(entry, trial=trial)
            self._trial_entries[entry.name] = entry, made
        return [self._trial_entries.get(entry.name, (entry, entry))[1] for entry in entries]

    def _with_queue_places(self, entries: list[RunEntry], queued: Iterable[str]) -> Iterable[RunEntry]:
        """Yield the entries, each queued one with its place and with what it waits for."""
        known = {entry.name: entry for entry in entries}
        waiting = [name for name in queued if name in known and known[name].state == "queued"]
        state = self._queue_state() if self._queue_state is not None and waiting else None
        before, self._queued_entries = self._queued_entries, {}
        for entry in entries:
            if entry.name not in waiting:
                yield entry
                continue
            ahead = waiting.index(entry.name)
            placed = msgspec.structs.replace(entry, place=ahead + 1, waits_for=_waits_for(entry, ahead, state, known))
            if before.get(entry.name) == placed:
                placed = before[entry.name]  # the same object, so that nothing is drawn anew
            self._queued_entries[entry.name] = placed
            yield placed

    def _folder(self, name: str) -> RunFolder:
        return RunFolder(runs_folder(self._lab) / name)


def _without_time(entry: RunEntry) -> RunEntry:
    """Return an entry as it is compared with another: the time since the last heartbeat is no difference."""
    return msgspec.structs.replace(entry, status=msgspec.structs.replace(entry.status, seconds_since_heartbeat=0.0))


def _waits_for(entry: RunEntry, ahead: int, state: QueueState | None, known: dict[str, RunEntry]) -> str:
    """Return what keeps a queued run from starting: the device it needs, with the run that uses it."""
    if state is None or entry.plan is None:
        return ""
    if waits_for := device_waited_for(state, entry.plan, {name: of.short_name for name, of in known.items()}):
        return waits_for
    if not state.running:
        return "the queue is stopped; cerank queue start"
    return f"{ahead} ahead" if ahead else "starting"


def device_waited_for(state: QueueState, plan: Plan, short: Mapping[str, str]) -> str:
    """Return what is said of a device that a plan has to wait for, with the run that uses it; "" where it is free.

    Args:
        state: of the queue.
        plan: of the run that waits.
        short: short names of the lab's runs by id.
    """
    needed = 1 if plan.device == "cpu" else max(1, len(plan.devices))
    user = state.blocked_by(plan.device, needed)
    if user is None:
        return f"no {plan.device} here"
    what = f"{plan.device} is" if needed == 1 else f"it needs {needed} devices at once, and one is"
    return f"{what} used by {short.get(user) or user}" if user else ""


def _entry(row: RunRow, latest_validation: LatestValidation, short_name: str, cache: Path | None) -> RunEntry:
    folder = row.folder
    is_finished = row.plan is not None and row.status.state == "finished"
    noted = UserLabels()
    with contextlib.suppress(DamagedError):
        noted = user_labels.load(folder) if folder.user_labels.name in row.files else noted
    lines = user_labels.load_note(folder).splitlines() if folder.note.name in row.files else []
    return RunEntry(
        folder=folder,
        plan=row.plan,
        status=row.status,
        notes=noted,
        note=next((line.lstrip("# ").strip() for line in lines if line.strip("# ")), ""),  # without a heading's mark
        short_name=short_name,
        validation=latest_validation.refresh() if folder.readings.name in row.files else None,
        finals=run_summaries.final_means(folder, row.plan) if row.plan and is_finished else {},
        verdict=verdict_summaries.load_summary(cache, folder) if cache and is_finished else None,
        kept=kept_value(folder, row.plan) if row.plan and is_finished and not row.plan.recipe.data.test else None,
    )


def state_changes(before: Iterable[RunEntry], now: Iterable[RunEntry]) -> tuple[StateChange, ...]:
    """Return the runs whose state is another one now; new runs and runs that are gone are none."""
    old = {entry.name: entry for entry in before}
    return tuple(
        StateChange(entry, old[entry.name].state, entry.state)
        for entry in now
        if entry.name in old and old[entry.name] is not entry and old[entry.name].state != entry.state
    )


def plain_line(entry: RunEntry) -> str:
    """Return a run in one line of words: its name, state, where it is, the time left, and why or with what it ended."""
    left = display.clock(entry.seconds_left)
    parts = [entry.title, entry.state, entry.at, f"{left} left" if left else ""]
    parts.append(entry.why if entry.state in {"failed", "damaged"} else "")
    parts += [f"{name} {display.short(value)}" for name, value in list(entry.finals.items())[:1]]
    return ", ".join(part for part in parts if part)


def state_counts(entries: Iterable[RunEntry], *, as_words: bool = False) -> str:
    """Return how many runs are in which state: "2▶ 1○ 5✔", or as words "2 running, 5 finished"; "" for none."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.state] = counts.get(entry.state, 0) + 1
    if as_words:
        return ", ".join(f"{counts[state]:,} {state}" for state in display.GLYPHS if state in counts)
    return " ".join(f"{counts[state]}{glyph}" for state, glyph in display.GLYPHS.items() if state in counts)
