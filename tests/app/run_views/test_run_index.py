"""The index of the runs: what lists read in place of folders, and what can be asked in SQL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.app.run_views import query_index, run_index, run_monitor
from cerank.app.run_views.run_index import RunIndex, StoredRun
from cerank.app.run_views.run_monitor import LabMonitor
from cerank.errors import MissingError, RunFailedError, UsageError
from cerank.runs import checksums, run_store, user_labels
from cerank.runs.layout import RunFolder
from cerank.runs.user_labels import UserLabels
from tests.refusals import refused
from tests.tui.labs import LabFolder

LONG_AGO = 10**18  # ns; a folder that changed a moment ago is not indexed


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabFolder:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    (tmp_path / "runs").mkdir()
    return LabFolder(tmp_path)


def settled(folder: RunFolder) -> RunFolder:
    """The run as it would be if it had ended long ago."""
    os.utime(folder.path, ns=(LONG_AGO, LONG_AGO))
    return folder


def monitor(lab: LabFolder) -> LabMonitor:
    return LabMonitor(lab.path, None, lab.path / "cache")


def indexed(lab: LabFolder) -> LabMonitor:
    """A monitor that has put the lab into the index."""
    watch = monitor(lab)
    watch.poll()
    watch.save_index()
    return watch


def test_a_list_from_the_index_is_the_list_from_the_folders_and_reads_no_plan(
    lab: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(lab.finished(lab.started(lab.run("one", seed=7), 20)))
    settled(lab.failed(lab.started(lab.run("two"), 5)))
    from_folders = indexed(lab).poll()
    monkeypatch.setattr(run_store, "load_plan", lambda folder: pytest.fail(f"{folder.name} was read"))
    from_index = monitor(lab).poll()
    assert from_index == from_folders
    assert [entry.seed for entry in from_index] == [7, 42]


def test_a_run_that_changed_since_is_read_from_its_folder(lab: LabFolder) -> None:
    folder = settled(lab.finished(lab.started(lab.run("one"), 5)))
    indexed(lab)
    user_labels.save(folder, UserLabels(label="another"))
    assert [entry.label for entry in monitor(lab).poll()] == ["another"]


@pytest.fixture
def sealed(lab: LabFolder, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checksummed rankings of three runs that ended long ago, and are in the index."""
    monkeypatch.setattr(run_monitor, "READ_IN_TURN", 1)
    files = []
    for number in range(3):
        folder = lab.finished(lab.started(lab.run(f"run {number}"), 5))
        (file,) = folder.path.glob("rankings/distill/*.run.gz")
        checksums.record(folder, [file])
        os.utime(file.parent, ns=(LONG_AGO, LONG_AGO))
        settled(folder)
        files.append(file)
    indexed(lab)
    return files


def states(lab: LabFolder, turn: int = 0) -> list[str]:
    """The states of a list that is printed once, when it is the turn of one of the runs to be read in full."""
    now = datetime.fromtimestamp(run_monitor.TURN_SECONDS * (turn + 0.5), UTC)
    return [entry.state for entry in monitor(lab).poll(now=now)]


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_list_that_is_printed_sees_a_file_that_is_gone_or_was_replaced(
    lab: LabFolder, sealed: list[Path], turn: int
) -> None:
    assert states(lab, turn) == ["finished"] * 3
    sealed[0].unlink()
    other = sealed[1].with_name("other")
    other.write_bytes(b"short")
    other.rename(sealed[1])
    assert states(lab, turn) == ["damaged", "damaged", "finished"]


def test_a_file_that_was_cut_in_place_is_seen_when_it_is_the_turn_of_its_run(
    lab: LabFolder, sealed: list[Path]
) -> None:
    with sealed[1].open("r+b") as file:
        file.truncate(3)
    assert sorted(states(lab, turn).count("damaged") for turn in range(3)) == [0, 0, 1]


