"""What stands under a table of a report: the measure, the data, the test, the family, the correction, the margin.

Invariant: every number in a caption is read from the tables and the comparison they are about.
"""

from __future__ import annotations

from collections.abc import Sequence

from cerank.app.comparison.named_systems import FIRST_STAGE
from cerank.app.report.report_data import FIRST, Place, ResultCell, ResultsTable, Sign
from cerank.app.report.report_scope import ReportScope
from cerank.app.report.results_tables import TestResults
from cerank.evaluation.compare import Comparison
from cerank.evaluation.comparison_rows import METHODS
from cerank.evaluation.verdicts.terms import Margin

GLYPHS: dict[Sign, str] = {
    "": "",
    "better": "↑",
    "worse": "↓",
    "equivalent": "≈",
    "negligibly better": "≈↑",
    "negligibly worse": "≈↓",
}


def marks(cell: ResultCell) -> str:
    """Return the sign of a cell, with † where its margin was chosen after the results."""
    return GLYPHS[cell.sign] + ("†" if cell.is_late else "")


def caption(grid: ResultsTable, scope: ReportScope, verdicts: TestResults) -> tuple[str, ...]:
    """Return the sentences of one table."""
    return (
        _measure(grid),
        _data(grid.places),
        "Bold: the best of a column, to four decimals.",
        *_signs(grid, scope, verdicts),
        *_tests(scope, verdicts),
        _seeds(scope, verdicts),
    )


def _measure(grid: ResultsTable) -> str:
    """Return the measure, and how it is called where its relevance threshold differs."""
    names: dict[str, list[str]] = {}
    for place, cell in zip(grid.places, grid.lines[0].cells, strict=True):
        if cell.measure and place.heading not in names.setdefault(cell.measure, []):
            names[cell.measure].append(place.heading)
    if list(names) == [grid.measure]:
        return f"{grid.measure}, mean over queries."
    if len(names) == 1:
        return f"{next(iter(names))}, mean over queries."
    return (
        f"{grid.measure}, mean over queries: " + "; ".join(f"{n} on {', '.join(on)}" for n, on in names.items()) + "."
    )


def _data(places: Sequence[Place]) -> str:
    queries = dict.fromkeys(f"{place.queries:,} of {place.heading}" for place in places if place.queries)
    depth = max((place.depth for place in places), default=0)
    return f"Queries: {', '.join(queries)}. The first {depth:,} of each first stage are re-ranked and measured."


def baseline_text(scope: ReportScope, verdicts: TestResults) -> str:
    """Return the baseline with which every other row is compared, in words."""
    lefts = list(dict.fromkeys(verdicts.pairs.values()))
    if lefts == [FIRST] or scope.baseline == FIRST_STAGE:
        return "the first stage"
    return lefts[0] if len(lefts) == 1 else f"{scope.baseline} of the same base"


def _signs(grid: ResultsTable, scope: ReportScope, verdicts: TestResults) -> list[str]:
    """Return what the signs mean, those only that a table of this comparison may hold."""
    if verdicts.comparison is None:
        return []
    against = baseline_text(scope, verdicts)
    lines = [f"↑ and ↓: significantly better and worse than {against}."]
    if any(not row.is_primary for row in verdicts.comparison.rows):
        lines.append("Only rows that a primary question names are tested; the others have no sign.")
    margins = verdicts.comparison.terms.margins
    names = {cell.measure for line in grid.lines for cell in line.cells}
    for measure in sorted(names & margins.keys()):
        margin = margins[measure]
        when = f"declared {margin.declared or 'before the runs'}" if margin.before else "chosen after the results"
        because = f", because {margin.because}" if margin.because else ""
        text = f"≈: equivalent to it within ±{_size(margin, measure)} (two one-sided t-tests; margin {when}{because})"
        lines.append(f"{text}; ≈↑ and ≈↓: different, but by less than the margin.")
    if any(cell.is_late for line in grid.lines for cell in line.cells):
        lines.append("†: by a margin that was chosen after the results.")
    return lines


