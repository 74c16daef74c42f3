"""The declared rows measured from their rankings, and every file that a number comes from.

Invariant: what is not there is named, never left out in silence; a measures file that disagrees with its ranking is
said to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.measuring import run_systems
from cerank.app.comparison.named_systems import (
    FIRST_STAGE,
    FoldsTarget,
    RunTarget,
    SeedsTarget,
    Target,
    joined_folds,
    of_system,
    runs_of,
    short_name,
)
from cerank.app.report.report_data import FIRST, SourceFile
from cerank.app.report.report_scope import ReportRow, ReportScope
from cerank.evaluation.systems import Condition, Measured, System
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_file
from cerank.runs import run_store
from cerank.runs.records import decode_measures
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.training import stage_summary

Say = Callable[[str], None]
_SAME = 1e-9  # a measure computed twice


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured, by label, and the canonical measures of each test set."""

    systems: dict[str, System]
    measures: dict[str, tuple[str, ...]]  # test -> canonical names
    missing: tuple[str, ...]
    sources: tuple[SourceFile, ...]
    notes: tuple[str, ...]


def measure_rows(settings: Settings, report_scope: ReportScope, measures: Sequence[str], say: Say) -> Measurements:
    """Measure every row whose rankings exist, at every declared place.

    Args:
        measures: in place of the declared ones; empty takes those.
        say: hears what is being measured.

    Raises:
        UsageError: a measure is unknown, or 0 for every ranking; DamagedError: a file cannot be read.
    """
    systems: dict[str, System] = {}
    names: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for test in report_scope.tests:
        rows = [row for row in report_scope.rows if _is_there(row, test, report_scope.first_stages)]
        missing += _missing(report_scope, rows, test)
        targets = [*_first_stages(rows, test), *(_target(row) for row in rows)]
        if not targets:
            continue
        say(f"measuring {counted(len(targets), 'ranking')} of {test}")
        chosen = tuple(measures) or report_scope.measures.get(test, ())
        request = ComparisonRequest(measures=chosen, dataset=test)
        measured, names[test] = comparisons.measured_systems(settings, targets, request)
        for system in measured:
            systems[system.label] = _joined(systems.get(system.label), system)
    sources = _sources(settings.lab, report_scope)
    return Measurements(
        systems=systems,
        measures=names,
        missing=tuple(missing),
        sources=sources,
        notes=(*_other_first_stages(report_scope), *_disagreements(report_scope, systems)),
    )


def _is_there(row: ReportRow, test: str, first_stages: Sequence[str]) -> bool:
    """Return whether every seed of the row has its ranking of the test set over each of its first stages."""
    for target in joined_folds(row.members):
        firsts = target.plan.recipe.data.first_stages
        if test not in run_systems.tests_of(target) or not set(firsts) & set(first_stages):
            return False
        for member in runs_of(target):
            own = _own_test(member, target, test)
            if not all(member.folder.ranking(member.system, own, first).exists() for first in firsts):
                return False
            if not member.folder.qrels(own).exists():
                return False
    return True


def _own_test(member: RunTarget, target: RunTarget | FoldsTarget, test: str) -> str:
    """Return what a run calls a test set: its own fold, where the row was tested fold by fold."""
    return member.plan.recipe.data.test[0] if isinstance(target, FoldsTarget) else test


def _missing(report_scope: ReportScope, rows: Sequence[ReportRow], test: str) -> list[str]:
    there = {row.model.label for row in rows}
    return [f"{row.model.label} on {short_name(test)}" for row in report_scope.rows if row.model.label not in there]


def _first_stages(rows: Sequence[ReportRow], test: str) -> list[RunTarget | FoldsTarget]:
    """Return the first runs that hold the first stages' own rankings; each first stage once."""
    seen: set[str] = set()
    out = []
    for target in (target for row in rows for target in joined_folds(row.members)):
        firsts = target.plan.recipe.data.first_stages
        has_all = all(
            member.folder.ranking(FIRST_STAGE, _own_test(member, target, test), first).exists()
            for member in runs_of(target)
            for first in firsts
        )
        if has_all and not set(firsts) <= seen:
            seen.update(firsts)
            out.append(of_system(target, FIRST_STAGE, FIRST))
    return out


def _target(row: ReportRow) -> Target:
    label = row.model.label
    members = joined_folds(row.members)
    if len(members) == 1:
        return msgspec.structs.replace(members[0], label=label)
    return SeedsTarget(label, members)


