"""The tables of a paper: a measure each, a row a model, a column a test set over a first stage, signs after correction.

Invariant: a sign is the comparison's verdict and a value the mean that its paired test was made of.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast, get_args

import msgspec

from cerank.app.comparison import margins as margins_of
from cerank.app.comparison import named_systems
from cerank.app.comparison.named_systems import FIRST_STAGE, short_name
from cerank.app.report.measured_rows import Measurements, at
from cerank.app.report.provenance import tied
from cerank.app.report.report_data import (
    FIRST,
    Model,
    Place,
    PlaceStatistics,
    PublishedComparison,
    ResultCell,
    ResultLine,
    ResultsTable,
    Sign,
)
from cerank.app.report.report_scope import ReportRequest, ReportScope, baselines, first_stage_model
from cerank.evaluation import published
from cerank.evaluation.systems import Condition, System

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison, Row
    from cerank.evaluation.primary_questions import PrimaryQuestion
    from cerank.evaluation.verdicts.terms import Margin

_DIGITS = 4  # decimals that a reader sees, and by which a value is the best of its column
_LONGEST = 24  # characters of a column's heading


class TestResults(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison behind the signs, and the family it was corrected over."""

    comparison: Comparison | None
    family: int  # tests of the whole declared family, those not measured yet included
    pairs: dict[str, str]  # model -> its baseline
    models: int  # compared with a baseline, including those that are not in the lab
    unanswered: tuple[str, ...] = ()  # primary questions that no two models measured so far answer


def places(scope: ReportScope, data: Measurements) -> tuple[Place, ...]:
    """Return the columns, by first stage and then by test set, as the field prints them."""
    out = []
    depths = [member.plan.recipe.data.depth for row in scope.rows for member in row.members]
    for first in scope.first_stages:
        for test in scope.tests:
            condition = Condition(short_name(test), short_name(first))
            entries = [entry for system in data.systems.values() if (entry := at(system, condition))]
            queries = max((len(values) for entry in entries for values in entry.values.values()), default=0)
            out.append(
                Place(
                    test=test,
                    first_stage=first,
                    condition=condition,
                    heading=_heading(test),
                    queries=queries,
                    depth=max(depths, default=0),
                )
            )
    return tuple(out)


def _heading(test: str) -> str:
    """Return the short name of a test set, the end of one too long for a column."""
    known = published.heading(test) or short_name(test).removeprefix("msmarco-passage/").removesuffix("/judged")
    return known if len(known) <= _LONGEST else "…" + known[1 - _LONGEST :]


# --- verdicts


def test_rows(scope: ReportScope, data: Measurements, columns: Sequence[Place], request: ReportRequest) -> TestResults:
    """Compare every model with its baseline, by every measure at every place, corrected over the declared family.

    Args:
        scope: what the report is over.
        data: its systems, measured.
        columns: its places.
        request: the correction and claim, and measures asked for now; the declared ones stay in the family.

    Raises:
        UsageError: as `evaluation.compare.compare` has it, or no row is the baseline.
    """
    from cerank.evaluation.compare import compare
    from cerank.evaluation.primary_questions import questions
    from cerank.evaluation.verdicts.terms import Pairing, Terms

    pairs = baselines(scope)
    primary = questions(scope.record.primary if scope.record else (), "matrix")
    names_of = {FIRST: {FIRST, FIRST_STAGE}}
    names_of |= {row.model.label: {row.model.label, row.model.recipe} for row in scope.rows}
    couples = [*pairs.items(), *_pairs_of_questions(scope, primary, pairs, names_of)]
    pairings = [
        Pairing(
            condition=place.condition,
            measure=measure,
            left=left,
            right=right,
            is_primary=is_primary_row(primary, measure, names_of[right], names_of[left]),
        )
        for right, left in couples
        if {left, right} <= data.systems.keys()
        for place in columns
        if all(at(data.systems[label], place.condition) for label in (left, right))
        for measure in data.measures.get(place.test, ())
    ]
    absent = [({recipe}, {left}) for recipe, left in _absent_couples(scope, primary)]
    models = len(pairs) + len(_absent_models(scope))
    tests = _tests_of_model(scope, request.measures)
    planned = [*((names_of[right], names_of[left]) for right, left in couples), *absent]
    family = sum(is_primary_row(primary, name, right, left) for right, left in planned for name in tests)
    family = max(family, sum(pairing.is_primary for pairing in pairings))
    answered = [(pairing.measure, names_of[pairing.right], names_of[pairing.left]) for pairing in pairings]
    unanswered = tuple(str(question) for question in primary if not any(question.names(*row) for row in answered))
    if not pairings:
        return TestResults(comparison=None, family=family, pairs=pairs, models=models, unanswered=unanswered)
    names = tuple(dict.fromkeys(pairing.measure for pairing in pairings))
    compared = [data.systems[label] for pairing in pairings for label in (pairing.left, pairing.right)]
    claim = request.claim
    if claim == "auto":
        has_seeds = all(system.is_fixed or system.members for system in compared)
        claim = "recipes" if has_seeds and any(system.members for system in compared) else "checkpoints"
    margins, worth, harm = _declared(scope, names, couples)
    terms = Terms(
        correction=request.correction,
        confidence=request.confidence,
        family=family,
        claim=claim,
        pairs_seeds=named_systems.have_paired_seeds([member for row in scope.rows for member in row.members]),
        margins=margins,
        worth=worth,
        harm=harm,
    )
    order = list(dict.fromkeys([*(pairing.left for pairing in pairings), *data.systems]))
    comparison = compare([data.systems[label] for label in order], names, pairings=pairings, terms=terms)
    return TestResults(comparison=comparison, family=family, pairs=pairs, models=models, unanswered=unanswered)


