"""Entries of the lab book: made with the verdicts of runs, declared plans and figures, and checked against them later.

Invariant: what an entry keeps is copied into it as it was then; checking never changes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.errors import CerankError, UsageError
from cerank.files.hashing import sha256_file
from cerank.runs import comparison_plans, lab_book, run_store
from cerank.runs.comparison_plans import DeclaredPlan
from cerank.runs.lab_book import LogEntry, Pin, WrittenEntry
from cerank.runs.layout import RunFolder, runs_folder
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

MAIN_STUDY = "main"
_LONGEST_TITLE = 80


class NewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants to write into the book."""

    text: str = ""  # Markdown
    title: str = ""  # "" takes the first line of the text, else what is kept
    study: str = MAIN_STUDY
    runs: tuple[str, ...] = ()  # by short name, label or id; their verdicts are kept
    plans: tuple[str, ...] = ()  # declared plans, by title or hash
    figures: tuple[Path, ...] = ()


def add(lab: Path, new: NewEntry, now: datetime) -> WrittenEntry:
    """Write an entry into the lab's book.

    Raises:
        UsageError: there is nothing to write; a run, plan or figure is not there; a text holds an access token.
        MissingError: a run has no verdict yet.
        RunFailedError: the lab cannot be written to.
    """
    study = lab_book.check_study(new.study)
    text = new.text.strip()
    if not text and not (new.runs or new.plans or new.figures):
        hint = "give the text, --file, --run, --plan or --figure"
        raise UsageError("there is nothing to write", hint=hint, code="empty-entry")
    run_store.check_no_token(f"{new.title}\n{text}", "the entry")
    pins = [keep_run(run_store.find(lab, name)) for name in new.runs]
    pins += [_keep_plan(comparison_plans.find(lab, name)) for name in new.plans]
    pins += [lab_book.keep_figure(lab, path) for path in new.figures]
    title = new.title.strip() or _title(text, pins)
    time = now.astimezone(UTC).isoformat(timespec="milliseconds")  # several may be written within a second
    entry = LogEntry(title=title[:_LONGEST_TITLE], study=study, time=time, pins=tuple(pins))
    return lab_book.add(lab, entry, text + "\n" if text else "")


def _title(text: str, pins: Sequence[Pin]) -> str:
    first = next((line.lstrip("#> ").strip() for line in text.splitlines() if line.strip("#> ")), "")
    return first or ", ".join(pin.short_name or pin.name for pin in pins)


def keep_run(folder: RunFolder) -> Pin:
    """Return a run's verdicts with the hash of what they rest on.

    Raises:
        MissingError: it has none yet.
        DamagedError: its plan, or what was measured, cannot be read.
    """
    from cerank.app.comparison import run_answer

    return Pin(
        kind="run",
        name=folder.name,
        short_name=run_store.short_name(folder),
        sha256=results_sha256(folder),
        says=run_answer.of_run(folder).paragraphs,
    )