def _joined(system: System | None, other: System) -> System:
    """Return one system with what both were measured on; a condition counts once."""
    if system is None:
        return other
    known = {entry.condition for entry in system.measured}
    measured = (*system.measured, *(entry for entry in other.measured if entry.condition not in known))
    members = (
        tuple(_joined(*pair) for pair in zip(system.members, other.members, strict=True)) if system.members else ()
    )
    return msgspec.structs.replace(system, measured=measured, members=members)


def at(system: System, condition: Condition) -> Measured | None:
    """Return what the system scored there; None where it has not been measured."""
    return next((entry for entry in system.measured if entry.condition == condition), None)


# --- files


def _sources(lab: Path, report_scope: ReportScope) -> tuple[SourceFile, ...]:
    """Return each file that is read, hashed, by run and role."""
    files: dict[tuple[str, str, Path], None] = {}
    for member in (member for row in report_scope.rows for member in row.members):
        folder, data = member.folder, member.plan.recipe.data
        files[folder.name, "plan", folder.plan] = None
        for index, name in enumerate(member.plan.recipe.chain):
            files[folder.name, "stage", folder.final(index, name) / stage_summary.FILE_NAME] = None
        for test in data.test:
            files[folder.name, "qrels", folder.qrels(test)] = None
            for first in data.first_stages:
                for system in (FIRST_STAGE, member.system):
                    files[folder.name, "ranking", folder.ranking(system, test, first)] = None
                    files[folder.name, "measures", folder.measures(system, test, first)] = None
    if report_scope.record is not None:
        from cerank.runs.declared_records import MATRICES

        files["", "matrix", MATRICES.path_of(lab, report_scope.record.name)] = None
    rows = [
        SourceFile(run=run, role=role, path=str(path.relative_to(lab)), sha256=sha256_file(path))
        for run, role, path in files
        if path.is_file()
    ]
    return tuple(sorted(rows))


def _disagreements(report_scope: ReportScope, systems: dict[str, System]) -> tuple[str, ...]:
    """Return a note for each measures file whose values differ from its ranking, measured again."""
    out = []
    for row in report_scope.rows:
        system = systems.get(row.model.label)
        if system is None:
            continue
        alike = zip(joined_folds(row.members), system.members or (system,), strict=True)
        for target, member, again in ((whole, run, again) for whole, again in alike for run in runs_of(whole)):
            for test, first in _pairs(member):
                path = member.folder.measures(member.system, test, first)
                tested = target.test if isinstance(target, FoldsTarget) else test
                entry = at(again, Condition(short_name(tested), short_name(first)))
                if entry is not None and path.is_file() and (count := _differing(path, entry)):
                    where = f"{run_store.short_name(member.folder)}: {short_name(test)} over {short_name(first)}"
                    out.append(
                        f"{where}: its measures file differs from its ranking, measured again, "
                        f"in {counted(count, 'value')}"
                    )
    return tuple(out)


def _pairs(member: RunTarget) -> Iterable[tuple[str, str]]:
    data = member.plan.recipe.data
    return ((test, first) for test in data.test for first in data.first_stages)


def _differing(path: Path, entry: Measured) -> int:
    """Return how many values of the file differ from those of the ranking, by the measures that both have."""
    try:
        rows = decode_measures(path.read_bytes())
    except json_records.DECODE_ERRORS as error:
        raise disk.DamagedError(f"not a measures file: {json_records.decode_reason(error)}", where=str(path)) from error
    return sum(
        abs(value - entry.values[name].get(row.query_id, float("inf"))) > _SAME
        for row in rows
        for name, value in row.measures.items()
        if name in entry.values
    )


def _other_first_stages(report_scope: ReportScope) -> tuple[str, ...]:
    """Return a note for each first stage that differs between runs, in its documents or its depth."""
    seen: dict[tuple[str, str], dict[tuple[str, int], list[str]]] = {}
    for member in (member for row in report_scope.rows for member in row.members):
        for test, first in _pairs(member):
            pinned = next(
                (entry.sha256 for entry in member.plan.inputs if entry.name == f"{first} on {test}"),
                "",
            )
            key = pinned, member.plan.recipe.data.depth
            seen.setdefault((test, first), {}).setdefault(key, []).append(member.folder.name)
    out = []
    for (test, first), kinds in seen.items():
        if len(kinds) > 1:
            differing = "; ".join(
                f"depth {depth}, sha256 {sha[:12]}: {names[0]}" for (sha, depth), names in kinds.items()
            )
            out.append(f"{short_name(first)} on {short_name(test)} is not the same for every run: {differing}")
    return tuple(out)