def test_a_folder_that_changed_a_moment_ago_is_not_indexed(lab: LabFolder) -> None:
    folder = lab.finished(lab.started(lab.run("one"), 5))
    indexed(lab)
    marks = {folder.name: folder.path.stat().st_mtime_ns}
    assert RunIndex(lab.path, lab.path / "cache").load(marks) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"no database at all", b"SQLite format 3\0" + b"\xff" * 4000],
    ids=["empty", "another file", "overwritten"],
)
def test_a_damaged_index_is_made_anew(lab: LabFolder, content: bytes) -> None:
    settled(lab.finished(lab.started(lab.run("one"), 5)))
    indexed(lab)
    RunIndex(lab.path, lab.path / "cache").path.write_bytes(content)
    assert [entry.state for entry in indexed(lab).poll()] == ["finished"]
    assert query_index.query(lab.lab, "SELECT state FROM runs").rows == (("finished",),)


@pytest.mark.parametrize("table", ["detailed_runs", "indexed_runs", "measures"])
def test_an_index_without_one_of_its_tables_is_made_anew(lab: LabFolder, table: str) -> None:
    settled(lab.finished(lab.started(lab.run("one"), 5)))
    statement = "SELECT count(*) FROM runs"
    query_index.query(lab.lab, statement)
    path = RunIndex(lab.path, lab.path / "cache").path
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DROP TABLE {table}")
    if table == "measures":
        lab.finished(lab.started(lab.run("two"), 5))
        with refused(RunFailedError, "failed", path.name):
            query_index.query(lab.lab, statement)
    assert query_index.query(lab.lab, statement).rows == ((2 if table == "measures" else 1,),)


