"""Runs of a lab: created completely or not at all, found by name, their state computed from their files alone.

Invariant: nothing here keeps a state of its own, and no broken run hides the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import msgspec

from cerank.core.metrics import Event, Progress
from cerank.errors import CerankError, RunFailedError, UsageError, near_files, os_error
from cerank.files import disk, journal, json_records, lease, lease_files
from cerank.files.disk import DamagedError
from cerank.recipes.plan import Plan
from cerank.runs import checksums, declared_records, job_records, overlapped_reads, queue, run_names, user_labels
from cerank.runs.job_records import RunJob
from cerank.runs.layout import RunFolder, plain_name, runs_folder
from cerank.runs.queue import QueueEntry
from cerank.runs.records import Done, Failure, Precisions, RunPlace, StoredPlan
from cerank.text.safe_text import token_at

State = Literal["waiting", "queued", "running", "stopping", "paused", "finished", "failed", "lost", "damaged"]

_ALIVE_SECONDS = 30.0  # seconds; 15 heartbeats
_REMOVED = ".removed"
_FILE_ENDINGS = {".run", ".trec", ".txt", ".tsv", ".res", ".gz", ".zst", ".bz2", ".xz", ".zip", ".parquet", ".json"}
ALL_FOLDS = "@folds"  # after the name of a run of one fold: the runs of all of them
_MOST_NAMED = 5  # runs that a hint names


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run, computed from its files.

    waiting: never started. queued: the scheduler will start or resume it. lost: it was started, and its worker died
    without reporting. damaged: files are not as they were written; `damage` says which. Paused, lost and failed runs
    can be resumed.
    """

    state: State
    attempts: int = 0
    progress: Progress | None = None
    seconds_since_heartbeat: float = 0.0  # 0 if there never was a heartbeat
    done: Done | None = None
    failure: Failure | None = None
    damage: str = ""
    job: RunJob | None = None  # the run's job on other machines, while that says more than the run's own files

    @property
    def text(self) -> str:
        """The reason for the state, in a sentence; "" if the state says enough."""
        if self.job is not None and not self.damage:
            return self.job.text
        if self.damage or self.failure is None or self.state == "queued":
            return self.damage
        place = f"{self.failure.where}: " if self.failure.where else ""
        return place + self.failure.what + (f" ({self.failure.hint})" if self.failure.hint else "")


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a listing; `plan` is None if it is unreadable."""

    folder: RunFolder
    plan: Plan | None
    status: Status
    label: str = ""  # the user's label
    short_name: str = ""  # as `short_name` has it; "" for a row that was read without its lab
    files: frozenset[str] = frozenset()  # names in its folder


# create


def _name(plan: Plan, now: datetime, salt: int) -> str:
    base = plan.recipe.base.rstrip("/").rpartition("/")[2]
    seed = f"{plan.fingerprint} {now.isoformat()} {os.getpid()} {salt}"
    stamp = now.astimezone(UTC).strftime("%Y-%m-%d-%H%M%S")
    suffix = hashlib.sha256(seed.encode()).hexdigest()[:4]
    return f"{stamp}-{plain_name(plan.recipe.name, 40)}-{plain_name(base, 24)}-{suffix}"


def check_no_token(text: str, what: str, hint: str = "take it out, and revoke it") -> None:
    """Check that `text` holds no access token before it is stored in a run and shown.

    Raises:
        UsageError: it holds an access token.
    """
    if token_at(text) >= 0:
        raise UsageError(f"{what} holds an access token, which no run may keep", hint=hint, code="access-token")


def create(lab: Path, plan: Plan, recipe_toml: bytes, now: datetime) -> RunFolder:
    """Create a run that waits for a worker. It appears in the lab completely, or not at all.

    Raises:
        RunFailedError: the disk is full, or (`disk.NotWritableError`) the lab may not be written to.
        UsageError: the plan or the recipe holds an access token.
    """
    data = msgspec.json.encode(StoredPlan.of(plan))
    check_no_token(data.decode(), "the plan", "check the label, the recipe and the names of its data")
    check_no_token(recipe_toml.decode("utf-8", "replace"), "the recipe")
    where = runs_folder(lab)
    salt = 0
    while (folder := RunFolder(where / _name(plan, now, salt))).path.exists():
        salt += 1
    # No new short name is another run's label: what one types then fits one run.
    taken = {*short_names(lab).values(), *map(_label, folders(lab)), plan.label}
    with disk.new_folder(folder.path) as temporary:
        made = RunFolder(temporary)
        run_names.save(made, run_names.choose(folder.name, taken))
        disk.make_folder(made.attempts)
        checksums.write(made, made.recipe, recipe_toml)
        disk.write(made.plan, json_records.with_crc(data) + b"\n")
    return folder


def load_plan(folder: RunFolder, files: Collection[str] | None = None) -> Plan:
    """Return the run's plan; of a run that was copied here, with the cache of this machine.

    Args:
        folder: folder of the run.
        files: names in the folder, where they are known, so that a file that is not there is not looked for.

    Raises:
        DamagedError: plan.json is absent, unreadable, or was changed since it was made.
    """
    hint = "a plan is never edited; start a new run from the changed recipe"
    try:
        stored = json_records.load(folder.plan, StoredPlan)
    except DamagedError as error:
        raise DamagedError(error.what, where=error.where, hint=hint) from error
    data = bytes(stored.plan)
    if hashlib.sha256(data).hexdigest() != stored.sha256:
        what = "the plan is not the one that was made (sha256 differs)"
        raise DamagedError(what, where=str(folder.plan), hint=hint)
    try:
        plan = json_records.decode(data, Plan)
    except json_records.DECODE_ERRORS as error:
        raise DamagedError(
            f"the plan cannot be read: {json_records.decode_reason(error)}", where=str(folder.plan)
        ) from error
    return plan if files is not None and folder.place.name not in files else _with_place(folder, plan)


def _with_place(folder: RunFolder, plan: Plan) -> Plan:
    place = None
    with contextlib.suppress(DamagedError):  # `cerank verify` reports it, and the cache of the plan may do
        place = json_records.load_if_there(folder.place, RunPlace)
    return plan if place is None else msgspec.structs.replace(plan, cache=place.cache)


def save_place(folder: RunFolder, cache: Path) -> None:
    """Record the cache that a run uses from now on: that of its plan was another machine's."""
    json_records.save(folder.place, RunPlace(str(cache)))


