"""What each factor of a matrix changes, from its runs: the table of effects, and whether two factors depend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, recorded_looks
from cerank.app.comparison import margins as margins_of
from cerank.app.comparison.named_systems import RunTarget, SeedsTarget, Target, joined_folds
from cerank.app.rankings import first_stage_table
from cerank.errors import MissingError, UsageError
from cerank.recipes.factors import mixed_effects
from cerank.recipes.matrix_schema import MatrixCell, MatrixRecord
from cerank.recipes.plan import Plan
from cerank.registry import nearest
from cerank.runs import run_store
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import RunFolder, runs_folder
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.app.comparison.recorded_looks import Keys
    from cerank.evaluation.studies.factor_effects import EffectStudy, FactorCell
    from cerank.evaluation.studies.interaction import InteractionStudy
    from cerank.evaluation.systems import Condition, System
    from cerank.evaluation.verdicts.terms import Margin


class EffectRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which matrix to look at, by what."""

    matrix: str
    measure: str = ""  # "": the first one of its recipes
    dataset: str = ""  # the one test dataset to look at, in a matrix with several
    first_stage: str = ""  # the one first stage to look at, in a matrix with several
    by: tuple[str, ...] = ()  # two factors whose interaction is tested
    of_gain: bool = False  # what the last stage adds to the one before it, in place of what it reaches
    margins: tuple[str, ...] = ()
    alpha: float = 0.05
    now: str = ""  # UTC, ISO 8601


class MatrixEffects(msgspec.Struct, frozen=True, kw_only=True):
    """The effects of a matrix, with what a reader must know of its design."""

    record: MatrixRecord
    condition: Condition
    of_gain: bool
    effects: EffectStudy
    interaction: InteractionStudy | None
    mixed: dict[str, tuple[tuple[str, str], ...]]  # see `factors.mixed_effects`
    seeds: int  # of each cell; all folds of one seed count once
    looks: dict[str, tuple[str, ...]]  # the verdicts as `recorded_looks` counts them


def study(settings: Settings, request: EffectRequest) -> MatrixEffects:
    """Return the effect of each factor, and the interaction that was asked for.

    Recipes and base models are factors, too, where the matrix has several.

    Raises:
        UsageError: no such matrix, factor or condition; a run of one stage has no gain; a margin in percent of a
            baseline that scores 0.
        MissingError: a run is not finished.
    """
    from cerank.evaluation.measures import limits
    from cerank.evaluation.studies.factor_effects import effect_study, means_by_levels
    from cerank.evaluation.studies.interaction import interaction_study
    from cerank.evaluation.systems import measured_in

    record = _matrix(settings, request.matrix)
    if len(request.by) not in {0, 2}:
        what = f"{counted(len(request.by), 'factor')}: {', '.join(request.by)}"
        raise UsageError(
            what, where="--by", hint="an interaction is that of two, such as base,recipe", code="factor-pair"
        )
    levels = _all_levels(record)
    groups = _groups(settings, record)
    last = [_target(group, -1) for group in groups.values()]
    before = [_target(group, -2) for group in groups.values()] if request.of_gain else []
    measuring = comparisons.ComparisonRequest(
        measures=(request.measure,) if request.measure else (), dataset=request.dataset
    )
    systems, names = comparisons.measured_systems(settings, [*last, *before], measuring)
    condition = _condition(systems, request)
    measure = names[0]
    cells = _cells(record, list(groups), systems, condition, measure)
    allowed = limits(measure)
    if allowed is not None and request.of_gain:
        allowed = allowed[0] - allowed[1], allowed[1] - allowed[0]
    declared = comparisons.declared_margins(last, [measure], all_pairs=True)
    typed = margins_of.typed_by_measure(request.margins)
    margin = margins_of.chosen(typed, declared, now=request.now, because="").get(measure)
    if margin is not None and margin.share is not None:
        # what the baseline's last stage reaches at the reference of every factor, on the first base model
        place = next(at for at, (recipe, _) in enumerate(groups) if recipe == record.baseline)
        margin = _sized(margin, systems, place, condition, measure)
    effects = effect_study(
        cells,
        levels,
        measure,
        is_fraction=record.fraction != "full",
        margin=margin,
        alpha=request.alpha,
        limits=allowed,
    )
    interaction = None
    if request.by:
        first, second = request.by
        values = means_by_levels(cells, levels, (first, second))
        interaction = interaction_study(
            values,
            levels[first],
            levels[second],
            measure,
            margin=margin,
            alpha=request.alpha,
            factors=(first, second),
            limits=allowed,
        )
    return MatrixEffects(
        record=record,
        condition=condition,
        of_gain=request.of_gain,
        effects=effects,
        interaction=interaction,
        mixed=mixed_effects(list(record.factors), record.fraction),
        seeds=min(len(joined_folds(group)) for group in groups.values()),
        looks=_looks(record, measured_in(systems[0], condition).qrels_sha256, cells, effects, interaction),
    )


