from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.runs import queue, run_store
from cerank.runs.layout import RunFolder
from tests.scheduler.conftest import TOML, plan_for


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RunFolder]]:
    """Three runs of a lab whose queue stands still, the first two queued."""
    monkeypatch.setenv("CERANK_LAB", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = [
        run_store.create(tmp_path, plan_for(label=word), TOML, datetime.now(UTC)) for word in ("one", "two", "three")
    ]
    for folder in made[:2]:
        queue.add(folder, datetime.now(UTC))
    return made


def cerank(*words: str) -> None:
    app(list(words), standalone_mode=False)


def test_the_queue_is_a_table_in_order_and_the_devices_are_told_beside(
    folders: list[RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    cerank("queue", "--json")
    shown = capsys.readouterr()
    rows = json.loads(shown.out)
    assert [(row["place"], row["run"], row["state"], row["device"], row["label"]) for row in rows] == [
        (1, folders[0].name, "queued", "cpu", "one"),
        (2, folders[1].name, "queued", "cpu", "two"),
    ]
    assert "cpu: free" in shown.err
    assert "2 runs wait" in shown.err
    assert "`cerank queue start`" in shown.err


def test_a_run_is_moved_and_dropped_by_its_label(
    folders: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cerank("queue", "move", "two", "1")
    assert [entry.run for entry in queue.entries(tmp_path)] == [folders[1].name, folders[0].name]
    assert "at place 1 of 2" in capsys.readouterr().err
    cerank("queue", "drop", "two")
    assert [entry.run for entry in queue.entries(tmp_path)] == [folders[0].name]
    for words in (("drop", "two"), ("move", "three", "1")):
        with pytest.raises(UsageError) as caught:
            cerank("queue", *words)
        assert caught.value.code == "not-queued"


def test_options_before_the_command_are_refused_and_not_ignored(folders: list[RunFolder]) -> None:
    with pytest.raises(UsageError):
        cerank("queue", "--lab", "elsewhere", "drop", "one")


def test_nothing_is_started_for_an_empty_queue(
    folders: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.remove(tmp_path, [folder.name for folder in folders])
    cerank("queue", "start")
    assert "No run is waiting" in capsys.readouterr().err
    assert not (tmp_path / "queue" / "log.txt").exists()


def test_ps_and_queue_show_the_same_state(folders: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    cerank("ps", "--json")
    assert [row["state"] for row in json.loads(capsys.readouterr().out)].count("queued") == 2
