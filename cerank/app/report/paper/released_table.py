"""A paper's table printed again from the rankings that it released: its marks, and cerank's verdicts beside them.

Invariant: reading only, but for an archive that is unpacked into the cache; what is missing is named cell by cell, and
every mean and mark is computed from a ranking here, never copied from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.app.comparison.measuring import named_judgments
from cerank.app.comparison.named_systems import short_name
from cerank.core.rankings import Ranking
from cerank.datasets import aliases
from cerank.datasets.irds import catalog_qrels
from cerank.errors import CerankError, UsageError
from cerank.evaluation import published
from cerank.evaluation.compare import Comparison, compare
from cerank.evaluation.published import Paper, PublishedTable
from cerank.evaluation.studies.paper_test import PaperColumn, paper_column
from cerank.evaluation.systems import Condition, Measured, System, measured
from cerank.evaluation.verdicts.terms import Margin, Pairing, Terms
from cerank.importing.download import place_of
from cerank.importing.published_files import PUBLISHED_FILES
from cerank.importing.released_runs import FIRST_STAGE, ReleasedRun, find_runs, open_released
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, Value

_DIGITS = 3  # of published figures
_SIGNS = {
    "better": "↑",
    "worse": "↓",
    "equivalent": "≈",
    "different but negligible": "≈",
    "identical": "≈",
}


class ReleasedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to print again: the paper, the test sets and first stages, and where the rankings are."""

    paper: str  # `Paper.key`
    tests: tuple[str, ...]  # names of datasets, whose judgments are read
    first_stages: tuple[str, ...]
    path: Path | None = None  # an archive or folder; None takes the place of `cerank data fetch`
    margins: Mapping[str, float] = {}  # measure -> the largest difference that does not matter


class ReleasedTables(msgspec.Struct, frozen=True):
    """The tables, and what they lack."""

    tables: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()


class _PaperPlace(msgspec.Struct, frozen=True):
    """One column: what the paper calls it, and its condition here."""

    column: str  # as `PublishedTable.columns`
    test: str
    condition: Condition
    heading: str


def place_of_release(paper: Paper, cache: Path) -> Path:
    """Return where `cerank data fetch` puts the paper's archive."""
    return place_of(PUBLISHED_FILES.find(paper.released), cache / "downloads")


def lacks_release(paper_key: str, cache: Path) -> str:
    """Return in a sentence that the paper's released rankings are not here and how to get them; "" if they are."""
    paper = published.paper_of(paper_key)
    if paper is None or not paper.released or place_of_release(paper, cache).exists():
        return ""
    rows = sum(bool(row.run) for row in paper.tables[0].rows)
    return (
        f"Released rankings of {counted(rows, 'row')} of the paper's table are not here; no run needs them, the report "
        f"does: `cerank data fetch {paper.released}`, or place the archive at {place_of_release(paper, cache)}"
    )


def released_tables(settings: Settings, request: ReleasedRequest) -> ReleasedTables:
    """Return the paper's table from its released rankings, with the cells in which figures or marks differ.

    Raises:
        UsageError: there is no such paper; MissingError, FormatError: a path that the user named cannot be read.
    """
    paper = published.paper_of(request.paper)
    if paper is None or not paper.released:
        raise UsageError(f"no paper with released rankings is called '{request.paper}'", code="unknown-paper")
    path = request.path or place_of_release(paper, settings.cache)
    if request.path is None and not path.exists():
        return ReleasedTables(missing=(lacks_release(paper.key, settings.cache),))
    run_of = {
        (run.model, published.column_of(run.first_stage, run.dataset)): run
        for run in find_runs(open_released(path, settings.cache))
    }
    table = paper.tables[0]
    places = _places(table, request)
    if not places:
        return ReleasedTables(missing=(f"a test set and first stage of {paper.cited}",))
    columns: dict[str, PaperColumn] = {}
    entries: dict[str, list[Measured]] = {}
    missing: list[str] = []
    for place in places:
        column, rows, lacking = _column(settings, paper, table, place, run_of)
        missing += lacking
        if column is None:
            continue
        columns[place.column] = column
        for label, entry in rows.items():
            entries.setdefault(label, []).append(entry)
    if not columns:
        return ReleasedTables(missing=tuple(missing))
    verdicts = _verdicts(paper, table, entries, request)
    tested = [place for place in places if place.column in columns]
    tables = (_reprint(paper, table, tested, columns, verdicts), _deviations(paper, table, tested, columns, verdicts))
    return ReleasedTables(tables, tuple(missing))


