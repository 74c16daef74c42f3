"""Candidates for re-ranking: BM25 over the dataset's documents, a run it brings, or a TREC run file.

Invariant: the same documents, queries and settings give the same ranking bit for bit, with the index from the cache or
built anew; ties fall to the smaller document id.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking, ordered
from cerank.datasets.aliases import missing_run
from cerank.datasets.dataset import IGNORES_IDENTICAL_IDS, Dataset, Documents, without_identical_ids
from cerank.datasets.mixtures import joined
from cerank.errors import CerankError, UsageError
from cerank.files.hashing import sha256_text
from cerank.files.line_reader import local_path
from cerank.registry import Registry, nearest
from cerank.retrieval import bm25, known_candidates
from cerank.retrieval.known_candidates import Lookup
from cerank.text.safe_text import counted, shown
from cerank.trec.open_run import open_run_file, run_file_sha256
from cerank.trec.rows import RunFile

BM25 = "bm25"

# first stages of extensions: (query id -> text, documents, depth) -> query id -> document id -> score
Retriever = Callable[[Mapping[str, str], Documents, int], Mapping[str, Mapping[str, float]]]
RETRIEVERS: Registry[Retriever] = Registry("first stage")


def _unknown(dataset: Dataset, first_stage: str) -> CerankError:
    missing = missing_run(dataset.name, dataset.place, first_stage)
    if missing is not None:
        return missing
    hint = f"{nearest(first_stage, {BM25, *dataset.runs, *RETRIEVERS})}; or the path of a TREC run"
    what = f"no first stage '{shown(first_stage, 120)}' for dataset {dataset.name}"
    return UsageError(what, hint=hint, code="first-stage-not-found")


def is_built_in_bm25(dataset: Dataset, first_stage: str) -> bool:
    """Return whether BM25 must be computed; a run of that name that comes with the dataset takes precedence.

    Folders with the pooled candidates of a large collection bring bm25.run; BM25 over the pool would be another thing.
    """
    return first_stage == BM25 and BM25 not in dataset.runs


def _run_file(dataset: Dataset, first_stage: str) -> Path:
    path = local_path(first_stage)
    if not path.is_file():
        raise _unknown(dataset, first_stage)
    return path


def open_given_run(dataset: Dataset, first_stage: str) -> RunFile:
    """Return a run that comes with the dataset, or the run in a file."""
    return (
        dataset.run(first_stage)
        if first_stage in dataset.runs
        else open_run_file(_run_file(dataset, first_stage), dataset.cache)
    )


def check_exists(dataset: Dataset, first_stage: str) -> None:
    """Check that the dataset has this first stage, without reading a run or building an index.

    Raises:
        UsageError, MissingError: as `fingerprint`.
    """
    is_given = first_stage in dataset.runs or is_built_in_bm25(dataset, first_stage)
    if not is_given and first_stage not in RETRIEVERS:
        _run_file(dataset, first_stage)


def fingerprint(dataset: Dataset, first_stage: str) -> str:
    """Return the SHA-256 of everything that the candidates depend on apart from the queries.

    BM25's settings and documents, or the run's bytes.

    Raises:
        UsageError: no such first stage; MissingError: a known one whose run was not placed yet; and all that reading a
            run raises.
    """
    if _is_named_in_sets(dataset, first_stage):
        return sha256_text(" ".join(fingerprint(member, first_stage) for member in dataset.members.values()))
    if is_built_in_bm25(dataset, first_stage):
        sha256 = bm25.index_key(dataset.documents)
    elif first_stage not in dataset.runs:
        extension = RETRIEVERS.extension(first_stage)
        if extension is not None:
            sha256 = sha256_text(f"{dataset.documents.fingerprint()}\n{first_stage}\n{extension.sha256}")
        else:
            sha256 = run_file_sha256(_run_file(dataset, first_stage), dataset.cache)
    else:
        sha256 = dataset.run(first_stage).sha256 or sha256_text(f"{dataset.identity}\n{first_stage}")
    return sha256_text(f"{sha256} {IGNORES_IDENTICAL_IDS}") if dataset.ignores_identical_ids else sha256


def candidates(
    dataset: Dataset, first_stage: str, depth: int, cache: Path, query_ids: Sequence[str] | None = None
) -> Ranking:
    """Return the first `depth` documents of each query; queries without any are absent.

    Args:
        dataset: dataset with the queries to rank candidates for.
        first_stage: the name of a run that the dataset brings ("scoreddocs" from ir_datasets), "bm25", or the path of a
            TREC run. The dataset's own runs go before the built-in BM25.
        depth: at least 1; the document with the query's own id does not count where the dataset ignores identical ids.
        cache: folder of indexes; may be emptied at any time.
        query_ids: queries to rank, in this order; None ranks all of the dataset.

    Raises:
        UsageError: no such first stage, or it ranks none of the queries.
        FormatError: a malformed run.
    """
    queries = dataset.query_ids if query_ids is None else query_ids
    ignores = dataset.ignores_identical_ids
    if _is_named_in_sets(dataset, first_stage):
        return _candidates_in_sets(dataset, first_stage, depth, cache, query_ids)
    if is_built_in_bm25(dataset, first_stage):
        index = bm25.open_index(dataset.documents, cache)
        ranking = index.ranking({query: dataset.queries[query] for query in queries}, depth + ignores)
    elif first_stage not in dataset.runs and first_stage in RETRIEVERS:
        ranking = _computed_by_extension(dataset, first_stage, depth + ignores, queries)
    else:
        given = open_given_run(dataset, first_stage).ranking
        _check_not_empty(first_stage, given)
        ranking = given.only(queries).top(depth + ignores)
        if queries and not ranking:
            raise _ranks_none(dataset, first_stage, queries, given)
    if ignores:
        ranking = without_identical_ids(ranking, depth)
    if queries and not ranking:
        raise _ranks_none(dataset, first_stage, queries)
    if ranking and not is_built_in_bm25(dataset, first_stage) and known_candidates.finds_at_once(dataset):
        documents = (doc for query in ranking for doc in ranking[query])
        known_candidates.check_candidates(dataset, _in_words(first_stage), documents)
    return ranking


def check_given_run(dataset: Dataset, first_stage: str, depth: int) -> Lookup:
    """Check that a given run ranks a query of the dataset, and documents of its collection, as far as some tell.

    Of a mixture each set that brings a run of that name is asked. Queries are looked up until one is found, and
    candidates as `known_candidates.look_up` does. What is computed from the documents here is not asked.

    Args:
        dataset: dataset with the queries that are ranked.
        first_stage: as in `candidates`.
        depth: documents of a query that are used.

    Returns:
        How many candidates were looked up, those that the collection lacks, and notes on the file.

    Raises:
        UsageError: the run ranks none of the queries, or none of the documents, as one of another collection; or no
            such first stage.
        FormatError: a malformed run.
    """
    if _is_named_in_sets(dataset, first_stage):
        of_sets = [check_given_run(member, first_stage, depth) for member in dataset.members.values()]
        unknown = tuple(doc for lookup in of_sets for doc in lookup.unknown)
        notes = tuple(dict.fromkeys(note for lookup in of_sets for note in lookup.notes))
        return Lookup(sum(lookup.looked_up for lookup in of_sets), unknown, notes)
    is_computed = first_stage not in dataset.runs and first_stage in RETRIEVERS
    if is_computed or is_built_in_bm25(dataset, first_stage):
        return Lookup()
    run = open_given_run(dataset, first_stage)
    queries, given = dataset.query_ids, run.ranking
    _check_not_empty(first_stage, given)
    if queries and not any(query in given for query in queries):
        raise _ranks_none(dataset, first_stage, queries, given)
    lookup = known_candidates.look_up(dataset, _in_words(first_stage), given, depth)
    is_told = first_stage in dataset.runs or known_candidates.finds_at_once(dataset)
    unasked = () if is_told else (f"nobody looked whether {dataset.name} has its candidates: {_NOT_INDEXED}",)
    return msgspec.structs.replace(lookup, notes=(*run.notes, *unasked))


_NOT_INDEXED = "ir_datasets has no index of these documents on this machine yet"


def _in_words(first_stage: str) -> str:
    return f"first stage '{shown(first_stage, 120)}'"


def _check_not_empty(first_stage: str, given: Ranking) -> None:
    if not given:
        hint = "did the search that wrote it fail?"
        raise UsageError("the run is empty", where=shown(first_stage, 200), hint=hint, code="run-empty")


def _ranks_none(
    dataset: Dataset, first_stage: str, queries: Sequence[str], given: Iterable[str] | None = None
) -> UsageError:
    """Return the error for a first stage that ranks none of the queries; `given` are the query ids of its run."""
    of = f"the {counted(len(queries), 'query')} of {dataset.name}"
    own = f"queries of {dataset.name} are called {', '.join(shown(query, 40) for query in queries[:3])}"
    theirs = [shown(query, 40) for query in itertools.islice(given or (), 3)]
    what = f"{_in_words(first_stage)} ranks none of {of}"
    hint = f"is the run from this dataset? {own[0].upper()}{own[1:]}{', those of the run ' if theirs else ''}"
    return UsageError(what, hint=hint + ", ".join(theirs), code="no-ranked-query")


def _is_named_in_sets(dataset: Dataset, first_stage: str) -> bool:
    """Return whether each set of a mixture has a first stage of that name, so that it ranks its own documents."""
    is_named = first_stage == BM25 or first_stage in dataset.runs or first_stage in RETRIEVERS
    return bool(dataset.members) and is_named


def _candidates_in_sets(
    dataset: Dataset, first_stage: str, depth: int, cache: Path, query_ids: Sequence[str] | None
) -> Ranking:
    """Return the candidates of a mixture's queries, each from the documents of its own set; None takes all queries."""
    rankings = {}
    for number, member in dataset.members.items():
        own = None
        if query_ids is not None:
            own = [query.partition(":")[2] for query in query_ids if query.partition(":")[0] == number]
        if own is None or own:
            rankings[number] = candidates(member, first_stage, depth, cache, own)
    return joined(rankings) if query_ids is None else joined(rankings).only(query_ids)


def _computed_by_extension(dataset: Dataset, first_stage: str, depth: int, query_ids: Sequence[str]) -> Ranking:
    """Return what the first stage of an extension gives; ties fall to the smaller document id.

    Raises:
        UsageError: it ranks a document that the dataset lacks, or a score is not finite.
    """
    queries = {query: dataset.queries[query] for query in query_ids}
    scores = RETRIEVERS[first_stage](queries, dataset.documents, depth)
    for query, of_query in scores.items():
        unknown = [doc for doc in of_query if doc not in dataset.documents] if query in queries else [query]
        if unknown:
            what = f"first stage '{first_stage}' ranks what {dataset.name} does not have: {shown(unknown[0], 80)}"
            raise UsageError(what, where=dataset.name)
    try:
        ranking = ordered({query: scores[query] for query in query_ids if scores.get(query)})
    except ValueError as error:
        raise UsageError(f"first stage '{first_stage}': {error}", where=dataset.name) from error
    return ranking.top(depth)
