"""Read-only SQL over the runs of a lab: the index is brought up to date, then asked.

Invariant: no statement changes a file; what can be asked is the tables of `run_index.TABLES`.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import statistics
from collections.abc import Iterator
from pathlib import Path

from cerank.app import plan_view
from cerank.app.lab import Lab
from cerank.app.run_views.run_index import TABLES, Rows, RunIndex
from cerank.app.run_views.run_monitor import LabMonitor, RunEntry
from cerank.core.metrics import Validation
from cerank.errors import MissingError, RunFailedError, UsageError
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.files.json_records import DECODE_ERRORS, crc_matches
from cerank.files.safe_open import open_file, read_file
from cerank.registry import nearest
from cerank.runs import run_store, run_summaries
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.records import decode_measures
from cerank.text.table_data import Column, Table, Value

_READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, getattr(sqlite3, "SQLITE_RECURSIVE", 33)}
)
_READ_FOLDERS = {"measures", "attempts"}  # of a run; the tables hold nothing of the others
_STEPS = 100_000  # of SQLite's machine between two looks at ctrl+c
_VALIDATION_TAG = b'"type":"validation"'


def query(lab: Lab, statement: str) -> Table:
    """Return what a SELECT statement gives over the runs as they are now.

    Raises:
        UsageError: it is no single statement that only reads, or names a table or column that does not exist.
        MissingError: there are no runs.
        RunFailedError: the cache cannot be written to.
    """
    index = RunIndex(lab.folder, lab.settings.cache)
    update(lab, index)
    connection = sqlite3.connect(f"{index.path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        connection.create_aggregate("stdev", 1, _StandardDeviation)  # type: ignore[arg-type]  # it returns None, too
        connection.create_aggregate("median", 1, _Median)  # type: ignore[arg-type]
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(lambda: 0, _STEPS)
        cursor = connection.execute(statement)
        if cursor.description is None:
            raise UsageError("the statement returns no rows", hint="write SELECT ...", code="bad-query")
        rows = cursor.fetchall()
        names = _distinct([str(column[0]) for column in cursor.description])
    except sqlite3.Warning as error:  # several statements, up to Python 3.11
        raise UsageError("more than one statement", hint="give one SELECT", code="bad-query") from error
    except sqlite3.Error as error:
        raise _query_error(error) from error
    finally:
        connection.close()
    return Table("rows", _columns(names, rows), tuple(tuple(map(_value, row)) for row in rows), empty="No rows.")


def tables() -> Table:
    """Return what can be asked: each table with its columns."""
    columns = (Column("table", "table", "name"), Column("column", "column", "name"), Column("type", "type", "name"))
    rows = tuple(
        (table, key, kind.partition(" ")[0], text) for table, (_, keys) in TABLES.items() for key, kind, text in keys
    )
    notes = tuple(f"{table}: {text}." for table, (text, _) in TABLES.items())
    functions = "Beside SQLite's own functions there are stdev(x), the sample's standard deviation, and median(x)."
    return Table("tables", (*columns, Column("text", "what it holds")), rows, notes=(*notes, functions))


def update(lab: Lab, index: RunIndex) -> None:
    """Bring the tables up to date: runs of which no file changed its size or time since are left as they are.

    Raises:
        MissingError: there are no runs.
        RunFailedError: the cache cannot be written to.
    """
    monitor = LabMonitor(lab.folder, lab.queue_state, lab.settings.cache)
    known = index.detailed()
    files = {name: _files_stamp(runs_folder(lab.folder) / name) for name in run_summaries.change_times(lab.folder)}
    entries = monitor.poll(name for name, stamp in files.items() if known.get(name, "").partition(" ")[0] != stamp)
    if not entries:
        hint = "cerank run --recipe contrastive-then-distill"
        raise MissingError("there are no runs yet", where=str(lab.folder), hint=hint, code="no-runs")
    monitor.save_index()
    known = index.detailed()  # again: an index that was found damaged meanwhile is empty
    stamps = {
        entry.name: f"{files.get(entry.name, '')} {_stamp(entry, monitor.mark_of(entry.name))}" for entry in entries
    }
    changed = [entry for entry in entries if known.get(entry.name) != stamps[entry.name]]
    if not changed and len(known) == len(entries):
        return
    try:
        details = ((entry.name, stamps[entry.name], _rows(entry)) for entry in changed)
        index.save_details(details, [entry.name for entry in entries])
    except sqlite3.Error as error:
        hint = "choose another cache folder with --cache"
        raise RunFailedError(f"the index cannot be written: {error}", where=str(index.path), hint=hint) from error


def _stamp(entry: RunEntry, mark: int) -> str:
    """Return what is another one whenever the rows of a run are."""
    verdict = entry.verdict.stamp if entry.verdict else ""
    return f"{mark} {entry.state} {entry.place} {entry.short_name} {verdict}"


def _files_stamp(folder: Path) -> str:
    """Return what is another one whenever a file of a run that the tables are made of is.

    A file that is changed in place changes no time of its folder, so that each one is looked at; 0.1 ms for a run.
    """
    seen: list[str] = []
    folders = [folder]
    for each in folders:
        try:
            with os.scandir(each) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if each != folder or entry.name in _READ_FOLDERS:
                            folders.append(Path(entry.path))
                        continue
                    state = entry.stat(follow_symlinks=False)
                    seen.append(f"{entry.path} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            continue
    return hashlib.sha256("\n".join(sorted(seen)).encode(errors="surrogateescape")).hexdigest()[:16]


def _rows(entry: RunEntry) -> Rows:
    plan, done = entry.plan, entry.status.done
    row = (
        *(entry.name, entry.short_name, entry.label, " ".join(entry.notes.tags), entry.state, entry.why, entry.recipe),
        *(" > ".join(plan.recipe.chain) if plan else "", entry.base, entry.seed, plan.device if plan else ""),
        *(entry.created, done.time if done else None, done.seconds if done else None, entry.status.attempts),
        *(
            entry.verdict.verdict if entry.verdict else None,
            entry.verdict.sentence if entry.verdict else None,
            entry.note,
        ),
    )
    settings = plan_view.recipe_settings(plan) if plan else {}
    return {
        "runs": [row],
        "measures": list(_measures(entry)),
        "validations": list(_validations(entry)),
        "settings": [(entry.name, key, value) for key, value in settings.items()],
    }


def _measures(entry: RunEntry) -> Iterator[tuple[object, ...]]:
    """Yield the mean of each measure of each ranking that was measured and is as it was written."""
    if entry.plan is None:
        return
    from cerank.app.comparison.named_systems import systems_of

    data = entry.plan.recipe.data
    for system in systems_of(entry.plan):
        for test in data.test:
            for first in data.first_stages:
                path = entry.folder.measures(system, test, first)
                try:
                    run_store.check_undamaged(entry.folder, path)
                    queries = decode_measures(read_file(path))
                except (OSError, DamagedError, *DECODE_ERRORS):
                    continue
                for name in queries[0].measures if queries else ():
                    mean = sum(query.measures.get(name, 0.0) for query in queries) / len(queries)
                    yield entry.name, system, test, first, name, mean, len(queries)


def _validations(entry: RunEntry) -> Iterator[tuple[object, ...]]:
    chain = entry.plan.recipe.chain if entry.plan else ()
    newest: dict[tuple[int, int], Validation] = {}  # a step that was repeated counts as it was done last
    for row in _validation_rows(entry.folder):
        newest[row.stage, row.step] = row
    for (stage, step), row in sorted(newest.items()):
        for name, value in row.measures.items():
            yield entry.name, chain[stage] if stage < len(chain) else str(stage), step, name, value


def _validation_rows(folder: RunFolder) -> Iterator[Validation]:
    """Yield the validations in the journal of a run; the rows of its steps are not decoded."""
    try:
        with open_file(folder.readings) as file:
            for line in file:
                if _VALIDATION_TAG in line and line.endswith(b"\n") and crc_matches(line[:-1]):
                    try:
                        yield json_records.decode(line, Validation)
                    except DECODE_ERRORS:
                        continue
    except OSError:
        return


# --- asking


def _authorize(action: int, _: str | None, name: str | None, *__: str | None) -> int:
    """Allow to read and to compute, and nothing else: no other file is attached, no setting changed."""
    if action == sqlite3.SQLITE_FUNCTION and name == "load_extension":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _query_error(error: sqlite3.Error) -> UsageError:
    """Return what is wrong with a statement, with the nearest name where one is unknown."""
    text = str(error)
    hint = "`cerank query --tables` lists tables and columns"
    if "not authorized" in text or "readonly" in text:
        return UsageError("a query can only read", hint="write SELECT ...", code="bad-query")
    if "one statement at a time" in text:
        return UsageError("more than one statement", hint="give one SELECT", code="bad-query")
    kind, _, name = text.partition(": ")
    if kind == "no such table":
        hint = f"{nearest(name, TABLES)} {hint}"
    elif kind == "no such column":
        known = dict.fromkeys(key for _, keys in TABLES.values() for key, _, _ in keys)
        hint = f"{nearest(name.rpartition('.')[2], known)} {hint}"
    return UsageError(text, hint=hint, code="bad-query")


def _distinct(names: list[str]) -> list[str]:
    """Return names of columns, no two the same: JSON keeps one value for a key."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return distinct