# query


def measured_precision(folder: RunFolder, plan: Plan, system: str) -> str:
    """Return the precision in which a stage of a run was measured; "auto" where a run that has not begun leaves it."""
    stage = plan.recipe.stages.get(system)
    declared = (stage.precision if stage is not None else None) or "fp32"
    record = json_records.load_if_there(folder.precisions, Precisions)
    if record is None:  # the recipe left nothing open
        return declared
    return record.reranking.get(system) or record.chosen.get(system, declared)


def finished_like(lab: Path, plan: Plan) -> list[RunFolder]:
    """Return the finished runs of the lab whose plan has the same fingerprint, the newest first."""
    finished = []
    for folder in reversed(folders(lab)):
        with contextlib.suppress(CerankError):  # the list of runs tells of one that is damaged
            stored = json_records.load(folder.plan, StoredPlan) if folder.done.exists() else None
            if stored is not None and stored.fingerprint == plan.fingerprint:
                finished.append(folder)
    return finished


def folders(lab: Path) -> list[RunFolder]:
    """Return the run folders of a lab by name, so the oldest first; links and hidden folders are no runs."""
    where = runs_folder(lab)
    try:
        with os.scandir(where) as entries:  # tells folders from links without a stat for each
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_error(error, where, UsageError, doing="cannot read the lab") from error
    return [RunFolder(where / name) for name in sorted(names) if not name.startswith(".")]


def list_runs(lab: Path, now: datetime) -> list[RunRow]:
    """Return a row for each run, the oldest first; a damaged run has the state "damaged" and a reason."""
    waiting = {entry.run: entry for entry in queue.entries_or_none(lab)}
    named = short_names(lab)

    def read(folder: RunFolder) -> RunRow:
        row = _row(folder, now, waiting.get(folder.name))
        return msgspec.structs.replace(row, short_name=named[folder.name])

    return overlapped_reads.read_all(read, [folder for folder in folders(lab) if folder.name in named])


