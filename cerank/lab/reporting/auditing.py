"""What each run recorded of itself: how far its stages moved, what its groups lacked, what was shared, its inputs.

Invariant: nothing is worked out again; a fact stands as the run wrote it when it happened.
"""

from __future__ import annotations

import re
import shlex

from cerank import recipes
from cerank.domain.readings import Event
from cerank.lab.comparisons import RunTarget
from cerank.lab.reporting.declaring import Declared
from cerank.lab.reporting.records import RunFacts, StageFacts
from cerank.store import journal, records
from cerank.store.layout import RunFolder, plain

_PASSING = {"started", "checkpoint saved", "finished", "paused", "stage finished", "groups counted"}


def audited(found: Declared) -> tuple[RunFacts, ...]:
    """The facts of every run behind the tables, each run once.

    Raises:
        DamagedError: a journal cannot be read.
    """
    out: dict[str, RunFacts] = {}
    for row in found.rows:
        for member in row.members:
            if member.folder.name not in out:
                out[member.folder.name] = _facts(member, row.model.label)
    return tuple(out.values())


def recipe_file(run: str) -> str:
    """Where in a report's folder a run's whole recipe stands."""
    return f"recipes/{plain(run, 100)}.toml"


def _facts(member: RunTarget, model: str) -> RunFacts:
    folder, plan = member.folder, member.plan
    events = journal.read(folder.events, Event)
    return RunFacts(
        run=folder.name,
        label=member.label,
        model=model,
        seed=plan.recipe.seed,
        state=_state(folder),
        fingerprint=plan.fingerprint,
        command=_command(folder.name, plan.device, plan.threads),
        recipe_toml=recipes.render(plan.recipe),
        inputs=tuple((entry.role, entry.name, entry.sha256) for entry in plan.inputs),
        versions=_versions(folder, plan.versions),
        stages=tuple(_stage(name, events) for name in plan.recipe.chain),
        events=tuple((event.kind, event.text) for event in events if event.kind not in _PASSING),
    )


def _state(folder: RunFolder) -> str:
    if folder.done.exists():
        return "finished"
    return "failed" if folder.failure.exists() else "not finished"


def _command(run: str, device: str, threads: int) -> str:
    """The command that does the run again from the report's folder."""
    words = ["cerank", "run", "--recipe", recipe_file(run), "--device", device, "--threads", str(threads)]
    return shlex.join(words)


def _versions(folder: RunFolder, planned: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Of the last attempt, else of the plan."""
    numbers = folder.attempt_numbers()
    attempt = records.load_if_there(folder.attempt(numbers[-1]), records.Attempt) if numbers else None
    return tuple((attempt.versions if attempt else planned).items())


def _stage(name: str, events: list[Event]) -> StageFacts:
    """A stage's facts, from the last event of each kind that names it."""
    said = {event.kind: event.text.removeprefix(f"{name}: ") for event in events if event.text.startswith(f"{name}: ")}
    facts = []
    if text := said.get("groups counted"):
        facts.append(("groups", text))
    if text := said.get("stage finished"):
        facts += _finished(text)
    return StageFacts(stage=name, facts=tuple(facts))


def _finished(text: str) -> list[tuple[str, str]]:
    """The parts of what a stage says at its end: what it keeps, its best validation, how far its weights moved."""
    parts = [part.strip() for part in text.split(";")]
    names = ((r"keeps", "keeps"), (r"best", "validation"), (r"the weights moved", "weights moved"))
    out = []
    for part in parts:
        key = next((name for start, name in names if re.match(start, part)), "also")
        out.append((key, part))
    return out