def is_primary_row(
    primary: Sequence[PrimaryQuestion], measure: str, right: Collection[str], left: Collection[str]
) -> bool:
    """Return whether a row is in the family: without declared questions every one is."""
    return not primary or any(question.names(measure, right, left) for question in primary)


def _pairs_of_questions(
    scope: ReportScope, primary: Sequence[PrimaryQuestion], pairs: Mapping[str, str], names_of: Mapping[str, set[str]]
) -> list[tuple[str, str]]:
    """Return the further pairs of models of one base (right, left) that primary questions name."""
    models = [row.model for row in scope.rows]
    return [
        (right.label, left.label)
        for right in models
        for left in models
        if right.base == left.base and right.label != left.label and pairs.get(right.label) != left.label
        if any(_names_both(question, names_of[right.label], names_of[left.label]) for question in primary)
    ]


def _names_both(question: PrimaryQuestion, right: Collection[str], left: Collection[str]) -> bool:
    """Return whether a question names these two; one about a measure alone names no pair."""
    return question.right in right and question.left in left


def _absent_models(scope: ReportScope) -> list[tuple[str, str]]:
    """Return recipe and base of each declared model whose runs are not in the lab; not the baseline's."""
    if scope.record is None:
        return []
    cells = scope.record.cells
    there = {(cell.recipe, cell.base) for cell in cells if cell.run not in scope.absent}
    absent = dict.fromkeys((cell.recipe, cell.base) for cell in cells if (cell.recipe, cell.base) not in there)
    return [(recipe, base) for recipe, base in absent if recipe != scope.baseline]


def _absent_couples(scope: ReportScope, primary: Sequence[PrimaryQuestion]) -> list[tuple[str, str]]:
    """Return the pairs of recipes (right, left) to be tested of which a model is not in the lab yet."""
    out = [(recipe, scope.baseline) for recipe, _ in _absent_models(scope)]
    absent = set(_absent_models(scope))
    declared = dict.fromkeys((cell.recipe, cell.base) for cell in scope.record.cells) if scope.record else {}
    out += [
        (right, left)
        for right, base in declared
        for left, other in declared
        if base == other and left not in {right, scope.baseline} and {(right, base), (left, base)} & absent
        if any(_names_both(question, {right}, {left}) for question in primary)
    ]
    return out


def _tests_of_model(scope: ReportScope, requested: Sequence[str]) -> list[str]:
    """Return the measure of each test of one model: at each place, those declared or requested now."""
    from cerank.evaluation.measures import canonical

    given = [canonical(name, "--measure") for name in requested]
    tests: list[str] = []
    for test in scope.tests:
        declared = scope.measures.get(test, ()) if scope.record is not None or not given else ()
        tests += dict.fromkeys([*(canonical(name, test) for name in declared), *given])
    return tests * len(scope.first_stages)


def _declared(scope: ReportScope, names: Sequence[str], couples: Sequence[tuple[str, str]]) -> list[dict[str, Margin]]:
    """Return the margins, gains and harm margins that the plans of the compared runs declare."""
    runs = {
        row.model.label: margins_of.sources([(member.folder, member.plan) for member in row.members])
        for row in scope.rows
    }
    sides = [(runs.get(left, ()), runs[right]) for right, left in couples]
    return [margins_of.declared(names, sides, kind) for kind in get_args(margins_of.Kind)]


# --- tables


def results_tables(
    scope: ReportScope, data: Measurements, columns: Sequence[Place], verdicts: TestResults
) -> tuple[ResultsTable, ...]:
    """Return a table for each measure; the captions are left to `footnotes`."""
    rows = {
        (row.condition, row.measure, row.right): row
        for row in _rows(verdicts)
        if verdicts.pairs.get(row.right) == row.left
    }
    lefts = set(verdicts.pairs.values())
    models = [first_stage_model(), *(row.model for row in scope.rows)]
    models = [models[0], *sorted(models[1:], key=lambda model: _order(models, model))]
    out = []
    for key in _keys(data):
        lines = [
            ResultLine(
                model=model,
                is_baseline=model.label in lefts,
                cells=tuple(_cell(data, model, place, _named(data, place, key), rows) for place in columns),
            )
            for model in models
        ]
        out.append(ResultsTable(measure=key, places=tuple(columns), lines=_with_best(lines), caption=()))
    return tuple(out)


