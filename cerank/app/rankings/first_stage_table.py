"""First stages by re-rankers, from runs that re-ranked several first stages: the table, and whether its order holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, named_systems, recorded_looks
from cerank.app.comparison import margins as margins_of
from cerank.errors import UsageError
from cerank.evaluation.studies.interaction import FIRST_STAGES_BY_RERANKERS
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.app.comparison.recorded_looks import Keys
    from cerank.evaluation.studies.interaction import InteractionStudy


class InteractionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which re-rankers to look at, on what."""

    targets: tuple[str, ...]  # runs, or RUN:STAGE; a run alone stands for all its stages where it is the only one
    measure: str = ""  # "": the first one of the first run's recipe
    dataset: str = ""  # the one test dataset to look at, for runs with several
    margins: tuple[str, ...] = ()
    alpha: float = 0.05
    now: str = ""  # UTC, ISO 8601


def study(settings: Settings, request: InteractionRequest) -> tuple[InteractionStudy, Keys]:
    """Return the table of first stages by re-rankers, and its verdicts as `recorded_looks` counts them.

    Raises:
        UsageError: fewer than two re-rankers, first stages or queries; several test datasets and none is named; a TREC
            run file, which does not say what it re-ranked.
    """
    import numpy as np

    from cerank.evaluation.measures import limits
    from cerank.evaluation.studies.interaction import interaction_study

    targets = _targets(settings, request.targets)
    measuring = comparisons.ComparisonRequest(
        measures=(request.measure,) if request.measure else (), dataset=request.dataset
    )
    systems, names = comparisons.measured_systems(settings, targets, measuring)
    from cerank.evaluation.systems import shared_conditions, values_by_query

    conditions = shared_conditions(systems)
    datasets = sorted({condition.dataset for condition in conditions})
    if len(datasets) > 1:
        what = f"the runs have {len(datasets)} test datasets"
        raise UsageError(what, where="--dataset", hint=f"name one of {', '.join(datasets)}", code="ranking-not-unique")
    measure = names[0]
    values = np.array(
        [
            [values_by_query(systems[0], system, condition, measure)[1][1] for system in systems]
            for condition in conditions
        ]
    )
    declared = comparisons.declared_margins(targets, [measure], all_pairs=True)

    typed = margins_of.typed_by_measure(request.margins)
    margin = margins_of.chosen(typed, declared, now=request.now, because="").get(measure)
    if margin is not None and margin.share is not None:
        margin = msgspec.structs.replace(margin, value=margin.share * float(values[:, 0].mean()))
    done = interaction_study(
        values.transpose(2, 0, 1),
        [condition.first_stage for condition in conditions],
        [system.label for system in systems],
        measure,
        margin=margin,
        alpha=request.alpha,
        limits=limits(measure),
    )
    return done, recorded_looks.keys_of_interaction(systems, conditions, measure)


def _targets(settings: Settings, texts: Sequence[str]) -> list[named_systems.RunTarget]:
    """Return the re-rankers that are named; all stages of a run that is named alone."""
    targets = []
    for text in texts:
        target = named_systems.target(settings.lab, text)
        if isinstance(target, named_systems.FileTarget):
            what = "a TREC run file does not say which first stage it re-ranked"
            raise UsageError(what, where=text, hint="name runs of the lab", code="not-a-run-of-the-lab")
        targets.append(target)
    if len(texts) == 1 and ":" not in texts[0]:
        (only,) = targets
        names = [name for name in named_systems.systems_of(only.plan) if name != named_systems.FIRST_STAGE]
        targets = [named_systems.RunTarget(name, only.folder, only.plan, name) for name in names]
    return targets


def marked_end(high: float, mark: str) -> str | float:
    """Return the upper end of an interval, as a text where a mark comes after it."""
    return f"{high:+.4f}{mark}" if mark else high


