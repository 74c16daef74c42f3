"""Plans declared before a comparison, in LAB/declared-plans: what will be compared, how, and when that was said.

Invariant: a plan's hash covers all that it says, its time and its judgments; one whose content does not give its hash
is refused. A declared plan is never replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from cerank.errors import UsageError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.files.hashing import sha256_json
from cerank.registry import nearest
from cerank.runs.layout import slug

PLAN_FILE_FORMAT = 1


class ComparisonPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What will be compared, and by which rules; the file that a user writes."""

    title: str
    measures: tuple[str, ...]
    because: str = ""  # why margins, gains and harm margins have their sizes
    systems: tuple[str, ...] = ()  # labels in the comparison, the baseline first; empty leaves them open
    dataset: str = ""  # whose judgments will be used
    qrels: str = ""  # a qrels file, in place of a dataset
    margins: dict[str, float | str] = {}  # a number, or "5%" of the baseline's mean
    worth: dict[str, float | str] = {}
    harm: dict[str, float | str] = {}
    primary: tuple[str, ...] = ()
    correction: Literal["auto", "holm", "bh", "bonferroni", "max-t", "none"] = "auto"
    confidence: float = 0.95
    family: int = 0
    pairs: Literal["baseline", "all"] = "baseline"
    claim: Literal["checkpoints", "recipes"] = "checkpoints"


class DeclaredPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan with its time, the hash of its judgments, and a hash of it all."""

    format: int = PLAN_FILE_FORMAT
    plan: ComparisonPlan
    declared: str  # UTC, ISO 8601
    qrels_sha256: str
    sha256: str = ""

    @property
    def content_sha256(self) -> str:
        """Return the hash of everything but the hash."""
        return sha256_json(msgspec.to_builtins(msgspec.structs.replace(self, sha256="")))


def with_hash(plan: ComparisonPlan, declared: str, qrels_sha256: str) -> DeclaredPlan:
    """Return a plan with its hash."""
    whole = DeclaredPlan(plan=plan, declared=declared, qrels_sha256=qrels_sha256)
    return msgspec.structs.replace(whole, sha256=whole.content_sha256)


def folder_of(lab: Path) -> Path:
    """Return the folder of a lab's declared plans."""
    return lab / "declared-plans"


def save(lab: Path, whole: DeclaredPlan) -> Path:
    """Write a declared plan to the lab, and return its file.

    Raises:
        UsageError: the same was declared in this very second; RunFailedError: the lab cannot be written to.
    """
    path = folder_of(lab) / f"{slug(whole.plan.title)}-{whole.sha256[:12]}.json"
    if path.exists():
        raise UsageError("this plan is declared already", where=str(path), code="plan-declared")
    disk.make_folder(path.parent)
    json_records.save(path, whole)
    return path


def load_all(lab: Path) -> tuple[tuple[DeclaredPlan, ...], tuple[str, ...]]:
    """Return the lab's declared plans, the oldest first, and a message for each file that is none."""
    plans, problems = [], []
    for path in sorted(folder_of(lab).glob("*.json")):
        try:
            whole = json_records.load_if_there(path, DeclaredPlan)
        except DamagedError as error:
            problems.append(str(error))
            continue
        if whole is None:
            continue
        if whole.content_sha256 != whole.sha256:
            problems.append(f"{path}: changed since it was declared: its content does not give its hash")
            continue
        plans.append(whole)
    return tuple(sorted(plans, key=lambda each: (each.declared, each.sha256))), tuple(problems)


def find(lab: Path, text: str) -> DeclaredPlan:
    """Return the declared plan with that title, or whose hash begins so; of several with one title the first.

    Raises:
        UsageError: there is none.
        DamagedError: a file of the lab's plans was changed.
    """
    plans, problems = load_all(lab)
    for whole in plans:
        if text == whole.plan.title or (len(text) >= 6 and whole.sha256.startswith(text.lower())):
            return whole
    if problems:
        raise DamagedError(problems[0])
    titles = [whole.plan.title for whole in plans]
    hint = nearest(text, titles) if titles else f"there are none in {lab} yet; `cerank declare FILE` makes one"
    raise UsageError(f"no declared plan is called '{text}'", hint=hint)