def _places(table: PublishedTable, request: ReleasedRequest) -> list[_PaperPlace]:
    """Return the columns of the paper's table that the test sets and first stages give, in the paper's order."""
    named = {
        published.column_of(first, test): _PaperPlace(
            published.column_of(first, test),
            test,
            Condition(short_name(test), short_name(first)),
            f"{short_name(first)} {published.heading(test)}",
        )
        for test in request.tests
        for first in request.first_stages
    }
    return [named[column] for column in table.columns if column in named]


def _column(
    settings: Settings,
    paper: Paper,
    table: PublishedTable,
    place: _PaperPlace,
    run_of: Mapping[tuple[str, str], ReleasedRun],
) -> tuple[PaperColumn | None, dict[str, Measured], list[str]]:
    """Return a column by the paper's test, what each row scored, and which rankings are missing."""
    from cerank.trec.text_io import read_run

    rows_of_runs = [row for row in table.rows if row.run]
    absent = [f"{row.label} ({row.run})" for row in rows_of_runs if (row.run, place.column) not in run_of]
    which = "all" if len(absent) == len(rows_of_runs) else "; ".join(absent)
    lacking = [f"released rankings over {place.heading}: {which}"] if absent else []
    runs = {row.label: run_of[row.run, place.column] for row in table.rows if (row.run, place.column) in run_of}
    if not runs:
        return None, {}, lacking
    try:
        qrels = _judgments(settings, place.test)
    except CerankError as error:
        return None, {}, [f"judgments of {place.test}: {error.what}", *lacking]
    rankings = {label: read_run(run.path).ranking for label, run in runs.items()}
    first = next((rankings[label] for label, run in runs.items() if run.model == FIRST_STAGE), None)
    if first is not None and place.column.startswith("bm25"):
        candidates = {query: frozenset(first[query][: paper.depth]) for query in first}
        rankings = {label: _among(ranking, candidates) for label, ranking in rankings.items()}
    identity = named_judgments.identity(qrels)
    names = (table.measure,)
    rows = {label: measured(names, place.condition, qrels, identity, each) for label, each in rankings.items()}
    values = {
        label: {query: value for query, value in entry.values[table.measure].items() if query in rankings[label]}
        for label, entry in rows.items()
    }
    return paper_column(values, paper.baseline), rows, lacking


def _judgments(settings: Settings, test: str) -> named_judgments.Qrels:
    """Return a test set's judgments; of one in the catalog they alone have to be on this machine."""
    alias = aliases.ALIASES.get(test)
    return catalog_qrels(alias.id) if alias is not None else named_judgments.judgments(settings, test, "")[1]


def _among(ranking: Ranking, candidates: Mapping[str, frozenset[str]]) -> Ranking:
    """Return the ranking of the first stage's candidates alone: some released runs re-rank more of them."""
    pairs_of = {
        query: [
            (document, score)
            for document, score in zip(ranking[query], ranking.scores(query), strict=True)
            if document in candidates[query]
        ]
        for query in ranking
        if query in candidates
    }
    pairs_of = {query: pairs for query, pairs in pairs_of.items() if pairs}
    return Ranking(
        {query: [document for document, _ in pairs] for query, pairs in pairs_of.items()},
        {query: [score for _, score in pairs] for query, pairs in pairs_of.items()},
    )


