"""Retrieve from a closed collection by a cross-encoder alone, and compare that with re-ranking at equal calls.

Invariant: a training query with the same text as a query to retrieve for indexes nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app import reranked_passages
from cerank.app.comparison import margins as margins_of
from cerank.app.lab import Lab
from cerank.app.rerank_dataset import STDOUT, checkpoint_folder
from cerank.core.rankings import Ranking, ordered
from cerank.core.seeds import derive
from cerank.datasets.dataset import Dataset, without_identical_ids
from cerank.errors import UsageError
from cerank.files import disk
from cerank.machine import process_environment
from cerank.machine.device_locks import hold_gpu
from cerank.machine.devices import physical_cores, resolve_device
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.retrieval import cur_retrieval
from cerank.retrieval.cur_retrieval import ADACUR, ANNCUR, CurSettings
from cerank.retrieval.score_matrix import ScoreMatrix
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison
    from cerank.inference.rerank import Scorer

BEST = (1, 10, 50, 100)  # how many of the documents that the cross-encoder puts first are looked for
TEXTS_AT_ONCE = 512  # of a row of the index, documents or their passages; bounds the tokens in memory
TRAIN_QUERIES = 200


class RetrievalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to retrieve, with which cross-encoder, and at what cost."""

    base: str  # the cross-encoder: a model folder, a hub id, a run, or RUN:STAGE
    dataset: str  # gives queries and documents
    method: str
    budget: int  # calls of the cross-encoder for a query
    train: str = ""  # dataset of the training queries; "": that of the run's recipe
    train_queries: int = TRAIN_QUERIES  # of them the first ones
    anchors: int = 0  # 0: half of the budget for ANNCUR, an equal share of each round for ADACUR
    rounds: int = 5
    rcond: float = 1e-3
    seed: int = 42
    precision: str | None = None  # None: the run's, as in `cerank rerank`
    document_template: str = ""  # text of a document from its fields; "": as the model's run had it, if it is of one
    passages: PassageSpec | None = None  # how documents are cut; None: as the model's run did, if it is of one
    output: Path | None = None
    replace: bool = False
    first_stage: str = "bm25"  # what re-ranking at equal calls is measured over
    measure: str = "nDCG@10"
    margins: tuple[str, ...] = ()
    now: str = ""  # UTC, ISO 8601

    def settings(self, method: str) -> CurSettings:
        """Return how a method spends the budget."""
        share = self.budget // 2 if method == ANNCUR else self.budget // max(1, self.rounds)
        return CurSettings(
            method=method,
            budget=self.budget,
            anchors=self.anchors or max(1, share),
            rounds=self.rounds,
            rcond=self.rcond,
            seed=self.seed,
        )


class RetrievalResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a retrieval gave."""

    queries: int
    run: bytes  # the TREC run as text
    notes: tuple[str, ...]


class _Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What a retrieval reads: the collection, its queries, and the training queries of its index."""

    folder: Path  # of the cross-encoder
    searched: Dataset  # as a first stage reads it
    dataset: Dataset  # as the cross-encoder reads it
    passages: PassageSpec | None  # how the cross-encoder's documents are cut
    precision: str | None
    doc_ids: tuple[str, ...]
    train: tuple[tuple[str, str], ...]  # id and text
    notes: tuple[str, ...]


def retrieve(
    settings: Settings, request: RetrievalRequest, progress: Callable[[str, int, int], None]
) -> RetrievalResult:
    """Retrieve for every query of the dataset, and write the TREC run if the request names a file.

    Args:
        settings: where the lab and caches are, and on what device to score.
        request: what to retrieve.
        progress: called with what is done, the number of queries done, and of all.

    Raises:
        UsageError: a method, budget, model or dataset that does not do; MissingError: there is no such model.
    """
    _check_output(request)
    sources = _sources(settings, request, (request.method,))
    with _scorer(settings, sources) as (scorer, key):
        index = _index(settings, key, scorer, sources, progress)
        ranking = cur_retrieval.retrieve(
            index,
            list(sources.dataset.queries),
            _calls(scorer, sources),
            request.settings(request.method),
            lambda done, total: progress("queries", done, total),
        )
    run = _written(request, _results(sources.dataset, ranking))
    return RetrievalResult(queries=len(ranking), run=run, notes=sources.notes)


class RetrievalComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both methods beside re-ranking a first stage, at the same number of calls."""

    budget: int
    documents: int
    train_queries: int
    comparison: Comparison
    result: RetrievalResult | None  # of the requested method, where a file was asked for
    notes: tuple[str, ...]


def compare(
    settings: Settings, request: RetrievalRequest, progress: Callable[[str, int, int], None]
) -> RetrievalComparison:
    """Compare ANNCUR, ADACUR and re-ranking the first stage at equal calls, against the exact cross-encoder.

    All scores of the queries with all documents are computed for it, once, and kept in the cache.

    Raises:
        UsageError: as `retrieve`; or the dataset has no judgments.
    """
    from cerank.evaluation.measures import check, per_query
    from cerank.retrieval.first_stage import candidates

    _check_output(request)
    sources = _sources(settings, request, (ANNCUR, ADACUR))
    dataset = sources.dataset
    if not dataset.qrels:
        raise UsageError("it has no qrels, so nothing can be compared", where=dataset.name)
    check([request.measure], dataset.qrels, "--measure")
    first = candidates(sources.searched, request.first_stage, request.budget, settings.cache)
    with _scorer(settings, sources) as (scorer, key):
        index = _index(settings, key, scorer, sources, progress)
        exact = ScoreMatrix.in_cache(settings.cache, key, list(dataset.queries.items()), sources.doc_ids)
        exact.build(
            lambda query: _row(scorer, sources, query, dataset.queries[query]),
            lambda done, total: progress("exact scores", done, total),
        )
    rows = {query: exact.row(query) for query in dataset.queries}

    def known(places_of: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
        return {query: [float(rows[query][place]) for place in places] for query, places in places_of.items()}

    places = {doc: place for place, doc in enumerate(sources.doc_ids)}
    filled = {query: _filled(first.get(query, ()), query, sources.doc_ids, request) for query in dataset.queries}
    by_first_stage = {query: {doc: float(rows[query][places[doc]]) for doc in docs} for query, docs in filled.items()}
    rankings = {f"{request.first_stage} + re-ranking": _results(dataset, ordered(by_first_stage, filled))}
    for method in (ANNCUR, ADACUR):
        ranking = cur_retrieval.retrieve(index, list(dataset.queries), known, request.settings(method))
        rankings[method] = _results(dataset, ranking)
    everything = _results(
        dataset,
        ordered({query: dict(zip(sources.doc_ids, map(float, row), strict=True)) for query, row in rows.items()}),
    )
    comparison = _compared(request, dataset, everything, rankings)
    whole = per_query([comparison.measures[0]], dataset.qrels, everything)[comparison.measures[0]]
    result = None
    if request.output is not None:
        ranking = rankings[request.method]
        result = RetrievalResult(queries=len(ranking), run=_written(request, ranking), notes=())
    short = sum(len(first.get(query, ())) < request.budget for query in dataset.queries)
    mean = math.fsum(whole.values()) / len(whole)
    notes = [
        *sources.notes,
        f"with all {len(sources.doc_ids):,} documents scored, {comparison.measures[0]} is {mean:.4f}",
    ]
    if short:
        of = f"{short} of {counted(len(dataset.queries), 'query')}"
        notes.append(
            f"{request.first_stage} retrieves fewer than {request.budget} documents for {of}; they were filled up at "
            "random, so that the calls are equal"
        )
    return RetrievalComparison(
        budget=request.budget,
        documents=len(sources.doc_ids),
        train_queries=len(sources.train),
        comparison=comparison,
        result=result,
        notes=tuple(notes),
    )


def _results(dataset: Dataset, ranking: Ranking) -> Ranking:
    """Return a ranking without each query's own document, where the dataset does not count it as a result."""
    return without_identical_ids(ranking) if dataset.ignores_identical_ids else ranking


def _filled(docs: Sequence[str], query: str, doc_ids: Sequence[str], request: RetrievalRequest) -> list[str]:
    """Return a query's candidates, filled up to the budget with other documents in a random order."""
    if len(docs) >= request.budget:
        return list(docs)
    known = set(docs)
    others = sorted(
        (doc for doc in doc_ids if doc not in known), key=lambda doc: derive(request.seed, "fill", query, doc)
    )
    return [*docs, *others[: request.budget - len(docs)]]