def _looks(
    record: MatrixRecord,
    qrels_sha256: str,
    cells: Sequence[FactorCell],
    effects: EffectStudy,
    interaction: InteractionStudy | None,
) -> Keys:
    """Return a key for each effect, and for the test of an interaction and each of its contrasts.

    It says what was measured, and which levels differ.
    """
    measured = sorted([sorted(cell.levels.items()), cell.ranking or record.sha256] for cell in cells)
    named = [["effect", each.factor, each.level, each.reference] for each in effects.effects]
    if interaction is not None:
        named.append(["interaction", *interaction.factors])
        named += [
            ["interaction", *interaction.factors, *each.rerankers, *each.first_stages] for each in interaction.contrasts
        ]
    return recorded_looks.keys_of_statistics(qrels_sha256, [[*each, effects.measure, measured] for each in named])


def _matrix(settings: Settings, name: str) -> MatrixRecord:
    record = MATRICES.load_if_there(settings.lab, name)
    if record is None:
        there = sorted(path.stem for path in MATRICES.path_of(settings.lab, name).parent.glob("*.json"))
        hint = nearest(name, there) if there else "cerank run --matrix makes one"
        raise UsageError(f"the lab has no matrix '{name}'", where=str(settings.lab), hint=hint, code="matrix-not-found")
    return record


def _all_levels(record: MatrixRecord) -> dict[str, tuple[str, ...]]:
    """Return the declared factors with recipes and base models, each with its levels, the reference first."""
    recipes = tuple(dict.fromkeys(cell.varied or cell.recipe for cell in record.cells))
    if record.baseline in recipes:
        recipes = (record.baseline, *(name for name in recipes if name != record.baseline))
    bases = tuple(dict.fromkeys(cell.base for cell in record.cells))
    return {**record.factors, **({"recipe": recipes} if len(recipes) > 1 else {}), **_if_several("base", bases)}


