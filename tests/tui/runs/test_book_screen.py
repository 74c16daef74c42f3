"""The lab book on the screen: entries, the text of one, a new one from the editor, export."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from textual.app import App

from cerank.app.lab_book import book_entries
from cerank.app.lab_book.book_entries import NewEntry
from cerank.runs import lab_book
from cerank.tui.app import CerankApp
from cerank.tui.runs.book_screen import BookScreen
from tests.tui.conftest import press, settle, text_of
from tests.tui.labs import LabFolder

NOW = datetime(2026, 11, 28, 20, 15, tzinfo=UTC)


async def test_entries_are_read_by_study_and_exported_as_a_page(
    folder: LabFolder, app: CerankApp, tmp_path: Path
) -> None:
    for title, study in (("First finding", "pilot"), ("Second finding", "main")):
        text = f"# {title}\n\n**{title.lower()}**"
        book_entries.add(folder.path, NewEntry(text=text, study=study), NOW)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "B")
        assert isinstance(app.screen, BookScreen)
        assert "second finding" in text_of(app)
        await press(pilot, "down")
        assert "first finding" in text_of(app)
        await press(pilot, "s", "s")
        assert "Second finding" not in text_of(app)
        await press(pilot, "e")
    page = next(tmp_path.glob("cerank-log-*.html")).read_text()
    assert "First finding" in page
    assert "Second finding" not in page


async def test_a_new_entry_comes_from_the_editor_and_a_mistake_in_it_is_named(
    folder: LabFolder, app: CerankApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i "s/^runs:.*/runs: nobody/; s/# Title/# Found/" "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setattr(App, "suspend", lambda _: contextlib.nullcontext())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "B")
        assert app.screen.has_class("-empty")
        await press(pilot, "n")
        assert "nobody" in text_of(app)
        editor.write_text('#!/bin/sh\nsed -i "s/^runs:.*/runs:/" "$1"\n')
        await press(pilot, "e")
        assert "Found" in text_of(app)
    assert [written.entry.title for written in lab_book.load_all(folder.path)[0]] == ["Found"]