def _columns(names: list[str], rows: list[tuple[object, ...]]) -> tuple[Column, ...]:
    columns = []
    for place, name in enumerate(names):
        values = [row[place] for row in rows if row[place] is not None]
        if values and all(isinstance(value, int) for value in values):
            columns.append(Column(name, name, "number", 0, priority=place))
        elif values and all(isinstance(value, int | float) for value in values):
            columns.append(Column(name, name, "number", 4, priority=place))
        else:
            columns.append(Column(name, name, priority=place))
    return tuple(columns)


def _value(value: object) -> Value:
    """Return a value of SQLite's as tables hold it."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float) else None


class _Figures:
    """Collects the numbers of an aggregate; what is no number is left out, as SQLite's own aggregates do."""

    def __init__(self) -> None:
        self.figures: list[float] = []

    def step(self, value: object) -> None:
        """Take one value."""
        if isinstance(value, int | float) and math.isfinite(value):
            self.figures.append(value)


class _StandardDeviation(_Figures):
    def finalize(self) -> float | None:
        """Return the standard deviation of the sample; NULL below two numbers."""
        return statistics.stdev(self.figures) if len(self.figures) > 1 else None


class _Median(_Figures):
    def finalize(self) -> float | None:
        """Return the median; NULL without a number."""
        return statistics.median(self.figures) if self.figures else None
