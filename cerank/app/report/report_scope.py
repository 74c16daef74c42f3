"""What a report is over: the models, test sets, first stages, measures and baseline, of a matrix or of named runs.

Invariant: the family is what was declared. A run that is not there yet and a measure not asked for stay in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cerank import recipes
from cerank.app import fold_runs
from cerank.app.comparison import named_systems
from cerank.app.comparison.measuring import run_systems
from cerank.app.comparison.named_systems import FIRST_STAGE, FileTarget, FoldsTarget, RunTarget
from cerank.app.report.report_data import FIRST, Model
from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import Correction
from cerank.recipes.matrix_schema import MatrixRecord
from cerank.recipes.schema import Stage
from cerank.registry import nearest
from cerank.runs import run_store, user_labels
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import RunFolder, runs_folder
from cerank.text.safe_text import counted


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The runs or matrix to report on, and the measures, baseline and rules that the user chose."""

    names: tuple[str, ...]  # a matrix, or runs
    baseline: str = ""  # see `report_scope.report_scope`
    correction: Correction = "auto"
    claim: Literal["auto", "checkpoints", "recipes"] = "auto"  # auto: recipes where every row has several seeds
    confidence: float = 0.95  # of intervals; verdicts err in at most the rest
    measures: tuple[str, ...] = ()  # in place of those declared
    every_stage: bool = False
    released: Path | None = None  # the paper's released rankings; None takes the place of `cerank data fetch`
    judged_by: tuple[str, ...] = ()  # datasets whose judgments the released rankings are measured by; the matrix's own
    in_domain: tuple[str, ...] = ()  # test sets that training data came from; (): by the runs' training data
    has_curves: bool = True
    command: str = ""  # as it was typed, for the report
    created: str = ""  # UTC, ISO 8601


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model and the runs that it is the mean of."""

    model: Model
    members: tuple[RunTarget, ...]


class ReportScope(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides which numbers a report shows, and how many tests are corrected together."""

    title: str
    rows: tuple[ReportRow, ...]
    tests: tuple[str, ...]
    first_stages: tuple[str, ...]
    measures: dict[str, tuple[str, ...]]  # test -> the measures declared for it
    baseline: str  # a recipe's name, a model's label, or "first-stage"
    record: MatrixRecord | None = None
    absent: tuple[str, ...] = ()  # runs of the matrix that are not in the lab
    paper: str = ""  # whose table is printed again from its released rankings
    margins: dict[str, float] = {}  # declared for that table's measure, in its units


def report_scope(lab: Path, texts: Sequence[str], *, baseline: str = "", every_stage: bool = False) -> ReportScope:
    """Return what `texts` name: one matrix of the lab, or runs (each RUN or RUN:STAGE).

    Args:
        baseline: a recipe (each base's own model of it is then the baseline), a model's label, a run, or
            "first-stage"; "" takes the matrix's, or the first of several runs, or the first stage of one.
        every_stage: each stage of a run is a row, not only its last.

    Raises:
        UsageError: no such matrix or run; the same seed of a recipe is given twice; a TREC run file is named.
        DamagedError: a matrix' record or a plan cannot be read.
    """
    if not texts:
        raise UsageError("a report needs a matrix or runs", hint="cerank ps lists the runs", code="report-empty")
    record = MATRICES.load_if_there(lab, texts[0]) if len(texts) == 1 else None
    if record is not None:
        scope = _of_matrix(lab, record, every_stage)
    else:
        scope = _of_paper(texts) or _of_runs(lab, texts, every_stage)
    return msgspec.structs.replace(scope, baseline=baseline or scope.baseline)


def _of_matrix(lab: Path, record: MatrixRecord, every_stage: bool) -> ReportScope:
    members: list[RunTarget] = []
    absent: list[str] = []
    for cell in record.cells:
        folder = RunFolder(runs_folder(lab) / cell.run)
        if not folder.plan.exists():
            absent.append(cell.run)
            continue
        members += _targets(folder, "", every_stage)
    if not members and not record.paper:
        raise UsageError(f"none of the runs of matrix '{record.name}' is in the lab", where=str(lab))
    tests = {test: named_systems.tested_folds(test, record.folds) if record.folds else test for test in record.tests}
    return ReportScope(
        title=record.name,
        rows=_rows(members),
        tests=tuple(tests.values()),
        first_stages=record.first_stages,
        measures={tests[test]: measures for test, measures in record.measures.items()},
        baseline=record.baseline,
        record=record,
        absent=tuple(absent),
        paper=record.paper,
        margins=_in_units(record.margins),
    )