def short_names(lab: Path) -> dict[str, str]:
    """Return the short name of each run of the lab by its id, the oldest first; no two runs have the same."""
    return run_names.of_runs(folders(lab))


def short_name(folder: RunFolder) -> str:
    """Return the short name of a run; its id where it has left the lab, or the lab cannot be read."""
    try:
        return short_names(folder.lab).get(folder.name, folder.name)
    except UsageError:
        return folder.name


def check_undamaged(folder: RunFolder, path: Path) -> None:
    """Check that the file matches its checksum, if it has one.

    Raises:
        DamagedError: it is not; `where` is the file.
    """
    wrong = checksums.find_change(folder, path)
    if wrong:
        raise DamagedError(wrong, where=str(path), hint=f"`cerank verify {short_name(folder)}` checks the whole run")


def title(folder: RunFolder) -> str:
    """Return a run's short name, with its label beside it where it has one: "brisk-otter (first try)"."""
    return _title(short_name(folder), _label(folder))


def row(folder: RunFolder, now: datetime, entries: Sequence[QueueEntry] | None = None) -> RunRow:
    """Return the run with its plan and status; never raises an error. The queue is read where `entries` is None."""
    entries = queue.entries_or_none(folder.lab) if entries is None else entries
    waiting = [entry for entry in entries if entry.run == folder.name]
    return _row(folder, now, waiting[0] if waiting else None)


def _row(folder: RunFolder, now: datetime, entry: QueueEntry | None) -> RunRow:
    plan, files = None, frozenset[str]()
    try:
        with contextlib.suppress(OSError):  # the plan says what is wrong
            files = frozenset(path.name for path in folder.path.iterdir())
        plan = load_plan(folder, files)
        label = label_of(folder, plan) if folder.user_labels.name in files else plan.label
        return RunRow(folder=folder, plan=plan, status=_status(folder, now, entry, files), label=label, files=files)
    except (CerankError, OSError) as error:
        return RunRow(folder=folder, plan=plan, status=Status(state="damaged", damage=str(error)), files=files)


def status(folder: RunFolder, now: datetime) -> Status:
    """Return the state of a run from its files and its lock.

    `now` decides ages only, never the state on this host.

    It reads the plan, the events, the outcome, the sizes of a finished run's files, and the report of the last check.
    The bytes of metrics, models and rankings are checked by those who read them, and by `cerank verify`.
    """
    return row(folder, now).status


def _status(folder: RunFolder, now: datetime, entry: QueueEntry | None, names: Collection[str]) -> Status:
    """Return the state of a run; `names` in its folder spare a look for each file that is not there."""
    done = json_records.load_if_there(folder.done, Done) if folder.done.name in names else None
    mark = checksums.damage_of(folder) if folder.damage.name in names else ""
    has_failed = not done and folder.failure.name in names
    failure = json_records.load_if_there(folder.failure, Failure) if has_failed else None
    events, damage = journal.read_valid_rows(folder.events, Event) if folder.events.name in names else ([], [])
    attempts = len(folder.attempt_numbers())
    seconds_since_heartbeat = 0.0
    if folder.progress.name in names:
        with contextlib.suppress(OSError):
            seconds_since_heartbeat = max(0.0, now.timestamp() - folder.progress.stat().st_mtime)
    missing = checksums.first_missing(folder) if done else ""
    job = job_records.job_of(folder) if not done and folder.job.name in names else None
    # looked at last, and whatever the listing says: a worker that began since then is no lost one
    is_held = lease.is_held(folder.lease) if not done or folder.lease.name in names else False
    is_alive_elsewhere = bool(attempts) and not done and not is_held and _is_alive_elsewhere(folder, events, now)
    is_in_queue = entry is not None and not done and not queue.is_consumed(entry, events) and not is_held
    damage = [*damage, *([mark] if mark else []), *([missing] if missing else [])]
    if done and (damage and not is_held):
        state: State = "damaged"
    elif done:
        state = "finished"
    elif is_in_queue:
        state = "queued"
    elif failure:
        state = "failed"
    elif job and job.state.is_live and not job.record.is_canceled and not is_held and not is_alive_elsewhere:
        state = "queued"
    elif is_held or is_alive_elsewhere:
        state = "stopping" if folder.stop.exists() else "running"
    elif damage:
        state = "damaged"
    elif events and events[-1].kind == "paused":
        state = "paused"
    else:
        state = "lost" if attempts or queue.starts_in(events) else "waiting"
    return Status(
        state=state,
        attempts=attempts,
        progress=_progress(folder) if folder.progress.name in names else None,
        seconds_since_heartbeat=seconds_since_heartbeat,
        done=done,
        failure=failure,
        damage=damage[0] if damage else "",
        job=job if state in {"queued", "lost", "waiting"} and not is_in_queue else None,
    )