def _sources(settings: Settings, request: RetrievalRequest, methods: Sequence[str]) -> _Sources:
    """Open what is needed and check the budget on it, before a model is loaded."""
    from cerank.datasets.document_fields import with_template
    from cerank.datasets.open_datasets import open_dataset

    if request.method not in cur_retrieval.METHODS:  # before anything slow
        request.settings(request.method).check(request.budget, 1)
    Lab(settings).check_device(settings.device)
    folder = checkpoint_folder(settings.lab, request.base)
    passages, forms, notes_of_run = reranked_passages.as_in_run(request.passages, request.document_template, folder)
    precision = request.precision
    if precision is None:
        precision, more = reranked_passages.precision_of_run(folder, resolve_device(settings.device))
        notes_of_run += more
    searched = with_template(open_dataset(request.dataset, settings.cache), forms.template, "--template")
    dataset = with_template(searched, forms.base_template, "base_template")
    name = request.train or _training_of(settings, request.base)
    train = open_dataset(name, settings.cache)
    texts = set(dataset.queries.values())
    shared = [query for query, text in train.queries.items() if text in texts]
    usable = [(query, text) for query, text in train.queries.items() if text not in texts]
    chosen = tuple(usable[: request.train_queries])
    doc_ids = tuple(doc for doc, _ in dataset.documents)
    for method in methods:
        request.settings(method).check(len(doc_ids), len(chosen))
    notes = [f"the index has the scores of {counted(len(chosen), 'query')} of {name} with {len(doc_ids):,} documents"]
    if shared:
        notes.append(f"{counted(len(shared), 'query')} of {name} are among those to retrieve for, and index nothing")
    return _Sources(
        folder=folder,
        searched=searched,
        dataset=dataset,
        passages=passages,
        precision=precision,
        doc_ids=doc_ids,
        train=chosen,
        notes=(*notes_of_run, *notes),
    )


def _training_of(settings: Settings, base: str) -> str:
    """Return the training dataset of the run that the cross-encoder comes from.

    Raises:
        UsageError: it comes from no run of the lab.
    """
    try:
        return run_store.load_plan(run_store.find(settings.lab, base.partition(":")[0])).recipe.data.train
    except UsageError as error:
        hint = "give --train DATASET, other queries than those to retrieve for"
        what = f"'{base}' is no run of the lab, so there are no training queries to index with"
        raise UsageError(what, where="--train", hint=hint, code="no-train-query") from error


def _check_output(request: RetrievalRequest) -> None:
    output = request.output
    reranked_passages.check_request(
        request.passages, None, output or Path("-"), is_server=False, is_shard=False, replace=request.replace
    )
    if output is None or str(output) in STDOUT:
        return
    if not output.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(output))
    if output.exists() and not request.replace:
        raise UsageError(
            "the file exists already", where=str(output), hint="--replace overwrites it", code="file-exists"
        )


@contextlib.contextmanager
def _scorer(settings: Settings, sources: _Sources) -> Iterator[tuple[Scorer, tuple[str, ...]]]:
    """Load the cross-encoder, and hold its device; with the key of its scores on the collection."""
    from cerank.inference.rerank import Scorer
    from cerank.inference.score_cache import score_cache_key
    from cerank.kernels.determinism import make_deterministic

    os.environ |= process_environment.CUDA_ENVIRONMENT  # read once, when CUDA starts
    device = resolve_device(settings.device)
    threads = settings.threads or physical_cores()
    with hold_gpu(device, settings.lab, "cerank retrieve"):
        make_deterministic(device, threads)
        scorer = Scorer.load(sources.folder, device, sources.precision)
        reranked_passages.use_passages(sources.passages, scorer, sources.dataset)
        model = scorer.checkpoint + scorer.scored_text
        if sources.passages is not None:  # the matrix holds scores of documents, unlike the cache of `cerank rerank`
            model += f" {sources.passages.first_aggregation} {sources.passages.top}"
        collection = sources.dataset.documents.fingerprint()
        key = score_cache_key(model, collection, device=device, threads=threads, precision=scorer.precision)
        yield scorer, key


def _index(
    settings: Settings,
    key: tuple[str, ...],
    scorer: Scorer,
    sources: _Sources,
    progress: Callable[[str, int, int], None],
) -> ScoreMatrix:
    """Return the scores of the training queries with all documents, from the cache or computed there."""
    texts = dict(sources.train)
    matrix = ScoreMatrix.in_cache(settings.cache, key, sources.train, sources.doc_ids)
    matrix.build(
        lambda query: _row(scorer, sources, query, texts[query]),
        lambda done, total: progress("index", done, total),
    )
    return matrix