def _if_several(name: str, levels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {name: levels} if len(levels) > 1 else {}


def _levels_of(cell: MatrixCell, levels: dict[str, tuple[str, ...]]) -> dict[str, str]:
    always = {"recipe": cell.varied or cell.recipe, "base": cell.base}
    return {**cell.levels, **{name: level for name, level in always.items() if name in levels}}


def _groups(settings: Settings, record: MatrixRecord) -> dict[tuple[str, str], list[RunTarget]]:
    """Return the finished runs of each recipe and base model, which differ in their seeds alone.

    Raises:
        MissingError: a run has no rankings yet.
    """
    groups: dict[tuple[str, str], list[RunTarget]] = {}
    unfinished = []
    for cell in record.cells:
        folder = RunFolder(runs_folder(settings.lab) / cell.run)
        plan = run_store.load_plan(folder) if folder.plan.exists() else None
        if plan is None or not _is_ranked(folder, plan):
            unfinished.append(run_store.short_name(folder) if folder.plan.exists() else cell.run)
            continue
        label = f"{cell.recipe} on {cell.base}"
        groups.setdefault((cell.recipe, cell.base), []).append(RunTarget(label, folder, plan, plan.recipe.chain[-1]))
    if unfinished:
        what = f"{len(unfinished)} of {counted(len(record.cells), 'run')} of the matrix are not finished"
        hint = f"each cell counts; the first of them: {', '.join(unfinished[:3])}"
        raise MissingError(what, where=f"matrix {record.name}", hint=hint, code="matrix-unfinished")
    return groups


def _is_ranked(folder: RunFolder, plan: Plan) -> bool:
    """Return whether the last stage's rankings are there, of every test dataset over every first stage."""
    data, last = plan.recipe.data, plan.recipe.chain[-1]
    return all(folder.ranking(last, test, first).exists() for test in data.test for first in data.first_stages)


def _target(group: Sequence[RunTarget], stage: int) -> Target:
    """Return what a stage of these runs left: the last (-1), or the one before it (-2)."""
    recipe = group[0].plan.recipe
    if len(recipe.chain) < -stage:
        hint = "leave --gain out, or give the matrix recipes of two stages"
        raise UsageError(f"recipe '{recipe.name}' has one stage", where="--gain", hint=hint, code="stages-too-few")
    system = recipe.chain[stage]
    label = f"{group[0].label}:{system}"
    members = joined_folds([RunTarget(label, member.folder, member.plan, system) for member in group])
    return members[0] if len(members) == 1 else SeedsTarget(label, members)


def _condition(systems: Sequence[System], request: EffectRequest) -> Condition:
    from cerank.evaluation.systems import shared_conditions

    conditions = shared_conditions(systems)
    chosen = [each for each in conditions if request.first_stage in {"", each.first_stage}]
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        known = [each.first_stage for each in conditions]
        what = f"the runs have no first stage '{request.first_stage}'"
        raise UsageError(
            what, where="--first-stage", hint=nearest(request.first_stage, known), code="ranking-not-found"
        )
    what = f"the matrix was measured in {len(chosen)} conditions: {'; '.join(map(str, chosen))}"
    hint = "choose one with --dataset and --first-stage"
    raise UsageError(what, where=f"matrix {request.matrix}", hint=hint, code="ranking-not-unique")


def _cells(
    record: MatrixRecord,
    groups: Sequence[tuple[str, str]],
    systems: Sequence[System],
    condition: Condition,
    measure: str,
) -> list[FactorCell]:
    """Return the values of each cell; where twice as many systems were measured, what the second half lacks of it."""
    import numpy as np

    from cerank.evaluation.studies.factor_effects import FactorCell
    from cerank.evaluation.systems import values_by_query

    levels = _all_levels(record)
    cell_of = {(cell.recipe, cell.base): cell for cell in record.cells}
    cells = []
    for place, group in enumerate(groups):
        values = np.array(values_by_query(systems[0], systems[place], condition, measure)[1][1])
        ranking = _ranking_of(systems[place], condition)
        if len(systems) > len(groups):
            earlier = systems[len(groups) + place]
            values = values - np.array(values_by_query(systems[0], earlier, condition, measure)[1][1])
            before = _ranking_of(earlier, condition)
            ranking = f"{before} {ranking}" if before and ranking else ""
        cells.append(FactorCell(_levels_of(cell_of[group], levels), values, ranking))
    return cells


def _ranking_of(system: System, condition: Condition) -> str:
    """Return the hash of a ranking, or those of all seeds; "" where one is not known."""
    from cerank.evaluation.systems import measured_in

    hashes = [measured_in(each, condition).ranking_sha256 for each in system.members or (system,)]
    return " ".join(hashes) if all(hashes) else ""


def _sized(margin: Margin, systems: Sequence[System], place: int, condition: Condition, measure: str) -> Margin:
    """Return a margin that is a share in the measure's units, by the mean of the baseline, the system at `place`.

    Raises:
        UsageError: the baseline scores 0, so that its share would call no difference equivalent.
    """
    import numpy as np

    from cerank.evaluation.systems import values_by_query

    mean = float(np.mean(values_by_query(systems[0], systems[place], condition, measure)[1][1]))
    if mean <= 0:
        what = f"{margin.shown} is 0: '{systems[place].label}' scores 0 by {measure} on {condition}"
        raise UsageError(what, where=margin.source, hint="give a number in the measure's units", code="share-of-zero")
    return msgspec.structs.replace(margin, value=(margin.share or 0.0) * mean)


def tables(done: MatrixEffects, *, is_marked: bool = False) -> list[Table]:
    """Return the effects, and the interaction where one was tested.

    Args:
        done: the study.
        is_marked: mark the intervals of effects in which few queries differ, for people: these ends are then texts.
    """
    from cerank.evaluation.comparison_rows import NOTE_OF_STEP, mark_of_few, mark_of_step, note_of_few

    marks = [
        mark_of_few(each.figures, done.effects.alpha, each.judgment.verdict) if is_marked else ""
        for each in done.effects.effects
    ]
    steps = [mark_of_step(each.judgment) if is_marked else "" for each in done.effects.effects]
    columns = (
        Column("factor", "factor", "name"),
        Column("level", "level", "name"),
        Column("reference", "against", "name"),
        Column("mean", "mean", "number"),
        Column("mean_reference", "mean against", "number", priority=2),
        Column("difference", "effect", "signed"),
        Column("low", "low", "signed", priority=1),
        Column("high", "high", "signed", priority=1),
        Column("verdict", "verdict"),
        Column("p", "p", "p", priority=5),
        Column("p_corrected", "adjusted p", "p", priority=3),
        Column("basis", "test", "name", priority=6),
        Column("cells", "cells", "number", 0, priority=4),
    )
    rows = tuple(
        (
            *(each.factor, each.level, each.reference, each.figures.mean_right, each.figures.mean_left),
            *(
                each.figures.difference,
                each.judgment.low,
                first_stage_table.marked_end(each.judgment.high, mark + step),
                each.judgment.verdict,
            ),
            *(each.judgment.p, each.judgment.p_corrected, each.judgment.basis, each.cells),
        )
        for each, mark, step in zip(done.effects.effects, marks, steps, strict=True)
    )
    what = "the last stage's gain over the stage before it" if done.of_gain else "what the last stage reaches"
    title = f"Effects on {done.effects.measure}, {what}: {done.condition}, {counted(done.effects.queries, 'query')}"
    notes = (*_notes(done), *([note_of_few(done.effects.alpha)] if any(marks) else []))
    notes += (NOTE_OF_STEP,) if any(steps) else ()
    effects = Table("effects", columns, rows, title, notes)
    if done.interaction is None:
        return [effects]
    return [effects, *first_stage_table.tables(done.interaction, is_marked=is_marked)]


def _notes(done: MatrixEffects) -> list[str]:
    from cerank.evaluation.diagnostics import of_unseen_difference
    from cerank.evaluation.significance import FEW

    study, record = done.effects, done.record
    if record.fraction == "full":
        how = "mean over pairs of cells that differ in that factor alone"
    else:
        how = (
            f"difference of the means of both halves of the {study.cells} cells run, a {record.fraction} of the design"
        )
    percent = f"{100 * (1 - study.alpha):.4g} %"
    notes = [
        f"effect: {how}; paired t-tests by query (exact sign flips where fewer than {FEW} queries differ), "
        f"Holm-adjusted over {counted(len(study.effects), 'effect')}; low, high: simultaneous {percent} intervals",
    ]
    notes += [
        f"{name}: not told apart from an interaction of {' or '.join(' with '.join(pair) for pair in pairs)}"
        for name, pairs in done.mixed.items()
    ]
    notes.append(_seed_note(done.seeds))
    notes.append(_margin_note(study.margin))
    notes += [
        f"{each.factor} {each.level}: "
        + of_unseen_difference(each.figures, each.judgment.unseen, study.margin.value).text
        for each in study.effects
        if each.judgment.unseen is not None and study.margin is not None
    ]
    return notes


def _seed_note(seeds: int) -> str:
    if seeds == 1:
        return "one seed a cell: the luck of single trainings is part of every effect"
    return f"means of {seeds} seeds; the tests count queries as samples, and not seeds"


def _margin_note(margin: Margin | None) -> str:
    if margin is None:
        return "no margin: that a factor does not matter cannot be shown; declare one, or give --margin"
    late = "" if margin.before else ", chosen after the results"
    return f"margin: ±{margin.shown}{late}"