def _progress(folder: RunFolder) -> Progress | None:
    try:
        return json_records.load_if_there(folder.progress, Progress)
    except DamagedError:
        return None  # a hint only, and written again within 2 seconds


def _is_alive_elsewhere(folder: RunFolder, events: list[Event], now: datetime) -> bool:
    """Return whether a worker on another machine seems alive: some network file systems do not share its lock.

    Its heartbeat has the time of the file server, whose clock may be minutes from this machine's.
    """
    holder = lease.owner(folder.lease)
    if holder is None or not folder.progress.exists() or (events and events[-1].kind == "paused"):
        return False
    if (holder.host, holder.boot) == (socket.gethostname(), lease.boot_id()):
        return False
    server_now = now.timestamp() + lease_files.clock_offset(folder.lab)
    try:
        return server_now - folder.progress.stat().st_mtime < _ALIVE_SECONDS
    except OSError:
        return False


def find(lab: Path, text: str) -> RunFolder:
    """Return the run that `text` names.

    That is the run whose id it is; else the one whose short name or label it is; else the one whose id or short name
    it is a part of. `text` is searched in the listing and never becomes a path.

    Raises:
        UsageError: it fits none, or several; the hint names the nearest, or those. Or it is RUN@folds, which are the
            runs of all folds.
    """
    known = {folder.name: folder for folder in folders(lab)}
    if text in known:
        return known[text]
    short = run_names.of_runs(tuple(known.values()))
    labels = {name: _label(folder) for name, folder in known.items()}
    fitting = [name for name in known if text and text in {short[name], labels[name]}]
    fitting = fitting or [name for name in known if text and (text in name or text in short[name])]
    if len(fitting) == 1:
        return known[fitting[0]]
    if fitting:
        more = f" and {len(fitting) - 5} more" if len(fitting) > 5 else ""
        titles = [_title(short[name], labels[name]) for name in fitting[:5]]
        if text in {short[name] for name in fitting}:  # one run's short name, another's label: only ids tell them apart
            titles = [f"{name}, {words}" for name, words in zip(fitting, titles, strict=False)]
        raise UsageError(f"'{text}' fits {len(fitting)} runs", hint="; ".join(titles) + more, code="run-ambiguous")
    if text.endswith(ALL_FOLDS) and text != ALL_FOLDS:
        of_fold = find(lab, text.removesuffix(ALL_FOLDS))
        what = "this takes one run, and RUN@folds are the runs of all folds"
        raise UsageError(what, where=text, hint=f"name one run, such as {short[of_fold.name]}", code="folds-together")
    words = [*short.values(), *(label for label in labels.values() if label), *known]
    raise _not_found(text, _hint_for_unknown(lab, text, words, known))


def _not_found(text: str, hint: str) -> UsageError:
    """Return the error for a name that fits no run."""
    if os.sep in text or Path(text).suffix in _FILE_ENDINGS:
        what = f"no run is called '{text}', and there is no such file"
        return UsageError(what, hint=near_files(Path(text).expanduser()) or hint, code="run-not-found")
    return UsageError(f"no run is called '{text}'", hint=hint, code="run-not-found")


