"""The measures, margins and primary questions that a recipe declares, checked against the data they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import RecipeError
from cerank.recipes.optimizer_checks import optimizer_mistakes
from cerank.recipes.schema import VALIDATION_LOSS, Recipe, share_of, shown_size
from cerank.registry import nearest

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset


def _margins_checked(
    given: Mapping[str, float | str], measures: Sequence[str], key: str = "margins"
) -> dict[str, float | str]:
    """Return the margins (or gains, or harm margins: the table `key`) under their measures' canonical names."""
    from cerank.evaluation.measures import canonical, limits

    where = f"evaluate.{key}"
    margins: dict[str, float | str] = {}
    for name, value in given.items():
        measure = canonical(name, f"{where} {name}")
        if measure not in measures:
            hint = f"{nearest(measure, measures)}; add it to evaluate.measures or remove its margin"
            raise RecipeError(
                f"{name}: margin for a measure that is not evaluated", where=where, hint=hint, code="margin-unused"
            )
        span = limits(measure)
        if isinstance(value, float) and span is not None and value >= span[1] - span[0]:
            raise RecipeError(
                f"{name}: a margin of {value:g} calls any two systems equivalent",
                where=where,
                hint=f"{measure} spans {span[1] - span[0]:g}; name a difference that would not matter, such as .02",
                code="margin-too-large",
            )
        if margins.get(measure, value) != value:
            raise RecipeError(
                f"{name}: {measure} is given twice, under two spellings, with different margins",
                where=where,
                code="margin-twice",
            )
        margins[measure] = value
    return margins


def measures_checked(recipe: Recipe, datasets: dict[str, Dataset]) -> tuple[Recipe, dict[str, tuple[str, ...]]]:
    """Return the recipe with canonical measures, each known and able to differ from 0 on what it is computed on.

    Where it says "auto", each test dataset has its own, which are returned by its name, and the recipe has all of them.
    """
    from cerank.evaluation.measures import check

    measures, each = _measures_of(recipe, datasets)
    stages = dict(recipe.stages)
    for name, stage in recipe.chained():
        dataset = datasets[stage.validation or recipe.data.validation]
        queries = list(dataset.queries)[: stage.validation_queries or None]
        validation = {query: dataset.qrels.get(query, {}) for query in queries}
        chosen, further = stage.validation_measure, list[str]()
        if chosen != VALIDATION_LOSS:  # the stage's own; not a measure
            (chosen,) = check([chosen], validation, f"stages.{name}.validation_measure")
        for measure in stage.keep_best:
            further += (
                [measure] if measure == VALIDATION_LOSS else check([measure], validation, f"stages.{name}.keep_best")
            )
        stages[name] = msgspec.structs.replace(stage, validation_measure=chosen, keep_best=tuple(further))
        if mistakes := optimizer_mistakes(f"stages.{name}", stages[name]):  # two spellings of one measure
            raise RecipeError("\n".join(mistakes), where=f"recipe {recipe.name}")
    margins = _margins_checked(recipe.evaluate.margins, measures)
    worth = _margins_checked(recipe.evaluate.worth, measures, "worth")
    harm = _margins_checked(recipe.evaluate.harm, measures, "harm")
    for name, gain in worth.items():
        margin = margins.get(name, 0.0)
        if isinstance(margin, str) != isinstance(gain, str):
            continue  # which of them is larger the baseline's mean decides; the comparison checks it
        if (share_of(gain) or float(gain)) < (share_of(margin) or float(margin)):
            what = (
                f"{name}: a gain of {shown_size(gain)} cannot be worth it if differences up to {shown_size(margin)} "
                "do not matter"
            )
            raise RecipeError(what, where="evaluate.worth", hint="declare a gain of at least the margin")
    _check_primary(recipe, measures)
    changes = {"measures": measures, "margins": margins, "worth": worth, "harm": harm}
    evaluate = msgspec.structs.replace(recipe.evaluate, **changes)
    return msgspec.structs.replace(recipe, evaluate=evaluate, stages=stages), each


def _check_primary(recipe: Recipe, measures: Sequence[str]) -> None:
    """Reject primary questions about measures that are not evaluated."""
    from cerank.evaluation.primary_questions import questions

    for question in questions(recipe.evaluate.primary, "evaluate.primary"):
        if question.measure and question.measure not in measures:
            hint = f"{nearest(question.measure, measures)}; add it to evaluate.measures"
            raise RecipeError(f"{question.measure} is not evaluated", where="evaluate.primary", hint=hint)


def _measures_of(recipe: Recipe, datasets: dict[str, Dataset]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return all measures of the recipe, and those of each test dataset where it says "auto"."""
    from cerank.datasets.aliases import AUTO
    from cerank.datasets.open_datasets import measures_of
    from cerank.evaluation.measures import canonical, check

    requested = recipe.evaluate.measures
    if not recipe.data.test:  # a trial of a sweep: validations show those that their judgments allow
        return tuple(canonical(name, "evaluate.measures") for name in requested if name != AUTO), {}
    each = {}
    for test in recipe.data.test:
        own = [name for entry in requested for name in (measures_of(datasets[test]) if entry == AUTO else (entry,))]
        each[test] = check(own, datasets[test].qrels, f"evaluate.measures on {test}")
    everything = tuple(dict.fromkeys(name for names in each.values() for name in names))
    return everything, each if AUTO in requested else {}