def results_sha256(folder: RunFolder) -> str:
    """Return a hash over a run's measures and judgments, file by file; "" where there are none."""
    files = sorted((*(folder.path / "measures").rglob("*.jsonl"), *(folder.path / "qrels").glob("*")))
    lines = [f"{path.relative_to(folder.path).as_posix()} {sha256_file(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def _keep_plan(declared: DeclaredPlan) -> Pin:
    plan = declared.plan
    says = [f"Declared {declared.declared}", f"Measures: {', '.join(plan.measures)}"]
    says += [f"Systems: {', '.join(plan.systems)}"] if plan.systems else []
    says += [f"Judgments: {plan.dataset or plan.qrels}"] if plan.dataset or plan.qrels else []
    sizes = {"Margins": plan.margins, "Worth it from": plan.worth, "Harm margins": plan.harm}
    says += [f"{word}: {_sizes(values)}" for word, values in sizes.items() if values]
    says += [f"Because: {plan.because}"] if plan.because else []
    return Pin(kind="plan", name=plan.title, sha256=declared.sha256, says=tuple(says))


def _sizes(values: dict[str, float | str]) -> str:
    return ", ".join(f"{name} {size}" for name, size in values.items())


def status_of(lab: Path, pin: Pin) -> str:
    """Return whether the lab still holds what an entry keeps: "as pinned", "changed since", "gone"."""
    if pin.kind == "figure":
        if lab_book.load_figure(lab, pin) is not None:
            return "as pinned"
        return "changed since" if lab_book.figure_file(lab, pin).exists() else "gone"
    if pin.kind == "plan":
        plans, _ = comparison_plans.load_all(lab)
        return "as pinned" if any(plan.sha256 == pin.sha256 for plan in plans) else "gone"
    folder = RunFolder(runs_folder(lab) / pin.name)
    try:
        now = results_sha256(folder)
    except (CerankError, OSError):
        now = ""
    if not now:
        return "gone"
    return "as pinned" if now == pin.sha256 else "changed since"


def list_table(lab: Path, study: str = "") -> Table:
    """Return the entries of a study, or of all, the newest last."""
    entries, problems = lab_book.load_all(lab, study)
    columns = (
        Column("time", "time", "name", priority=2),
        Column("study", "study", priority=1),
        Column("title", "title"),
        Column("pins", "pinned", priority=3),
        Column("changed", "changed since", priority=4),
        Column("id", "id", "name", priority=5),
    )
    rows = tuple(
        (
            *(written.entry.time, written.entry.study, written.entry.title, pins_in_words(written.entry)),
            *("yes" if written.is_changed else "", written.id),
        )
        for written in entries
    )
    empty = '`cerank log add "what you found"` writes the first entry'
    empty = f"Study {study} has no entries; {empty}." if study else f"The lab book is empty; {empty}."
    return Table("log", columns, rows, notes=problems, empty=empty)


def pins_in_words(entry: LogEntry) -> str:
    """Return how much an entry keeps: "1 run, 2 figures"."""
    kinds = [pin.kind for pin in entry.pins]
    return ", ".join(counted(kinds.count(kind), kind) for kind in ("run", "plan", "figure") if kind in kinds)


def body_of(written: WrittenEntry) -> str:
    """Return the text of an entry without the heading that says its title again."""
    first, _, rest = written.text.partition("\n")
    return (
        rest.lstrip("\n")
        if first.startswith("#") and first.lstrip("# ").strip() == written.entry.title
        else written.text
    )


def as_markdown(lab: Path, written: WrittenEntry) -> str:
    """Return an entry as Markdown, with what it keeps below the text, each with its hash and whether it still holds."""
    entry = written.entry
    lines = [f"# {entry.title}", "", f"{entry.time}, study {entry.study}", ""]
    if written.is_changed:
        lines += ["**This entry was changed by hand after it was written.**", ""]
    text = body_of(written).rstrip()
    lines += [text, ""] if text else []
    for pin in entry.pins:
        name = f"{pin.short_name} ({pin.name})" if pin.short_name else pin.name
        lines += [f"## {pin.kind.capitalize()} {name}", ""]
        for words in pin.says:
            lines += [words, ""]
        if pin.kind == "figure":
            lines += [f"File: {lab_book.figure_file(lab, pin)}", ""]
        lines += [f"SHA-256 {pin.sha256}, {status_of(lab, pin)}", ""]
    return "\n".join(lines)


# --- a new entry as text in an editor

_FIELDS = ("study", "runs", "plans", "figures")


def as_form(study: str, runs: Sequence[str]) -> str:
    """Return the form of a new entry: lines for what it keeps, then its title and text."""
    return f"study: {study}\nruns: {', '.join(runs)}\nplans:\nfigures:\n\n# Title\n\nWhat you plan, decide or found.\n"


def from_form(text: str) -> NewEntry:
    """Return the entry that a form was filled in for; several names in a line are separated by commas.

    Raises:
        UsageError: a line above the first blank one is none of the form's.
    """
    head, _, body = text.partition("\n\n")
    fields: dict[str, str] = {}
    for number, line in enumerate(head.splitlines(), 1):
        name, colon, value = line.partition(":")
        if not colon or name.strip().lower() not in _FIELDS:
            hint = f"{', '.join(f'{field}:' for field in _FIELDS)}, then a blank line and the text"
            raise UsageError(
                f"not a line of the form: {line.strip()}", where=f"line {number}", hint=hint, code="bad-form"
            )
        fields[name.strip().lower()] = value.strip()
    values = {name: tuple(part.strip() for part in fields.get(name, "").split(",") if part.strip()) for name in _FIELDS}
    return NewEntry(
        text=body,
        study=fields.get("study") or MAIN_STUDY,
        runs=values["runs"],
        plans=values["plans"],
        figures=tuple(map(Path, values["figures"])),
    )
