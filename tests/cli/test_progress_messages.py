"""Progress as lines: not more often than every so many seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.run_views.run_monitor import LabMonitor
from cerank.cli import progress_messages
from cerank.cli.progress_messages import ProgressMessages
from cerank.cli.tables import run_tables
from cerank.core.metrics import Progress
from cerank.files import json_records
from tests.tui.labs import LabFolder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its only entry."""
    now = [100.0]
    monkeypatch.setattr(progress_messages.time, "monotonic", lambda: now[0])
    return now


def test_a_message_is_printed_only_after_the_pause(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    messages = ProgressMessages(10.0)
    for second in (100, 109, 110, 111, 125):
        clock[0] = second
        messages.show(f"at {second}")
    assert capsys.readouterr().err.split() == ["at", "110", "at", "125"]
    assert messages.seconds == 25.0


def test_the_first_message_can_be_printed_at_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    messages = ProgressMessages(10.0, is_first_printed=True)
    messages.show("first")
    messages.show("second")
    assert capsys.readouterr().err == "first\n"


def test_bytes_are_shown_with_and_without_a_known_total(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    ProgressMessages(0.0).show_bytes("x.gz", 50_000_000, 200_000_000)
    ProgressMessages(0.0).show_bytes("x.gz", 50_000_000, 0)
    assert capsys.readouterr().err == "x.gz: 50 of 200 MB (25%)\nx.gz: 50 MB\n"


def test_a_run_with_less_than_half_a_second_to_go_has_no_time_left_in_the_list(tmp_path: Path) -> None:
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    folder = LabFolder(tmp_path / "lab")
    run = folder.running(folder.started(folder.run(), 5), done=8, total=8)
    for seconds, ending in ((42.0, "8/8, 0:42 left"), (0.2, "8/8")):
        progress = Progress("train", "distill", 8, 8, 412.0, seconds, time="2026-11-23T10:00:10+00:00", attempt=1)
        json_records.save(run.progress, progress)
        table = run_tables.run_table(LabMonitor(folder.path).poll(), folder.path, "table")
        assert str(table.rows[0][-1]).endswith(ending)
    folder.close()


@pytest.mark.parametrize(("tests", "expected"), [(["adi"], ""), (["adi", "med"], "adi, 1 of 2")])
def test_of_several_test_sets_the_list_names_that_of_the_figure(
    tmp_path: Path, tests: list[str], expected: str
) -> None:
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    folder = LabFolder(tmp_path / "lab")
    folder.finished(folder.started(folder.run("one", test=tests), 5))
    folder.run("two", test=tests)
    entries = LabMonitor(folder.path).poll()
    table = run_tables.run_table(entries, folder.path, "table")
    rows = [dict(zip((column.key for column in table.columns), row, strict=True)) for row in table.rows]
    assert [row.get("test", "") for row in rows] == [expected, ""]
    assert [row["score"] for row in rows] == [0.641, None]
    table = run_tables.run_table(entries, folder.path, "json")
    assert [row[-2:] for row in table.rows] == [(0.641, "adi"), (None, "")]