def _hint_for_unknown(lab: Path, text: str, words: Sequence[str], known: Collection[str]) -> str:
    """Return what a text may mean that no run is called, or how to see what there is.

    Args:
        lab: folder of the lab.
        text: what the user wrote.
        words: short names, labels and ids of the lab's runs.
        known: ids of the lab's runs.
    """
    noun, members = declared_records.kind_of(lab, text)
    if noun and not set(members) & set(known):
        return f"it is a {noun}, and all of its runs were deleted"
    if noun:
        return f"it is a {noun}; `cerank ps --all` shows the names of its {'trials' if noun == 'sweep' else 'runs'}"
    if not words:
        return f"there are no runs in {lab} yet"
    if close := get_close_matches(text, dict.fromkeys(words), n=_MOST_NAMED, cutoff=0.6):
        return f"did you mean {' or '.join(repr(word) for word in close)}?"
    if len(known) <= _MOST_NAMED:
        return f"known: {', '.join(sorted(words[: len(known)]))}"
    return "`cerank ps` lists the runs"


def find_each(lab: Path, text: str) -> tuple[RunFolder, ...]:
    """Return the run that `text` names, or all runs that the lab has of the sweep or matrix of that name.

    A run that is called so goes before a sweep or matrix, and these before runs of whose names it is a part.

    Raises:
        UsageError: as `find`.
    """
    return of_record(lab, text) or (find(lab, text),)


def of_record(lab: Path, text: str) -> tuple[RunFolder, ...]:
    """Return all runs that the lab has of the sweep or matrix called `text`; none where a run itself is called so."""
    members = frozenset(declared_records.kind_of(lab, text)[1])
    every = folders(lab) if members else []
    fitting = tuple(folder for folder in every if folder.name in members)
    if not fitting:
        return ()
    names = {*(folder.name for folder in every), *run_names.of_runs(tuple(every)).values(), *map(_label, every)}
    return () if text in names else fitting


def _title(short: str, label: str) -> str:
    """Return a run in words: its short name, and its label where it has one."""
    return f"{short} ({label})" if label else short


_plan_labels: dict[Path, str] = {}  # labels read from plans, which never change: naming a run looks at all of them


def _label(folder: RunFolder) -> str:
    try:
        if folder.path not in _plan_labels:
            _plan_labels[folder.path] = load_plan(folder).label
        return _newest_label(folder, _plan_labels[folder.path])
    except DamagedError:
        return ""


def label_of(folder: RunFolder, plan: Plan) -> str:
    """Return the user's label of the run: the one set later, else the one given at the start; "" without either."""
    return _newest_label(folder, plan.label)


def _newest_label(folder: RunFolder, first: str) -> str:
    try:
        return user_labels.load(folder).label or first
    except DamagedError:
        return first


# update


def remove(folder: RunFolder) -> None:
    """Remove the run with everything in it. It leaves the listing at once, and nobody can start it meanwhile.

    What an earlier removal left behind, killed half-way, goes too. It works on a full disk.

    Raises:
        HeldError: a worker holds it.
        RunFailedError: it is gone already, or may not be removed.
    """
    with lease.Lease.take(folder.lease):
        for left in sorted(folder.path.parent.glob(f".*{_REMOVED}")):
            disk.remove_tree(left)
        trash = folder.path.with_name(f".{folder.name}{_REMOVED}")
        disk.rename(folder.path, trash)
        disk.remove_tree(trash)


def request_stop(folder: RunFolder) -> bool:
    """Ask the run's worker to stop at the next step; return whether a signal woke it, too.

    The file reaches a worker on any host; the signal goes only to the very process that holds the lease on this one.

    Raises:
        RunFailedError: neither the file could be written nor the worker signaled.
    """
    refusal = None
    try:
        disk.touch(folder.stop)
    except RunFailedError as error:
        refusal = error  # on a full disk the signal may still get through
    holder = lease.owner(folder.lease)
    is_live = holder is not None and lease.is_held(folder.lease)
    is_woken = holder is not None and is_live and lease.signal_owner(holder, signal.SIGTERM)
    if refusal is not None and not is_woken:
        raise refusal
    return is_woken


def clear_stop(folder: RunFolder) -> None:
    """Withdraw a request to stop; a worker does so when it starts."""
    disk.remove(folder.stop)


def clear_failure(folder: RunFolder) -> None:
    """Delete the failure before resuming; a worker does so when it starts, under the lease."""
    disk.remove(folder.failure)
