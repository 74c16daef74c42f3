"""A teacher's rankings on disk: a TREC run, and beside it everything about its making.

Invariant: the folder of a teacher holds rankings of that teacher alone (its name ends in the identity's hash); further
queries are added, and the answers that all of it was read from are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import FormatError
from cerank.files import disk, json_records
from cerank.retrieval.teachers import Repairs
from cerank.teachers.engines.engine import Usage
from cerank.teachers.work import QueryReport, summed
from cerank.trec.open_run import open_run_file
from cerank.trec.text_io import write_run

RUN, PROVENANCE, QUERIES = "ranking.run.gz", "teacher.json", "queries.jsonl"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The provenance of a teacher's rankings: model, prompt, settings, tokens and cost; stored as `teacher.json`."""

    name: str
    identity: str
    kind: str
    model: str
    place: str  # the host that the passages were sent to, or "in process"
    has_scores: bool
    decisive: dict[str, object]  # settings, the template's hash, a local model's hash, members
    documents: str  # fingerprint
    datasets: tuple[str, ...]  # whose queries were ranked
    first_stage: str
    queries: int
    failed: dict[str, int] = {}  # reason -> queries without a ranking
    calls: int = 0  # answers that the rankings rest on
    usage: Usage = Usage()
    tokens_are_estimated: bool = False
    cost: float | None = None  # price of all answers by the price table, whatever they were made for
    currency: str = ""
    price_date: str = ""
    repairs: Repairs = Repairs()
    unchanged_windows: int = 0
    windows: int = 0
    unlisted_identifiers: int = 0
    bound_scores: int = 0
    created: str = ""
    version: str = ""


def load_reports(folder: Path) -> dict[str, QueryReport]:
    """Return the reports of the queries that were asked for before, ranked or failed."""
    try:
        lines = (folder / QUERIES).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    try:
        reports = [json_records.decode(line, QueryReport) for line in lines]
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = "remove it: it is written anew, and answers are kept apart"
        raise FormatError(f"the file cannot be read: {error}", where=str(folder / QUERIES), hint=hint) from None
    return {report.query: report for report in reports}


def load_ranking(folder: Path) -> Ranking:
    """Return the rankings that were made before; an empty one where there are none."""
    path = folder / RUN
    return open_run_file(path, None).ranking if path.is_file() else Ranking({}, {})


def merged(before: Ranking, new: Ranking) -> Ranking:
    """Return both rankings; of a query in both, the new one."""
    queries = {**dict.fromkeys(before), **dict.fromkeys(new)}
    sources = {query: new if query in new else before for query in queries}
    return Ranking(
        {query: source[query] for query, source in sources.items()},
        {query: source.scores(query) for query, source in sources.items()},
    )


def save(folder: Path, ranking: Ranking, reports: Mapping[str, QueryReport], provenance: Provenance) -> None:
    """Write the rankings of a teacher; each file whole or not at all, the run last."""
    disk.make_folder(folder)
    lines = b"".join(msgspec.json.encode(report) + b"\n" for report in reports.values())
    disk.write(folder / QUERIES, lines)
    json_records.save(folder / PROVENANCE, provenance)
    disk.write(folder / RUN, write_run(ranking, "-".join(provenance.name.split()) or "teacher"))


def counts(reports: Mapping[str, QueryReport]) -> dict[str, object]:
    """Return the fields of a provenance that are sums over its queries."""
    rows = list(reports.values())
    windows = [window for report in rows for window in report.windows]
    failed: dict[str, int] = {}
    usage = Usage()
    for report in rows:
        usage = usage.plus(report.usage)
        if report.failure:
            failed[report.failure] = failed.get(report.failure, 0) + 1
    return {
        "queries": sum(not report.failure for report in rows),
        "failed": failed,
        "calls": sum(report.calls for report in rows),
        "windows": sum(report.calls for report in rows),
        "usage": usage,
        "repairs": summed(rows),
        "unchanged_windows": sum(window.is_unchanged for window in windows),
        "unlisted_identifiers": sum(window.unlisted for window in windows),
        "bound_scores": sum(window.is_bound for window in windows),
    }