def _of_paper(texts: Sequence[str]) -> ReportScope | None:
    """Return a shipped matrix of a paper of which no run is in the lab: its released rankings alone; else None."""
    if len(texts) != 1 or texts[0] not in recipes.shipped_matrices():
        return None
    matrix = recipes.load_matrix(texts[0]).matrix
    if not matrix.paper:
        return None
    return ReportScope(
        title=matrix.name,
        rows=(),
        tests=matrix.test,
        first_stages=matrix.first_stages,
        measures={},
        baseline=FIRST_STAGE,
        paper=matrix.paper,
        margins=_in_units(matrix.margins),
    )


def _in_units(margins: Mapping[str, float | str]) -> dict[str, float]:
    """Return the margins in a measure's units; a share of the baseline's mean is none."""
    return {name: value for name, value in margins.items() if isinstance(value, float)}


def _of_runs(lab: Path, texts: Sequence[str], every_stage: bool) -> ReportScope:
    members: list[RunTarget] = []
    for text in texts:
        target = named_systems.one_target(lab, text)
        if isinstance(target, FileTarget):
            hint = "a report needs runs; use `cerank compare` for TREC run files"
            raise UsageError(f"{target.path.name} is a file", where=text, hint=hint)
        if isinstance(target, FoldsTarget):
            stages = target.plan.recipe.chain if every_stage and ":" not in text else (target.system,)
            systems = [named_systems.of_system(target, stage, target.label) for stage in stages]
            members += [run for system in systems for run in named_systems.runs_of(system)]
            continue
        if target.system not in named_systems.systems_of(target.plan):
            what = f"{target.system} is an order for comparisons, made from judgments or at random"
            raise UsageError(what, where=text, hint="`cerank compare` shows it", code="reference-order-reported")
        is_stage = target.label.endswith(f":{target.system}")
        members += [target] if is_stage else _targets(target.folder, target.label, every_stage)
    rows = _rows(members)
    data = [member.plan.recipe.data for member in members]
    return ReportScope(
        title=" and ".join(texts) if len(texts) < 3 else counted(len(texts), "run"),
        rows=rows,
        tests=_once(test for target in named_systems.joined_folds(members) for test in run_systems.tests_of(target)),
        first_stages=_once(first for each in data for first in each.first_stages),
        measures=_measures(members),
        baseline=rows[0].model.label if len(rows) > 1 else FIRST_STAGE,
    )


def _targets(folder: RunFolder, label: str, every_stage: bool) -> list[RunTarget]:
    """Return the run after its last stage, or after each."""
    plan = run_store.load_plan(folder)
    label = label or user_labels.load(folder).label or plan.label or run_store.short_name(folder)
    chain = plan.recipe.chain
    return [RunTarget(label, folder, plan, stage) for stage in (chain if every_stage else chain[-1:])]


def _measures(members: Sequence[RunTarget]) -> dict[str, tuple[str, ...]]:
    """Test -> every measure that a run tested on it declares."""
    names_of: dict[str, list[str]] = {}
    for target in named_systems.joined_folds(members):
        plan = target.plan
        for test, own in zip(run_systems.tests_of(target), plan.recipe.data.test, strict=True):
            names_of.setdefault(test, []).extend(plan.measures_on(own))
    return {test: _once(names) for test, names in names_of.items()}


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


# --- models


def _rows(members: Sequence[RunTarget]) -> tuple[ReportRow, ...]:
    """Return a row for each system that differs in more than its seed, in the order given."""
    groups: dict[tuple[str, str], list[RunTarget]] = {}
    for member in members:
        groups.setdefault(_but_for_seed_and_fold(member), []).append(member)
    named = [(_label(group), tuple(group)) for group in groups.values()]
    labels = [label for label, _ in named]
    rows = []
    for label, group in named:
        _refuse_same_seed(label, group)
        twice = labels.count(label) > 1
        rows.append(ReportRow(model=_model(f"{label} ({group[0].label})" if twice else label, group), members=group))
    return _refuse_same_label(rows)


def _but_for_seed_and_fold(member: RunTarget) -> tuple[str, str]:
    if fold_runs.fold_of(member.plan.recipe) is None:
        return named_systems.but_for_seed(member)
    recipe = msgspec.structs.replace(member.plan.recipe, seed=0)
    return member.system, fold_runs.family(recipe).decode()


def _label(group: Sequence[RunTarget]) -> str:
    recipe, system = group[0].plan.recipe, group[0].system
    if system in recipe.untrained_systems():
        return system
    stage = "" if system == recipe.chain[-1] else f", {system} only"
    return f"{base_name(recipe.base)} {recipe.name}{stage}"


def base_name(base: str) -> str:
    """Return a base as tables call it: the last part of a hub id or folder."""
    return base.rstrip("/").rpartition("/")[2] or base