def tables(done: InteractionStudy, *, is_marked: bool = False) -> list[Table]:
    """Return the means, and the contrasts with what the tests say.

    Args:
        done: the study.
        is_marked: mark the intervals of contrasts in which few queries differ, for people: these ends are then texts.
    """
    from cerank.evaluation.comparison_rows import NOTE_OF_STEP, STEP_MARK, mark_of_few, note_of_few

    marks = [mark_of_few(each.figures, done.alpha) if is_marked else "" for each in done.contrasts]
    steps = [STEP_MARK if is_marked and each.is_beyond_interval else "" for each in done.contrasts]
    means = Table(
        "means",
        (
            Column("reranker", done.factors[1], "name"),
            *(Column(f"first_stage_{place}", name, "number") for place, name in enumerate(done.first_stages, 1)),
        ),
        tuple((name, *row) for name, row in zip(done.rerankers, done.means, strict=True)),
        f"{done.measure} by {done.factors[0]} and {done.factors[1]}, {done.queries} queries",
        tuple(_order(done)),
    )
    behind = "behind" if done.factors == FIRST_STAGES_BY_RERANKERS else "with"
    columns = (
        Column("reranker", done.factors[1], "name"),
        Column("against", "against", "name"),
        Column("first_stage", behind, "name"),
        Column("gain", "gain", "signed"),
        Column("other_first_stage", f"and {behind}", "name"),
        Column("other_gain", "gain ", "signed"),
        Column("difference", "difference", "signed"),
        Column("low", "low", "signed", priority=1),
        Column("high", "high", "signed", priority=1),
        Column("verdict", "verdict"),
        Column("p", "p", "p", priority=4),
        Column("p_corrected", "adjusted p", "p", priority=2),
        Column("basis", "test", "name", priority=5),
    )
    rows = tuple(
        (
            *(each.rerankers[1], each.rerankers[0], each.first_stages[0], each.gains[0]),
            *(
                each.first_stages[1],
                each.gains[1],
                each.figures.difference,
                each.low,
                marked_end(each.high, mark + step),
            ),
            *(each.verdict, each.p, each.p_corrected, each.basis),
        )
        for each, mark, step in zip(done.contrasts, marks, steps, strict=True)
    )
    title = f"Does a gain depend on the {done.factors[0]}?"
    notes = (*_notes(done), *([note_of_few(done.alpha)] if any(marks) else []))
    notes += (NOTE_OF_STEP,) if any(steps) else ()
    return [means, Table("interaction", columns, rows, title, notes)]


def _order(done: InteractionStudy) -> list[str]:
    """Return the order of the re-rankers behind each first stage (or of one factor's levels), and whether it is one."""
    where = "behind" if done.factors == FIRST_STAGES_BY_RERANKERS else "with"
    orders = []
    for place in range(len(done.first_stages)):
        if len({round(row[place], 12) for row in done.means}) < len(done.rerankers):
            return [f"{where} {done.first_stages[place]} the means of several are equal: there is no one order"]
        best = sorted(range(len(done.rerankers)), key=lambda at: (-done.means[at][place], at))
        orders.append(tuple(done.rerankers[at] for at in best))
    if all(order == following for order, following in pairwise(orders)):
        return [f"by the means the order is the same {where} each {done.factors[0]}: {' > '.join(orders[0])}"]
    lines = [f"{where} {name}: {' > '.join(order)}" for name, order in zip(done.first_stages, orders, strict=True)]
    return ["by the means the order differs", *lines]


def _notes(done: InteractionStudy) -> list[str]:
    from cerank.evaluation.diagnostics import of_unseen_difference
    from cerank.evaluation.significance import FEW

    test, percent = done.test, f"{100 * (1 - done.alpha):.4g} %"
    reduced = f", degrees of freedom reduced by {test.epsilon:.2f}" if test.df > 1 else ""
    if test.f != test.f:  # nan: no query's values differ between cells
        return ["no query's values differ between cells: there is no interaction in them, and nothing to test"]
    conclusion = "an interaction is shown" if test.p_reduced <= done.alpha else "no interaction is shown"
    notes = [
        f"{conclusion}: F({test.df:g}, {test.df_error:g}) = {test.f:.2f}, p = {test.p_reduced:.3g}{reduced} (two-way, "
        "paired by query)",
        f"{counted(len(done.contrasts), 'difference')} of gains, by paired t-tests (exact sign flips "
        f"where fewer than {FEW} queries differ), Holm-adjusted; low, high: simultaneous {percent} intervals",
    ]
    if done.margin is None:
        notes.append("no margin: that a gain is the same cannot be shown; declare one, or give --margin")
    else:
        late = "" if done.margin.before else ", chosen after the results"
        notes.append(f"margin for the difference of two gains: ±{done.margin.shown}{late}")
    notes += [
        f"{each.rerankers[1]} against {each.rerankers[0]}, {' and '.join(each.first_stages)}: "
        + of_unseen_difference(each.figures, each.unseen, done.margin.value).text
        for each in done.contrasts
        if each.unseen is not None and done.margin is not None
    ]
    if test.p_reduced > done.alpha:
        notes.append("that no interaction is shown does not show that there is none")
    return notes