def _size(margin: Margin, measure: str) -> str:
    """Return a margin with its measure: 0.02 nDCG@10, or 5 % of the baseline's mean nDCG@10."""
    return f"{margin.shown} {measure}"


def _tests(scope: ReportScope, verdicts: TestResults) -> list[str]:
    comparison = verdicts.comparison
    if comparison is None:
        return []
    terms = comparison.terms
    level = f"{100 * (1 - terms.confidence):.3g} %"
    is_one = verdicts.family == 1
    what = "1 test" if is_one else f"the {verdicts.family:,} tests"
    whose = f"declared in matrix {scope.record.name} before its runs" if scope.record else "of this report"
    if scope.record and verdicts.family > _declared(scope, verdicts):
        whose += " or asked for since"
    method = METHODS[comparison.method]
    test = "Two-sided paired t-tests" if comparison.method != "max-t" else "Paired differences"
    if terms.claim == "recipes" and comparison.method != "max-t":
        test = "Two-sided t-tests over queries and seeds"
    lines = [f"{test}, {method} over {what} {whose} ({_product(scope, verdicts)}), level {level}."]
    open_ = verdicts.family - sum(row.is_primary for row in comparison.rows)
    if open_:
        are = "is" if open_ == 1 else "are"
        count = "counts" if open_ == 1 else "count"
        lines.append(f"{open_:,} of them {are} not shown or not measured yet and {count} as not rejected.")
    if scope.record and scope.baseline != scope.record.baseline:
        lines.append(f"The matrix declares {scope.record.baseline} as its baseline; this one was chosen afterwards.")
    return lines


def _declared(scope: ReportScope, verdicts: TestResults) -> int:
    """Return the number of tests of the declared measures."""
    return verdicts.models * len(scope.first_stages) * sum(len(names) for names in scope.measures.values())


def _product(scope: ReportScope, verdicts: TestResults) -> str:
    if scope.record is not None and scope.record.primary:
        return f"primary: {'; '.join(scope.record.primary)}"
    models = verdicts.models
    tests, firsts = len(scope.tests), len(scope.first_stages)
    is_even = len({len(names) for names in scope.measures.values()}) == 1
    each, rest = divmod(verdicts.family, max(1, models * tests * firsts))  # measures asked for now count, too
    measures = _count(each, "measure") if is_even and not rest else "the measures of each test set"
    places = f"{_count(tests, 'test set')} × {_count(firsts, 'first stage')}"
    return f"{_count(models, 'model')} × {places} × {measures}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _seeds(scope: ReportScope, verdicts: TestResults) -> str:
    seeds = {row.model.seeds for row in scope.rows}
    if len(seeds) == 1 and len(next(iter(seeds))) == 1:
        return f"One seed ({next(iter(seeds))[0]}): verdicts are about these checkpoints, not about recipes."
    if all(len(each) == 1 for each in seeds):
        return "One seed a model: verdicts are about these checkpoints, not about recipes."
    counts = sorted({len(each) for each in seeds})
    text = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if verdicts.comparison is None or verdicts.comparison.terms.claim == "checkpoints":
        return f"Each model is the mean of {text} seeds, query by query; verdicts are about these checkpoints."
    paired = [row.recipes.is_paired for row in verdicts.comparison.rows if row.recipes]
    how = ", as pairs," if paired and all(paired) else ", as pairs where two recipes share them," if any(paired) else ""
    return f"Each model is the mean of {text} seeds; verdicts are about recipes: seeds{how} count as a sample."


def notes_of(comparison: Comparison | None) -> tuple[str, ...]:
    """Return what a reader must know of the data, each once, with the rows it was said of counted."""
    places_of: dict[str, list[str]] = {}
    for row in comparison.rows if comparison else ():
        for note in row.notes:
            if note.kind not in {"zeros", "skewed"}:
                places_of.setdefault(f"{note.text}", []).append(str(row.condition))
    return tuple(f"{'; '.join(dict.fromkeys(where))}: {text}" for text, where in places_of.items())