def test_an_index_that_another_process_writes_is_kept_and_nothing_counts_as_saved(
    lab: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settled(lab.finished(lab.started(lab.run("one"), 5)))
    indexed(lab)
    index = RunIndex(lab.path, lab.path / "cache")
    runs = index.load({folder.name: LONG_AGO})
    stored = [StoredRun(name=folder.name, mark=LONG_AGO, run=run) for run in runs.values()]
    assert len(stored) == 1
    monkeypatch.setattr(run_index, "PATIENCE", 0.0)
    with contextlib.closing(sqlite3.connect(index.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert index.save(stored, [folder.name]) == set()
        assert index.detailed() == {}
        assert index.path.exists()
    assert index.save(stored, [folder.name]) == {folder.name}


def test_an_index_of_another_release_is_made_anew(lab: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settled(lab.finished(lab.started(lab.run("one"), 5)))
    marks = {folder.name: folder.path.stat().st_mtime_ns}
    indexed(lab)
    assert RunIndex(lab.path, lab.path / "cache").load(marks)
    monkeypatch.setattr(run_index.cerank, "__version__", "0.0.1")
    assert RunIndex(lab.path, lab.path / "cache").load(marks) == {}


def test_a_cache_that_cannot_be_written_to_stops_no_list(lab: LabFolder) -> None:
    settled(lab.finished(lab.started(lab.run("one"), 5)))
    (lab.path / "cache").write_text("a file, not a folder")
    assert [entry.state for entry in indexed(lab).poll()] == ["finished"]


# --- asking


def test_the_tables_hold_states_measures_validations_and_settings(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run("one", seed=1), 20, stage=1), after=0.5)
    lab.finished(lab.started(lab.run("two", seed=2), 20, stage=1), after=0.7)
    lab.failed(lab.started(lab.run("three", seed=3), 5))

    def ask(statement: str) -> tuple[tuple[object, ...], ...]:
        return query_index.query(lab.lab, statement).rows

    assert ask("SELECT label, state, seed, stages FROM runs ORDER BY seed") == (
        ("one", "finished", 1, "contrastive > distill"),
        ("two", "finished", 2, "contrastive > distill"),
        ("three", "failed", 3, "contrastive > distill"),
    )
    means = (
        "SELECT count(*), avg(mean), stdev(mean), median(mean) FROM measures WHERE measure = 'nDCG@10' AND system = ?"
    )
    (row,) = ask(means.replace("?", "'distill'"))
    assert row == pytest.approx((2, 0.6, 0.02**0.5, 0.6))
    last = "SELECT value FROM validations JOIN runs USING (run) WHERE seed = 1 AND stage = 'distill' AND step = 20"
    assert ask(f"{last} AND measure = 'nDCG@10'") == ((0.32,),)
    assert ask("SELECT DISTINCT value FROM settings WHERE key = 'stages.distill.loss'") == (("ranknet",),)


def test_what_changed_is_seen_by_the_next_query_and_deleted_runs_are_gone(lab: LabFolder) -> None:
    first, second = lab.started(lab.run("one"), 5), lab.started(lab.run("two"), 5)
    states = "SELECT label, state FROM runs ORDER BY label"
    assert query_index.query(lab.lab, states).rows == (("one", "lost"), ("two", "lost"))
    lab.finished(first)
    run_store.remove(second)
    assert query_index.query(lab.lab, states).rows == (("one", "finished"),)
    assert query_index.query(lab.lab, "SELECT count(DISTINCT run) FROM settings").rows == ((1,),)


def test_a_file_that_was_changed_in_place_is_seen_by_the_next_query(lab: LabFolder) -> None:
    run = settled(lab.finished(lab.started(lab.run("one"), 5, stage=1)))
    statement = "SELECT count(*) FROM measures"
    ((before,),) = query_index.query(lab.lab, statement).rows
    path = next(path for path in run.path.glob("measures/*/*") if path.is_file())
    content, folder_times = path.read_bytes(), run.path.stat().st_mtime_ns
    path.write_bytes(content.replace(b".", b";", 1))  # damaged, by the hash that was kept of it
    assert run.path.stat().st_mtime_ns == folder_times
    ((damaged,),) = query_index.query(lab.lab, statement).rows
    assert 0 < damaged < before
    path.write_bytes(content)
    assert query_index.query(lab.lab, statement).rows == ((before,),)
    plan = run.plan.read_bytes()
    run.plan.write_bytes(plan[:20])
    assert query_index.query(lab.lab, "SELECT state FROM runs").rows == (("damaged",),)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM runs",
        "DROP TABLE runs",
        "ATTACH DATABASE 'other.sqlite' AS other",
        "PRAGMA journal_mode = WAL",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "SELECT",
        "VACUUM INTO 'copy.sqlite'",
    ],
)
def test_a_statement_that_does_more_than_read_is_refused(
    lab: LabFolder, statement: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    lab.finished(lab.started(lab.run("one"), 5))
    with refused(UsageError, "bad-query"):
        query_index.query(lab.lab, statement)
    assert query_index.query(lab.lab, "SELECT count(*) FROM runs").rows == ((1,),)
    assert not list(tmp_path.glob("*.sqlite"))


def test_an_unknown_table_or_column_is_named_with_the_nearest(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run("one"), 5))
    with refused(UsageError, "bad-query", "rans", "runs"):
        query_index.query(lab.lab, "SELECT * FROM rans")
    with refused(UsageError, "bad-query", "stat", "state"):
        query_index.query(lab.lab, "SELECT stat FROM runs")


def test_an_empty_lab_has_nothing_to_ask(lab: LabFolder) -> None:
    with refused(MissingError, "no-runs", lab.path):
        query_index.query(lab.lab, "SELECT * FROM runs")


def test_every_table_is_listed_with_its_columns_as_they_are_in_the_file(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run("one"), 5))
    query_index.query(lab.lab, "SELECT 1")
    listed = {(row[0], row[1]) for row in query_index.tables().rows}
    with sqlite3.connect(RunIndex(lab.path, lab.path / "cache").path) as connection:
        there = {
            (table, row[1])
            for table in ("runs", "measures", "validations", "settings")
            for row in connection.execute(f"PRAGMA table_info({table})")
        }
    assert listed == there
