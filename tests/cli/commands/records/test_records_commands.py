"""`cerank query` and `cerank log` as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cerank.cli.typer_app import app
from cerank.errors import UsageError
from tests.refusals import refused
from tests.tui.labs import LabFolder


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabFolder:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setenv("CERANK_LAB", str(tmp_path / "lab"))
    monkeypatch.setenv("CERANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    return LabFolder(tmp_path / "lab")


def said(*words: str, given: str | None = None) -> str:
    return CliRunner().invoke(app, [*words], input=given, catch_exceptions=False).stdout


def test_rows_come_as_csv_json_and_from_standard_input(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run("one, two"), 5))
    statement = "SELECT label, seed, seed FROM runs"
    assert said("query", statement, "--format", "csv").splitlines() == ['"label","seed","seed_2"', '"one, two",42,42']
    assert json.loads(said("query", "-", "--json", given=statement)) == [
        {"label": "one, two", "seed": 42, "seed_2": 42}
    ]
    assert "measures" in said("query", "--tables")


def test_a_query_without_a_statement_or_with_two_requests_is_refused(lab: LabFolder) -> None:
    for words in ([], ["SELECT 1", "--tables"]):
        with refused(UsageError, "bad-query"):
            said("query", *words)


def test_an_entry_is_written_listed_shown_and_exported(lab: LabFolder, tmp_path: Path) -> None:
    lab.finished(lab.started(lab.run("first"), 5))
    (tmp_path / "text.md").write_text("# Found\n\nIt **pays**.\n")
    name = said("log", "add", "--file", "text.md", "--run", "first", "--study", "pilot").strip()
    said("log", "add", "-", given="another")
    assert [row["title"] for row in json.loads(said("log", "list", "--json"))] == ["Found", "another"]
    assert [row["id"] for row in json.loads(said("log", "--study", "pilot", "--json"))] == [name]
    shown = said("log", "show", name)
    assert shown.count("Found") == 1
    assert "as pinned" in shown
    said("log", "export", "book.html", "--study", "pilot")
    assert "<strong>pays</strong>" in (tmp_path / "book.html").read_text()
    with refused(UsageError, "file-exists", "book.html"):
        said("log", "export", "book.html")
    said("log", "export", "book.html", "--replace")
    assert "another" in (tmp_path / "book.html").read_text()


def test_two_texts_and_a_missing_file_are_refused(lab: LabFolder) -> None:
    with refused(UsageError, "two-texts", "--file"):
        said("log", "add", "text", "--file", "text.md")
    with refused(UsageError, "usage", "text.md"):
        said("log", "add", "--file", "text.md")
    assert not (lab.path / "log").exists()