def _row(scorer: Scorer, sources: _Sources, query: str, text: str) -> list[float]:
    """Return a query's scores with all documents, some hundreds at a time."""
    out: list[float] = []
    at_once = max(1, TEXTS_AT_ONCE // (sources.passages.max_passages if sources.passages is not None else 1))
    for start in range(0, len(sources.doc_ids), at_once):
        part = sources.doc_ids[start : start + at_once]
        scores = scorer.score_candidates({query: part}, lambda _ids: [text], sources.dataset.documents.texts)
        out += [scores[query][doc] for doc in part]
        scorer.clear()
    return out


def _calls(scorer: Scorer, sources: _Sources) -> cur_retrieval.ScorePlaces:
    """Return what scores queries of the dataset with documents by their places."""
    dataset = sources.dataset

    def score(places_of: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
        candidates_of = {query: [sources.doc_ids[place] for place in places] for query, places in places_of.items()}
        scores = scorer.score_candidates(
            candidates_of, lambda ids: [dataset.queries[query] for query in ids], dataset.documents.texts
        )
        scorer.clear()
        return {query: [scores[query][doc] for doc in docs] for query, docs in candidates_of.items()}

    return score


def _written(request: RetrievalRequest, ranking: Ranking) -> bytes:
    """Write the TREC run if the request names a file, and return it as text."""
    from cerank.trec.text_io import write_run

    packed = write_run(ranking, f"{request.method}-{request.budget}")
    plain = gzip.decompress(packed)
    if request.output is not None and str(request.output) not in STDOUT:
        disk.write(request.output.resolve(), packed if request.output.suffix == ".gz" else plain)
    return plain


def _compared(
    request: RetrievalRequest, dataset: Dataset, everything: Ranking, rankings: Mapping[str, Ranking]
) -> Comparison:
    """Compare by the measure on the qrels, and by the recall of what the cross-encoder puts first, as one family."""
    from cerank.app.comparison.measuring.named_judgments import identity
    from cerank.evaluation.compare import Condition, System, compare, measured
    from cerank.evaluation.measures import canonical
    from cerank.evaluation.verdicts.terms import Pairing, Terms

    recall, measure = f"R@{request.budget}", canonical(request.measure, "--measure")
    systems, pairings = [], list[Pairing]()
    labels = list(rankings)
    conditions = {Condition(dataset.name): (measure, {q: dict(row) for q, row in dataset.qrels.items()})}
    for count in (count for count in BEST if count <= request.budget):
        best = {query: dict.fromkeys(everything[query][:count], 1) for query in everything}
        conditions[Condition(f"{dataset.name}: exact top {count}")] = (recall, best)
    for label, ranking in rankings.items():
        rows = [
            measured([name], condition, qrels, identity(qrels), ranking)
            for condition, (name, qrels) in conditions.items()
        ]
        systems.append(System(label=label, measured=tuple(rows), is_fixed=True))
    for condition, (name, _) in conditions.items():
        for left, right in ((0, 1), (0, 2), (1, 2)):
            pairings.append(Pairing(condition=condition, measure=name, left=labels[left], right=labels[right]))
    typed = margins_of.typed_by_measure(request.margins)
    now = request.now or datetime.now(UTC).isoformat(timespec="seconds")
    terms = Terms(margins=margins_of.chosen(typed, {}, now=now, because=""), pairs="all")
    return compare(systems, (measure, recall), pairings=pairings, terms=terms)


def table(done: RetrievalComparison) -> Table:
    """Return the comparison for people: a row for each pair, by the measure and by each recall."""
    from cerank.evaluation.answers import shown
    from cerank.evaluation.comparison_rows import notes_beyond

    columns = (
        Column("what", "measured"),
        Column("system", "system", "name"),
        Column("against", "against", "name"),
        Column("mean", "mean", "number"),
        Column("mean_against", "mean against", "number"),
        Column("difference", "difference", "signed"),
        Column("low", "low", "signed", priority=1),
        Column("high", "high", "signed", priority=1),
        Column("verdict", "verdict"),
        Column("p", "p", "p", priority=4),
        Column("p_corrected", "adjusted p", "p", priority=2),
    )
    rows = []
    for row in done.comparison.rows:
        exact = row.condition.dataset.rpartition(": exact ")[2]
        rows.append(
            (
                f"recall of exact {exact}" if ": exact top " in row.condition.dataset else row.measure,
                *(row.right, row.left, row.paired.mean_right, row.paired.mean_left, row.paired.difference),
                *(row.judgment.low, row.judgment.high, shown(row.judgment, row.paired.difference)),
                *(row.judgment.p, row.judgment.p_corrected),
            )
        )
    title = f"At {done.budget} calls of the cross-encoder a query, of {done.documents:,} documents"
    notes = (
        *done.notes,
        "exact top k: the k documents that the cross-encoder puts first among all documents of the collection",
        f"{done.comparison.family} comparisons corrected together ({done.comparison.method}); low, high: simultaneous",
    )
    notes += notes_beyond(
        (f"{row.right} against {row.left} by {row.measure} on {row.condition}", row.judgment)
        for row in done.comparison.rows
    )
    return Table("retrieval", columns, tuple(rows), title, notes)