def _order(models: Sequence[Model], model: Model) -> int:
    """Sort the models so that those of one base model are adjacent, bases and recipes in the order given."""
    return next(place for place, other in enumerate(models) if other.base == model.base)


def _rows(verdicts: TestResults) -> tuple[Row, ...]:
    return verdicts.comparison.rows if verdicts.comparison else ()


def _keys(data: Measurements) -> list[str]:
    """Return what tells the tables apart: RR@10 and RR(rel=2)@10 are one, unless a test set is measured by both."""
    called = _calling(data)
    return list(dict.fromkeys(called(name) for names in data.measures.values() for name in names))


def _calling(data: Measurements) -> Callable[[str], str]:
    """Return what a measure's table is called: without its threshold, unless a test set has the measure twice."""
    plain = [[published.plain_measure(name) for name in names] for names in data.measures.values()]
    return published.plain_measure if all(len(set(names)) == len(names) for names in plain) else str


def _named(data: Measurements, place: Place, key: str) -> str:
    """Return the measure of that table on the place's test set; "" where it has none."""
    called = _calling(data)
    return next((name for name in data.measures.get(place.test, ()) if called(name) == key), "")


def _cell(
    data: Measurements, model: Model, place: Place, measure: str, rows: dict[tuple[Condition, str, str], Row]
) -> ResultCell:
    mean = mean_at(data.systems.get(model.label), place.condition, measure)
    row = rows.get((place.condition, measure, model.label))
    is_late = row is not None and row.judgment.is_late
    return ResultCell(measure=measure, value=mean, sign=_sign(row) if row else "", is_late=is_late)


def mean_at(system: System | None, condition: Condition, measure: str) -> float | None:
    """Return the mean over queries; None where there is none yet."""
    entry = at(system, condition) if system else None
    values = entry.values.get(measure) if entry else None
    return statistics.fmean(values.values()) if values else None


def _sign(row: Row) -> Sign:
    verdict = row.verdict
    if verdict in {"cannot tell", "identical", "descriptive"}:
        return ""
    if verdict == "different but negligible":
        return "negligibly better" if row.paired.difference > 0 else "negligibly worse"
    return cast("Sign", verdict)


def _with_best(lines: Sequence[ResultLine]) -> tuple[ResultLine, ...]:
    """Return the lines with the best of each column marked: all that read the same as the largest."""
    best = []
    for column in zip(*(line.cells for line in lines), strict=True):
        values = [round(cell.value, _DIGITS) for cell in column if cell.value is not None]
        best.append(max(values, default=None))
    out = []
    for line in lines:
        cells = [
            msgspec.structs.replace(cell, is_best=cell.value is not None and round(cell.value, _DIGITS) == top)
            for cell, top in zip(line.cells, best, strict=True)
        ]
        out.append(msgspec.structs.replace(line, cells=tuple(cells)))
    return tuple(out)


# --- beside the tables


def published_comparisons(tables: Sequence[ResultsTable]) -> tuple[PublishedComparison, ...]:
    """Return the means beside those of the papers that are shipped."""
    out = []
    for table in tables:
        for line in table.lines:
            for place, cell in zip(table.places, line.cells, strict=True):
                if cell.value is not None:
                    out += _figures(line.model, place, cell.measure, cell.value)
    return tuple(out)


def _figures(model: Model, place: Place, measure: str, value: float) -> list[PublishedComparison]:
    query = published.PublishedQuery(
        test=place.test,
        first_stage=place.first_stage,
        measure=measure,
        base=model.base,
        chain=model.chain,
        loss=model.loss,
        teacher=short_name(model.teacher),
        recipe=model.recipe,
    )
    return [
        PublishedComparison(
            paper=figure.paper,
            model=model.label,
            published_as=figure.label,
            test=place.heading,
            first_stage=place.condition.first_stage,
            measure=measure,
            ours=value,
            theirs=figure.value,
            remark="" if place.depth == figure.depth else f"depth {place.depth}, theirs {figure.depth}",
        )
        for figure in published.beside(query)
    ]


def place_statistics(scope: ReportScope, data: Measurements, columns: Sequence[Place]) -> tuple[PlaceStatistics, ...]:
    """Return what every ranking behind the tables is like."""
    out = []
    systems = [(FIRST, FIRST_STAGE, tuple(member for row in scope.rows for member in row.members)[:1])]
    systems += [(row.model.label, row.model.system, row.members) for row in scope.rows]
    for label, stage, members in systems:
        for place in columns:
            system = data.systems.get(label)
            entry = at(system, place.condition) if system else None
            if entry is None or entry.facts is None:
                continue
            facts = entry.facts
            out.append(
                PlaceStatistics(
                    place=f"{place.heading} over {place.condition.first_stage}",
                    system=label,
                    shallowest=facts.shallowest,
                    deepest=facts.deepest,
                    ties=facts.ties,
                    tied=tied(members, stage, place.test, place.first_stage),
                    judged=statistics.fmean(facts.judged.values()) if facts.judged else 0.0,
                    missing=len(entry.missing),
                )
            )
    return tuple(out)