def _verdicts(
    paper: Paper, table: PublishedTable, entries: Mapping[str, Sequence[Measured]], request: ReleasedRequest
) -> Comparison | None:
    """Compare every row with the paper's baseline in every column, corrected over all of them together."""
    baseline = entries.get(paper.baseline)
    if baseline is None:
        return None
    systems = [System(label=label, measured=tuple(rows), is_fixed=True) for label, rows in entries.items()]
    known = {entry.condition for entry in baseline}
    pairings = [
        Pairing(condition=entry.condition, measure=table.measure, left=paper.baseline, right=label)
        for label, rows in entries.items()
        if label != paper.baseline
        for entry in rows
        if entry.condition in known
    ]
    if not pairings:
        return None
    margins = {name: Margin(value=value, source="matrix") for name, value in request.margins.items()}
    declared = sum(bool(row.run) for row in table.rows) - 1
    family = max(declared * len({pairing.condition for pairing in pairings}), len(pairings))
    terms = Terms(margins={name: m for name, m in margins.items() if name == table.measure}, family=family)
    return compare(systems, (table.measure,), pairings=pairings, terms=terms)


def _verdict_of(comparison: Comparison | None, label: str, place: _PaperPlace) -> str:
    rows = comparison.rows if comparison else ()
    return next((row.verdict for row in rows if row.right == label and row.condition == place.condition), "")


def _reprint(
    paper: Paper,
    table: PublishedTable,
    places: Sequence[_PaperPlace],
    columns: Mapping[str, PaperColumn],
    comparison: Comparison | None,
) -> Table:
    def cell(label: str, place: _PaperPlace) -> str | None:
        column = columns[place.column]
        if label not in column.means:
            return None
        mark = "*" if label in column.different else ""
        sign = _SIGNS.get(_verdict_of(comparison, label, place), "")
        return f"{column.means[label]:.{_DIGITS}f}{mark} {sign}".rstrip()

    rows: list[tuple[Value, ...]] = [
        (row.label, *(cell(row.label, place) for place in places)) for row in table.rows if row.run
    ]
    queries = ", ".join(f"{len(columns[place.column].queries)} in {place.heading}" for place in places)
    notes = (
        f"*: different from {paper.baseline} by the paper's test: two-sided paired t-test, Holm over a column, at .05",
        f"the paper's test is on the queries that all runs of a column have: {queries}",
        f"↑ better, ↓ worse, ≈ equivalent: cerank's verdict against {paper.baseline}, on all judged queries (a missing "
        f"one counts 0), corrected over {comparison.terms.family if comparison else 0} comparisons together; no sign: "
        "these queries cannot tell",
    )
    names = (Column("model", "model"), *(Column(place.column.replace(" ", "_"), place.heading) for place in places))
    title = f"{table.measure} from the rankings that {paper.authors} released"
    return Table("released", names, tuple(rows), title, notes)


def _deviations(
    paper: Paper,
    table: PublishedTable,
    places: Sequence[_PaperPlace],
    columns: Mapping[str, PaperColumn],
    comparison: Comparison | None,
) -> Table:
    """Return the cells whose figure or mark is not the published one, or whose mark and verdict say different."""
    names = (
        Column("model", "model"),
        Column("place", "first stage and test set"),
        Column("published", "published", "number", _DIGITS),
        Column("computed", "computed", "number", _DIGITS),
        Column("published_mark", "published mark"),
        Column("computed_mark", "computed mark"),
        Column("p_corrected", "adjusted p", "p"),
        Column("verdict", "cerank's verdict"),
    )
    rows: list[tuple[Value, ...]] = []
    cells = same = 0
    for row in table.rows:
        for place in places:
            column = columns[place.column]
            if not row.run or row.label not in column.means:
                continue
            at = table.columns.index(place.column)
            mean, figure = column.means[row.label], row.values[at]
            marks = at in row.different, row.label in column.different
            verdict = _verdict_of(comparison, row.label, place)
            cells += 1
            is_same = abs(mean - figure) <= 0.5 * 10**-_DIGITS + 1e-9 and marks[0] == marks[1]
            same += is_same
            says_otherwise = verdict != "" and marks[1] != (verdict in {"better", "worse", "different but negligible"})
            if not is_same or says_otherwise:
                shown = tuple("*" if mark else "" for mark in marks)
                rows.append((row.label, place.heading, figure, mean, *shown, column.ps.get(row.label), verdict))
    note = f"{same} of {counted(cells, 'cell')} have the published figure and the published mark"
    if not rows:
        rows.append(("none", *[None] * (len(names) - 1)))
    title = f"Cells that differ from {paper.cited}, or in which its mark and cerank's verdict differ"
    return Table("released-differences", names, tuple(rows), title, (note,))
