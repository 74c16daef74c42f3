"""An index of a lab's runs in one SQLite file of the cache: what lists show, and tables that `cerank query` reads.

Invariant: the index is never the truth. A row counts only while its run's folder has the time of change that it had
when the row was made; a file that is damaged, or of another release, is deleted and made anew from the folders. A
ranking or model that is changed in place moves no such time: who watches a lab looks again every minute or so, `cerank
ps` looks into the folders inside each run and reads some runs each time, and `show` and `verify` read the run itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

import cerank
from cerank.app.run_views import verdict_summaries
from cerank.app.run_views.verdict_summaries import VerdictSummary
from cerank.core.metrics import Validation
from cerank.errors import CerankError
from cerank.files import disk, json_records
from cerank.recipes.plan import Plan
from cerank.runs.run_store import Status
from cerank.runs.user_labels import UserLabels

_FORMAT = 3
_SETTLED = 2_000_000_000  # ns after which a folder's time of change tells one change from the next
PATIENCE = 5.0  # seconds to wait for another process that writes
KEPT_STATES = frozenset({"finished", "failed", "damaged"})  # those that last; others are read from their folders

TABLES: dict[str, tuple[str, tuple[tuple[str, str, str], ...]]] = {
    "runs": (
        "one row for each run",
        (
            ("run", "TEXT PRIMARY KEY", "id, the name of its folder"),
            ("short_name", "TEXT", "two words by which commands know it"),
            ("label", "TEXT", "the user's label"),
            ("tags", "TEXT", "the user's tags, separated by blanks"),
            ("state", "TEXT", "waiting, queued, running, stopping, paused, finished, failed, lost or damaged"),
            ("why", "TEXT", "why it failed or is damaged"),
            ("recipe", "TEXT", "name of its recipe"),
            ("stages", "TEXT", "stages in order, separated by ' > '"),
            ("base", "TEXT", "base model, as the list shows it"),
            ("seed", "INTEGER", "seed of the recipe"),
            ("device", "TEXT", "device that it was planned for"),
            ("created", "TEXT", "when it was made, UTC, ISO 8601"),
            ("finished", "TEXT", "when it ended, UTC, ISO 8601"),
            ("seconds", "REAL", "duration of the steps and validations that count"),
            ("attempts", "INTEGER", "how often a worker was started for it"),
            ("verdict", "TEXT", "verdict on its last stage, where it was computed (the dashboard does)"),
            ("sentence", "TEXT", "the same as a sentence"),
            ("note", "TEXT", "first line of the user's note"),
        ),
    ),
    "measures": (
        "mean of each measure of each measured ranking",
        (
            ("run", "TEXT", "id of the run"),
            ("system", "TEXT", "stage that re-ranked, 'first-stage', or a finished re-ranker"),
            ("dataset", "TEXT", "test dataset"),
            ("first_stage", "TEXT", "ranking whose candidates were re-ranked"),
            ("measure", "TEXT", "such as nDCG@10"),
            ("mean", "REAL", "mean over the queries"),
            ("queries", "INTEGER", "number of queries"),
        ),
    ),
    "validations": (
        "each measure of each validation",
        (
            ("run", "TEXT", "id of the run"),
            ("stage", "TEXT", "stage that was trained"),
            ("step", "INTEGER", "steps done in it"),
            ("measure", "TEXT", "such as nDCG@10"),
            ("value", "REAL", "mean over the validation queries"),
        ),
    ),
    "settings": (
        "every setting of each run's recipe, as the plan has it",
        (
            ("run", "TEXT", "id of the run"),
            ("key", "TEXT", "such as stages.distill.learning_rate"),
            ("value", "TEXT", "as text; CAST(value AS REAL) makes it a number"),
        ),
    ),
}
Rows = Mapping[str, Iterable[tuple[object, ...]]]  # table -> its rows of one run


class IndexedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the index keeps of a run for lists: all that was read from its folder."""

    plan: Plan | None
    status: Status
    notes: UserLabels
    validation: Validation | None
    finals: dict[str, float]
    note: str
    verdict: VerdictSummary | None
    kept: float | None = None  # of a run without a test set: validation at the weights that it hands on
    recorded_name: str = ""  # the short name in its folder; "" where there is none
    folders: tuple[str, ...] = ()  # inside it, with the files of a finished run that have checksums


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run with the time of change of its folder at which it was read."""

    name: str
    mark: int
    run: IndexedRun


_encoder = msgspec.json.Encoder()
_decoder = json_records.decoder_of(IndexedRun)


class RunIndex:
    """The index of one lab; every method opens the file for itself, and a file that cannot be used is no error."""

    def __init__(self, lab: Path, cache: Path) -> None:
        self._cache = cache
        self._release = f"{_FORMAT} {cerank.__version__}"
        name = hashlib.sha256(os.fsencode(lab.absolute())).hexdigest()[:16]
        self.path = cache / "run-index" / f"{name}.sqlite"

    def load(self, marks: Mapping[str, int]) -> dict[str, IndexedRun]:
        """Return the runs whose folders, and verdicts, are as they were when they were indexed.

        Args:
            marks: run -> time of change of its folder now.
        """
        if not self.path.exists():
            return {}
        verdicts = verdict_summaries.change_times(self._cache)
        runs: dict[str, IndexedRun] = {}
        with self._open() as connection:
            if connection is None:
                return {}
            rows = connection.execute("SELECT run, mark, verdict_mark, content FROM indexed_runs")
            for name, mark, verdict_mark, content in rows:
                if marks.get(name) == mark and verdicts.get(name, 0) == verdict_mark:
                    try:
                        runs[name] = _decoder.decode(content)
                    except (msgspec.DecodeError, TypeError):
                        continue  # read from its folder instead
        return runs

    def save(self, runs: Iterable[StoredRun], known: Collection[str]) -> set[str]:
        """Save runs that last as they are, and forget those that are not `known`; return the names of those saved.

        A folder that changed a moment ago may change again without another time of change, so it is left out.
        """
        now = time.time_ns()
        settled = [run for run in runs if run.run.status.state in KEPT_STATES and now - run.mark > _SETTLED]
        verdicts = verdict_summaries.change_times(self._cache)
        rows = [(run.name, run.mark, verdicts.get(run.name, 0), _encoder.encode(run.run)) for run in settled]
        saved: set[str] = set()
        with self._open() as connection:
            if connection is None:
                return saved
            statement = "INSERT OR REPLACE INTO indexed_runs (run, mark, verdict_mark, content) VALUES (?, ?, ?, ?)"
            connection.executemany(statement, rows)
            _forget_others(connection, "indexed_runs", known)
            connection.commit()  # here, for an error of it would pass unnoticed at the end of the block
            saved |= {run.name for run in settled}
        return saved

    def detailed(self) -> dict[str, str]:
        """Return run -> the stamp with which `save_details` last saved its rows."""
        stamps: dict[str, str] = {}
        with self._open() as connection:
            if connection is not None:
                stamps = dict(connection.execute("SELECT run, stamp FROM detailed_runs"))
        return stamps

    def save_details(self, details: Iterable[tuple[str, str, Rows]], known: Collection[str]) -> None:
        """Save the rows of runs in `TABLES`, each with a stamp; forget those that are not `known`.

        Raises:
            sqlite3.Error: the file cannot be written; without these rows there is nothing to query.
        """
        with self._open(is_needed=True) as connection:
            assert connection is not None  # noqa: S101 - `is_needed`
            for name, stamp, rows in details:
                for table, (_, columns) in TABLES.items():
                    connection.execute(f"DELETE FROM {table} WHERE run = ?", (name,))  # noqa: S608 - names of ours
                    marks = ", ".join("?" * len(columns))
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows.get(table, ()))  # noqa: S608
                connection.execute("INSERT OR REPLACE INTO detailed_runs VALUES (?, ?)", (name, stamp))
            for table in (*TABLES, "detailed_runs"):
                _forget_others(connection, table, known)

    @contextlib.contextmanager
    def _open(self, *, is_needed: bool = False) -> Iterator[sqlite3.Connection | None]:
        """Open the file for one transaction, made anew where it is absent or of no use; None where it cannot be used.

        Raises:
            sqlite3.Error: it cannot be used, and `is_needed`.
        """
        connection = None
        try:
            connection = self._connected_or_new()
        except (sqlite3.Error, CerankError, OSError) as error:
            if is_needed:
                raise sqlite3.OperationalError(str(error)) from error
        if connection is None:
            yield None
            return
        with contextlib.closing(connection):
            try:
                with connection:
                    yield connection
            except sqlite3.Error as error:
                if not isinstance(error, sqlite3.OperationalError) or "no such table" in str(error):  # not busy or full
                    with contextlib.suppress(OSError):
                        self.path.unlink(missing_ok=True)
                if is_needed:
                    raise

    def _connected_or_new(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except (sqlite3.Error, CerankError, OSError) as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise  # by another process, which makes or fills it
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        disk.make_folder(self.path.parent)
        connection = sqlite3.connect(self.path, timeout=PATIENCE)
        try:
            has_release = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'release'").fetchone()
            release = connection.execute("SELECT text FROM release").fetchone() if has_release else None
            if release != (self._release,):
                _make_tables(connection, self._release)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_tables(connection: sqlite3.Connection, release: str) -> None:
    """Drop every table, and make them anew."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f'DROP TABLE "{name}"')
        connection.execute("CREATE TABLE release (text TEXT)")
        connection.execute("INSERT INTO release VALUES (?)", (release,))
        connection.execute(
            "CREATE TABLE indexed_runs (run TEXT PRIMARY KEY, mark INTEGER, verdict_mark INTEGER, content BLOB)"
        )
        connection.execute("CREATE TABLE detailed_runs (run TEXT PRIMARY KEY, stamp TEXT)")
        for name, (_, columns) in TABLES.items():
            connection.execute(f"CREATE TABLE {name} ({', '.join(f'{key} {kind}' for key, kind, _ in columns)})")
            if name != "runs":
                connection.execute(f"CREATE INDEX {name}_of_run ON {name} (run)")


def _forget_others(connection: sqlite3.Connection, table: str, known: Collection[str]) -> None:
    """Delete the rows of runs that are gone."""
    names = {name for (name,) in connection.execute(f"SELECT DISTINCT run FROM {table}")}  # noqa: S608 - names of ours
    gone = [(name,) for name in names - set(known)]
    connection.executemany(f"DELETE FROM {table} WHERE run = ?", gone)  # noqa: S608
