"""Entries of the lab book: what they keep, what is noticed when it changes, and the page of a study."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.app.lab_book import book_entries, book_page
from cerank.app.lab_book.book_entries import NewEntry
from cerank.errors import CerankError, MissingError, RunFailedError, UsageError
from cerank.files import disk
from cerank.runs import comparison_plans, lab_book
from cerank.runs.comparison_plans import ComparisonPlan
from tests.refusals import refused
from tests.tui.labs import LabFolder

NOW = datetime(2026, 11, 28, 20, 15, tzinfo=UTC)
FIGURE = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabFolder:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    return LabFolder(tmp_path / "lab")


def test_an_entry_is_a_markdown_file_that_is_read_back_as_it_was_written(lab: LabFolder) -> None:
    text = "# The plan -->\n\nSome *words*, <b>HTML</b> and --> an end of a comment."
    written = book_entries.add(lab.path, NewEntry(text=text, study="Pilot study"), NOW)
    path = next((lab.path / "log").glob("*/*.md"))
    assert path.stem == written.id
    assert path.read_text().partition("\n")[0].count("-->") == 1
    assert path.read_text().endswith(text + "\n")
    (read,), problems = lab_book.load_all(lab.path)
    assert (read, problems) == (written, ())
    assert (read.entry.title, read.entry.study) == ("The plan -->", "Pilot study")


def test_an_entry_keeps_verdicts_plans_and_figures_and_notices_what_changes(lab: LabFolder, tmp_path: Path) -> None:
    run = lab.finished(lab.started(lab.run("first try"), 5))
    plan = comparison_plans.with_hash(ComparisonPlan(title="Is it better?", measures=("nDCG@10",)), "2026-11-01", "ab")
    comparison_plans.save(lab.path, plan)
    (tmp_path / "loss.svg").write_bytes(FIGURE)
    new = NewEntry(runs=("first try",), plans=("Is it better?",), figures=(tmp_path / "loss.svg",))
    entry = book_entries.add(lab.path, new, NOW).entry
    assert [pin.kind for pin in entry.pins] == ["run", "plan", "figure"]
    assert "distill" in " ".join(entry.pins[0].says)
    assert [book_entries.status_of(lab.path, pin) for pin in entry.pins] == ["as pinned"] * 3
    measures = run.measures("distill", "pydocs/test", "bm25")
    measures.write_bytes(measures.read_bytes().replace(b"0.641", b"0.999"))
    next((lab.path / "declared-plans").glob("*.json")).unlink()
    lab_book.figure_file(lab.path, entry.pins[2]).write_bytes(b"<svg/>")
    statuses = [book_entries.status_of(lab.path, pin) for pin in entry.pins]
    assert statuses == ["changed since", "gone", "changed since"]
    shown = book_page.page(lab.path, "", NOW)
    assert statuses[0] in shown
    assert "data:image" not in shown


def test_an_entry_that_was_edited_by_hand_is_shown_as_changed(lab: LabFolder) -> None:
    book_entries.add(lab.path, NewEntry(text="It gains 1 point."), NOW)
    path = next((lab.path / "log").glob("*/*.md"))
    path.write_text(path.read_text().replace("1 point", "9 points"))
    (read,), _ = lab_book.load_all(lab.path)
    assert read.is_changed
    assert "9 points" in book_entries.as_markdown(lab.path, read)


def test_two_equal_entries_of_one_second_are_both_kept(lab: LabFolder) -> None:
    ids = {book_entries.add(lab.path, NewEntry(text="again"), NOW).id for _ in range(2)}
    assert {written.id for written in lab_book.load_all(lab.path)[0]} == ids
    assert len(ids) == 2


def test_a_file_that_is_no_entry_hides_no_other(lab: LabFolder) -> None:
    book_entries.add(lab.path, NewEntry(text="whole"), NOW)
    for name, content in {"cut.md": b"<!-- cerank {", "by-hand.md": b"# mine\n", "binary.md": b"\xff\x00"}.items():
        (lab.path / "log" / "main" / name).write_bytes(content)
    entries, problems = lab_book.load_all(lab.path)
    assert [written.entry.title for written in entries] == ["whole"]
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NewEntry(text="  \n"), "empty-entry"),
        (NewEntry(text="x", study="a/b"), "bad-study"),
        (NewEntry(text="x", study=" "), "bad-study"),
        (NewEntry(text="x", runs=("nobody",)), "run-not-found"),
        (NewEntry(text="x", figures=(Path("no-such.svg"),)), "file-access"),
        (NewEntry(text="x", figures=(Path("table.xlsx"),)), "bad-figure"),
        (NewEntry(text="the token is hf_" + "a" * 34), "access-token"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(lab: LabFolder, new: NewEntry, code: str) -> None:
    with refused(UsageError, code):
        book_entries.add(lab.path, new, NOW)
    assert not list(lab.path.glob("log/*/*.md"))


def test_a_run_without_a_verdict_cannot_be_kept(lab: LabFolder) -> None:
    lab.started(lab.run("early"), 5)
    with pytest.raises(CerankError):
        book_entries.add(lab.path, NewEntry(text="x", runs=("early",)), NOW)


def test_a_write_that_fails_leaves_no_part_of_an_entry(lab: LabFolder) -> None:
    def full(operation: str, path: Path) -> None:
        if operation in {"rename", "replace"}:
            raise RunFailedError("the disk is full", where=str(path))

    with disk.observe(full), pytest.raises(RunFailedError):
        book_entries.add(lab.path, NewEntry(text="x"), NOW)
    assert lab_book.load_all(lab.path) == ((), ())


def test_the_page_of_a_study_runs_nothing_and_needs_no_other_file(lab: LabFolder, tmp_path: Path) -> None:
    (tmp_path / "loss.svg").write_bytes(FIGURE)
    text = "<script>alert(1)</script>\n\n[link](javascript:alert(1))\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    book_entries.add(lab.path, NewEntry(text=text, title="<i>one</i>", figures=(tmp_path / "loss.svg",)), NOW)
    book_entries.add(lab.path, NewEntry(text="elsewhere", study="other"), NOW)
    page = book_page.page(lab.path, "main", NOW)
    assert "<script" not in page
    assert "<i>" not in page
    assert 'href="javascript' not in page
    assert "default-src 'none'" in page
    assert "<td>1</td>" in page
    assert "data:image/svg+xml;base64," in page
    assert "elsewhere" not in page
    assert "elsewhere" in book_page.page(lab.path, "", NOW)
    with refused(MissingError, "empty-log", "other"):
        book_page.page(lab.path, "third", NOW)


def test_a_form_becomes_an_entry_and_a_strange_line_in_it_is_named(lab: LabFolder) -> None:
    form = book_entries.as_form("pilot", ["brisk-otter", "quiet-heron"])
    new = book_entries.from_form(form.replace("figures:", "figures: a.svg, b.png"))
    assert (new.study, new.runs, new.plans) == ("pilot", ("brisk-otter", "quiet-heron"), ())
    assert new.figures == (Path("a.svg"), Path("b.png"))
    with refused(UsageError, "bad-form", 2):
        book_entries.from_form("study: x\nrum: y\n\ntext")


def test_an_entry_is_found_by_title_id_or_a_part_of_it(lab: LabFolder) -> None:
    first = book_entries.add(lab.path, NewEntry(text="first words"), NOW)
    book_entries.add(lab.path, NewEntry(text="other words"), NOW)
    assert lab_book.find(lab.path, "first words") == first
    assert lab_book.find(lab.path, first.id) == first
    with refused(UsageError, "entry-ambiguous", 2):
        lab_book.find(lab.path, "words")
    with refused(UsageError, "entry-not-found", "third"):
        lab_book.find(lab.path, "third")
