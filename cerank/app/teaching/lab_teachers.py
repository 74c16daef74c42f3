"""The teachers of a lab: declared by its runs, made, checked, and at work; for the dashboard.

Invariant: reads small files alone, and imports nothing that takes long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import CerankError
from cerank.files import json_records
from cerank.retrieval.teachers import Repairs
from cerank.text.safe_text import counted

IN_PROCESS = "in process"  # the place of a teacher that sends passages nowhere
CHECK = "check.json"  # beside a teacher's ranking: the newest result of `cerank teach check`
_ROOM = Path("teachers") / "rankings"  # in a lab


class KeptCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest check of a teacher found, as it is kept."""

    dataset: str
    queries: int
    measure: str
    verdict: str
    difference: float  # to the first stage
    warnings: tuple[str, ...] = ()
    time: str = ""  # UTC, ISO 8601


class _Tokens(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def both(self) -> int:
        return self.input_tokens + self.output_tokens


class _Settings(msgspec.Struct, frozen=True):
    server: str = ""


class _Decisive(msgspec.Struct, frozen=True):
    """What is read here of what decided a teacher's answers: the servers of an ensemble's members."""

    settings: _Settings = _Settings()
    members: tuple[_Decisive, ...] = ()


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """What is read here of a ranking's `teacher.json`."""

    name: str
    kind: str = ""
    model: str = ""
    place: str = ""
    decisive: _Decisive = _Decisive()
    datasets: tuple[str, ...] = ()
    queries: int = 0
    failed: dict[str, int] = {}
    calls: int = 0
    windows: int = 0
    unchanged_windows: int = 0
    usage: _Tokens = _Tokens()
    repairs: Repairs = Repairs()
    cost: float | None = None
    currency: str = ""
    created: str = ""


class LabTeacher(msgspec.Struct, frozen=True, kw_only=True):
    """One teacher as the dashboard shows it."""

    name: str
    kind: str
    model: str
    place: str  # the host that passages are sent to, or "in process"; that of an ensemble says nothing of its members
    places: tuple[str, ...] = ()  # of an ensemble: those of its members; of others: its own
    runs: tuple[str, ...] = ()  # that declare it
    datasets: tuple[str, ...] = ()  # whose queries it ranked
    queries: int = 0
    failed: dict[str, int] = {}
    calls: int = 0
    tokens: int = 0
    costs: dict[str, float] = {}  # currency -> price of the answers; empty without a price
    repaired: float | None = None  # share of its answers; None without any
    unchanged: float | None = None
    check: KeptCheck | None = None
    job: str = ""  # what a run has it do now
    done: float = 0.0  # share of that

    @property
    def state(self) -> str:
        """Return "at work", "made" or "declared"."""
        return "at work" if self.job else "made" if self.queries or self.failed else "declared"


def teachers_of(lab: Path, entries: Iterable[RunEntry]) -> tuple[LabTeacher, ...]:
    """Return the teachers that runs of a lab declare or that it has rankings of, those at work first, then by name."""
    entries = tuple(entries)
    declared: dict[tuple[str, str, str], list[RunEntry]] = {}
    kinds: dict[tuple[str, str, str], str] = {}
    members: dict[tuple[str, str, str], list[str]] = {}  # places of an ensemble's members
    for entry in entries:
        teachers = entry.plan.recipe.teachers if entry.plan is not None else {}
        for name, spec in teachers.items():
            key = (name, spec.model, _place(spec.server))
            specs = [teachers[member] for member in spec.members if member in teachers]
            members.setdefault(key, []).extend(_place(member.server) for member in specs)
            declared.setdefault(key, []).append(entry)
            kinds[key] = spec.kind
    made: dict[tuple[str, str, str], list[tuple[_Made, KeptCheck | None]]] = {}
    for facts, check in _made(lab):
        key = (facts.name, facts.model, facts.place)
        made.setdefault(key, []).append((facts, check))
        members.setdefault(key, []).extend(_place(member.settings.server) for member in facts.decisive.members)
    rows = []
    for key in dict.fromkeys((*declared, *made)):
        name, model, place = key
        folders = [facts for facts, _ in made.get(key, [])]  # one for each setting, documents and first stage
        checks = [check for _, check in made.get(key, []) if check is not None]
        windows = sum(facts.windows for facts in folders)
        costs: dict[str, float] = {}
        for facts in folders:
            if facts.cost is not None:
                costs[facts.currency] = costs.get(facts.currency, 0.0) + facts.cost
        failed: Counter[str] = Counter()
        for facts in folders:
            failed.update(facts.failed)
        runs = declared.get(key, [])
        kind = (folders[-1].kind if folders else "") or kinds.get(key, "")
        job, done = next((state for entry in runs if (state := _job(entry, name)) is not None), ("", 0.0))
        rows.append(
            LabTeacher(
                name=name,
                kind=kind,
                model=model,
                place=place,
                places=tuple(dict.fromkeys(members.get(key, []))) if kind == "ensemble" else (place,),
                runs=tuple(entry.short_name or entry.name for entry in runs),
                datasets=tuple(dict.fromkeys(dataset for facts in folders for dataset in facts.datasets)),
                queries=sum(facts.queries for facts in folders),
                failed=dict(failed),
                calls=sum(facts.calls for facts in folders),
                tokens=sum(facts.usage.both for facts in folders),
                costs=costs,
                repaired=sum(facts.repairs.repaired for facts in folders) / windows if windows else None,
                unchanged=sum(facts.unchanged_windows for facts in folders) / windows if windows else None,
                check=max(reversed(checks), key=lambda check: check.time, default=None),
                job=job,
                done=done,
            )
        )
    return tuple(sorted(rows, key=lambda row: (not row.job, row.name, row.model)))


def _place(server: str) -> str:
    return server or IN_PROCESS


def _made(lab: Path) -> list[tuple[_Made, KeptCheck | None]]:
    """Return the rankings of a lab's teachers with their checks, oldest first; unreadable ones are passed over."""
    folder = lab / _ROOM
    made = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            facts = json_records.load_if_there(path / "teacher.json", _Made)
            check = json_records.load_if_there(path / CHECK, KeptCheck)
        except CerankError:
            continue
        if facts is not None:
            made.append((facts, check))
    return sorted(made, key=lambda row: row[0].created)


def _job(entry: RunEntry, name: str) -> tuple[str, float] | None:
    """Return what a run has a teacher do at this moment, and the share of it that is done; None if it does not."""
    progress = entry.progress
    if not entry.is_live or progress is None or progress.phase != "teacher" or entry.plan is None:
        return None
    stage = dict(entry.plan.recipe.sources()).get(progress.detail.removesuffix(" in validation"))
    is_its = stage.asked_teacher == name if stage is not None else progress.detail.startswith(f"{name} on ")
    if not is_its:
        return None
    text = f"{entry.short_name or entry.name}: {progress.done:,} of {counted(progress.total, 'query')}"
    return text, progress.done / progress.total if progress.total else 0.0
