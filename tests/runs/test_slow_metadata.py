"""A list of runs on a disk where each look at a file costs a round trip: few looks, and many of them at once."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cerank.app.run_views import run_monitor
from cerank.app.run_views.run_monitor import LabMonitor
from cerank.runs import checksums, overlapped_reads, run_store
from tests.tui.labs import LabFolder

RUNS = 12
MOST_EACH = 14  # looks at the files of one finished run, those at its rankings and measures aside


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabFolder]:
    made = LabFolder(tmp_path / "lab")
    for number in range(RUNS):
        made.finished(made.run(f"run {number}"))
    yield made
    made.close()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each function that looks at a disk was called."""
    counted: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            if not (args and isinstance(args[0], int)):  # a descriptor that is open costs no round trip
                counted[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    for name in ("stat", "lstat", "open", "scandir", "listdir"):
        count(os, name)
    count(io, "open")
    return counted


def test_listing_runs_looks_at_few_files_of_each(lab: LabFolder, looks: Counter[str]) -> None:
    sealed = [len(folder.checksums.read_bytes().splitlines()) for folder in run_store.folders(lab.path)]
    looks.clear()
    rows = run_store.list_runs(lab.path, datetime.now(UTC))
    assert [row.status.state for row in rows] == ["finished"] * RUNS
    each = (looks.total() - sum(sealed)) / RUNS  # a finished run's files are looked at once each, for their sizes
    assert looks.total() > RUNS
    assert each <= MOST_EACH, looks


def test_a_dashboard_that_saw_the_runs_before_looks_once_at_each(
    lab: LabFolder, tmp_path: Path, looks: Counter[str]
) -> None:
    for folder in run_store.folders(lab.path):
        os.utime(folder.path, (0, 0))  # what changed a moment ago is not put into the index
    first = LabMonitor(lab.path, None, tmp_path / "cache")
    first.poll()
    first.save_index()
    looks.clear()
    assert len(LabMonitor(lab.path, None, tmp_path / "cache").poll()) == RUNS
    assert looks["lstat"] <= RUNS, looks  # at when each folder changed
    assert looks.total() - looks["lstat"] <= RUNS + 10, looks  # the names that these runs lack, the queue, the index


def test_a_list_that_is_printed_looks_at_the_folders_of_most_runs_and_reads_few_in_full(
    lab: LabFolder, tmp_path: Path, looks: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_monitor, "READ_IN_TURN", 1)
    for folder in run_store.folders(lab.path):
        checksums.record(folder, [path for path in folder.path.glob("rankings/*/*") if path.is_file()])
        os.utime(folder.path, (time.time() - 5, time.time() - 5))
        for inside in folder.path.glob("rankings/*"):
            os.utime(inside, (0, 0))
    first = LabMonitor(lab.path, None, tmp_path / "cache")
    first.poll()
    first.save_index()
    looks.clear()
    rows = LabMonitor(lab.path, None, tmp_path / "cache").poll(now=datetime.now(UTC))
    assert [row.state for row in rows] == ["finished"] * RUNS
    assert looks["lstat"] >= 4 * (RUNS - 1)  # a run and the three folders inside it that hold rankings
    assert looks.total() - looks["lstat"] <= RUNS + 40, looks  # the short names, and one run in full


def test_many_folders_are_read_at_the_same_time_and_in_order() -> None:
    together = threading.Barrier(overlapped_reads.THREADS)  # breaks unless so many wait at once

    def read(number: int) -> int:
        together.wait(60)
        return number

    count = 2 * overlapped_reads.THREADS
    assert overlapped_reads.read_all(read, range(count)) == list(range(count))
    few = [threading.get_ident()] * 3
    assert overlapped_reads.read_all(lambda _: threading.get_ident(), range(3)) == few