def _model(label: str, group: Sequence[RunTarget]) -> Model:
    recipe, system = group[0].plan.recipe, group[0].system
    if system in recipe.untrained_systems():  # neither the recipe's base nor its seed made it
        return Model(label=label, base="", recipe="", system=system, runs=tuple(each.folder.name for each in group))
    stages = recipe.chained()
    until = recipe.chain.index(system) + 1 if system in recipe.chain else 0
    return Model(
        label=label,
        base=base_name(recipe.base),
        recipe=recipe.name if until in {0, len(stages)} else f"{recipe.name}, {system} only",
        system=system,
        chain=tuple(_kind_of(stage) for _, stage in stages[:until]),
        loss=" + ".join(part.name for part in stages[until - 1][1].parts) if until else "",
        teacher=", ".join(part.teacher for part in stages[until - 1][1].parts if part.teacher) if until else "",
        seeds=tuple(target.plan.recipe.seed for target in named_systems.joined_folds(group)),
        runs=tuple(member.folder.name for member in group),
    )


def unnamed_baselines(scope: ReportScope) -> tuple[str, ...]:
    """Return RUN:BASELINE of each baseline that a run of the report was compared with and that is no row of it."""
    members = [member for row in scope.rows for member in row.members]
    rows = {member.system for member in members}
    named: dict[str, str] = {}
    for member in members:
        for system in member.plan.recipe.untrained_systems():
            if system not in rows:
                named.setdefault(system, f"{run_store.short_name(member.folder)}:{system}")
    return tuple(named.values())


def first_stage_model() -> Model:
    """Return the row that the others re-rank."""
    return Model(label=FIRST, base="", recipe="", system=FIRST_STAGE)


def _refuse_same_seed(label: str, group: Sequence[RunTarget]) -> None:
    seeds = [(member.plan.recipe.seed, fold_runs.fold_of(member.plan.recipe)) for member in group]
    for seed, fold in seeds:
        if seeds.count((seed, fold)) > 1:
            same = [member for member, which in zip(group, seeds, strict=True) if which == (seed, fold)]
            names = ", ".join(run_store.title(member.folder) for member in same)
            raise UsageError(
                f"'{label}': seed {seed} is given twice", where=names, hint="name one of these runs", code="seed-twice"
            )


def _refuse_same_label(rows: Sequence[ReportRow]) -> tuple[ReportRow, ...]:
    """Return the rows; two of the same label (the user gave both runs one) carry their runs' names."""
    labels = [row.model.label for row in rows]
    out = []
    for row in rows:
        label = row.model.label
        if labels.count(label) > 1 or label == FIRST:
            label = f"{label} ({row.model.runs[0]})"
        out.append(msgspec.structs.replace(row, model=msgspec.structs.replace(row.model, label=label)))
    return tuple(out)


# --- baseline


def baselines(scope: ReportScope) -> dict[str, str]:
    """Return the label of each tested model with the label of its baseline.

    Raises:
        UsageError: no model is meant by the baseline, or several of one base are.
    """
    text, models = scope.baseline, [row.model for row in scope.rows]
    if text in {FIRST_STAGE, FIRST}:
        return {model.label: FIRST for model in models}
    lefts = {model.base: model for model in models if model.recipe == text}
    if lefts:
        for model in models:
            if model.recipe == text and lefts[model.base] != model:
                hint = f"such as '{model.label}'"
                raise UsageError(f"two models of {model.base} are called '{text}'", where="--baseline", hint=hint)
        lefts |= _of_other_base(scope, lefts)
        pairs = [(model.label, lefts[model.base].label) for model in models if model.base in lefts]
        return {right: left for right, left in pairs if right != left}
    meant = [model for model in models if text == model.label or text in model.runs]
    meant = meant or [row.model for row in scope.rows if text in {member.label for member in row.members}]
    if len(meant) == 1:
        return {model.label: meant[0].label for model in models if model != meant[0]}
    if scope.record is not None and text == scope.record.baseline:
        return {}  # no run of the baseline is in the lab yet
    known = [FIRST_STAGE, *(model.label for model in models), *(model.recipe for model in models)]
    raise UsageError(
        f"no row of the report is called '{text}'",
        where="--baseline",
        hint=nearest(text, known),
        code="unknown-baseline",
    )


def _of_other_base(scope: ReportScope, lefts: Mapping[str, Model]) -> dict[str, Model]:
    """Return base -> baseline for bases of which a matrix declares none, where it declares one of one base only.

    Such a matrix lists no `bases`, and its recipes have their own, as a table with one large model has.
    """
    if scope.record is None or len(lefts) != 1:
        return {}
    declared = {base_name(cell.base) for cell in scope.record.cells if cell.recipe == scope.baseline}
    if len(declared) != 1:
        return {}
    (only,) = lefts.values()
    bases = {row.model.base for row in scope.rows if row.model.base}
    return dict.fromkeys(bases - declared, only)


def _kind_of(stage: Stage) -> str:
    """Return what a stage learns from: "cl" for labels, "kd" for a teacher, "joint" for both at once."""
    kinds = {"kd" if part.teacher else "cl" for part in stage.parts}
    return kinds.pop() if len(kinds) == 1 else "joint"
