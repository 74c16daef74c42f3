"""Mine candidates for negatives: by a first stage, a bi-encoder, or a re-ranker of an earlier run.

The file is a TREC run, best first. A bi-encoder and a re-ranker score the judged positives, too, so that the same file
serves a stage as the scores of its filters; a stage never takes a positive for a negative. A re-ranker of a run reads
documents as it was trained to: by the template of its recipe, and in passages.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

import cerank
from cerank.app import reranked_passages
from cerank.app.lab import Lab
from cerank.app.rerank_dataset import checkpoint_folder
from cerank.app.score_pairs import score_by_model
from cerank.core.rankings import Ranking, ordered
from cerank.datasets.dataset import Dataset
from cerank.datasets.document_fields import with_template
from cerank.errors import UsageError
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_file
from cerank.inference.bi_encoders import is_bi_encoder, read_bi_encoder
from cerank.machine.devices import physical_cores, resolve_device
from cerank.models import bases
from cerank.retrieval import first_stage
from cerank.retrieval.mined_files import MinedFrom, provenance_path
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown
from cerank.trec.open_run import open_run_file
from cerank.trec.text_io import write_run

Progress = Callable[[str, int, int], None]  # (what is counted, number done, number of all)


class MiningRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to mine candidates for, by which model, and where to write them."""

    dataset: str
    by: str  # a first stage, a bi-encoder's folder or hub id, a run, RUN:STAGE, or a re-ranker's folder
    output: Path
    depth: int = 100
    first_stage: str = ""  # whose candidates a re-ranker orders; "": bm25
    document_template: str = ""  # text of a document from its fields; "": as the re-ranker's run had it
    relevance: int | None = None  # smallest grade of a positive, which a model scores, too; None: 1
    replace: bool = False
    now: datetime


class Mined(msgspec.Struct, frozen=True, kw_only=True):
    """Mined candidates on disk."""

    path: Path
    provenance: MinedFrom
    notes: tuple[str, ...] = ()


class _FoundCandidates(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates, and the model that found them."""

    dataset: Dataset  # as the model read it
    ranking: Ranking
    by: str
    model_sha256: str
    settings: dict[str, str | int] = {}
    device: str = ""
    notes: tuple[str, ...] = ()


def mine(settings: Settings, request: MiningRequest, progress: Progress) -> Mined:
    """Find candidates for every query of the dataset, and write them with their provenance.

    Args:
        settings: where the lab and caches are, and on what device to compute.
        request: what to mine.
        progress: called with what is counted, how much of it is done, and all of it.

    Raises:
        UsageError: no such model or dataset, or the output exists or cannot be written.
    """
    from cerank.datasets.open_datasets import open_dataset

    _check_output(request)
    candidates = _found(settings, request, open_dataset(request.dataset, settings.cache), progress)
    dataset = candidates.dataset
    tag = "-".join(Path(request.by).name.split()) or "mined"
    packed = write_run(candidates.ranking, tag)
    path = request.output.resolve()
    disk.write(path, packed if path.suffix == ".gz" else gzip.decompress(packed))
    provenance = MinedFrom(
        by=candidates.by,
        model=request.by,
        model_sha256=candidates.model_sha256,
        dataset=request.dataset,
        documents_sha256=dataset.documents.fingerprint(),
        queries=len(candidates.ranking),
        candidates=sum(len(candidates.ranking[query]) for query in candidates.ranking),
        depth=request.depth,
        settings={**candidates.settings, "relevance": request.relevance or 1},
        device=candidates.device,
        sha256=sha256_file(path),
        created=request.now.isoformat(timespec="seconds"),
        version=cerank.__version__,
    )
    json_records.save(provenance_path(path), provenance)
    notes = list(candidates.notes)
    if not dataset.qrels:
        notes.append("the dataset has no judgments, so a relevant document may be among the candidates")
    absent = len(dataset.queries) - len(candidates.ranking)
    notes += [f"{counted(absent, 'query')} of {len(dataset.queries)} have no candidates"] if absent else []
    return Mined(path=path, provenance=provenance, notes=tuple(notes))


def _check_output(request: MiningRequest) -> None:
    """Check that the output can be written.

    Raises:
        UsageError: it exists already, or its folder does not.
    """
    output = request.output
    if not output.resolve().parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(output), code="folder-not-found")
    if output.exists() and not request.replace:
        raise UsageError(
            "the file exists already", where=str(output), hint="--replace overwrites it", code="file-exists"
        )


def _found(settings: Settings, request: MiningRequest, dataset: Dataset, progress: Progress) -> _FoundCandidates:
    """Return the candidates by whatever `by` names: first stages go before folders, and these before runs."""
    by = request.by
    if by == first_stage.BM25 or by in dataset.runs or by in first_stage.RETRIEVERS:
        return _by_first_stage(settings, request, dataset)
    path = Path(by).expanduser()
    if path.is_file():
        open_run_file(path, None)  # an error of its own for a file that is no run
        return _by_first_stage(settings, request, dataset)
    folder = _model_folder(by)
    if folder is not None and is_bi_encoder(folder):
        return _by_bi_encoder(settings, request, dataset, folder, progress)
    return _by_reranker(settings, request, dataset, progress)


def _model_folder(by: str) -> Path | None:
    """Return the folder of a model given by a short name, a path or a hub id; None for the name of a run."""
    path = Path(by).expanduser()
    if path.is_dir():
        return path.resolve()
    is_hub_id = by.count("/") == 1 and not by.startswith((".", "~", "/"))
    return bases.locate(by).folder if by in bases.BASES or is_hub_id else None


def _positives(request: MiningRequest, dataset: Dataset) -> dict[str, list[str]]:
    """Return query -> its positives that have a text."""
    relevant = {
        query: [doc for doc, grade in dataset.qrels.get(query, {}).items() if grade >= (request.relevance or 1)]
        for query in dataset.queries
    }
    return {query: [doc for doc in docs if doc in dataset.documents] for query, docs in relevant.items()}


def _check_no_first_stage(request: MiningRequest) -> None:
    """Check that no first stage is named where no re-ranker orders its candidates.

    Raises:
        UsageError: one is.
    """
    if request.first_stage:
        what = f"{shown(request.by, 200)} finds candidates by itself; a first stage is for re-rankers"
        raise UsageError(what, where="--first-stage", hint="leave it out", code="options-conflict")


def _written(dataset: Dataset, template: str) -> tuple[Dataset, dict[str, str | int]]:
    """Return the dataset with documents as the template makes them, and what the provenance says of that."""
    return with_template(dataset, template, "--template"), {"document_template": template} if template else {}


def _by_first_stage(settings: Settings, request: MiningRequest, dataset: Dataset) -> _FoundCandidates:
    """Return what a first stage ranks.

    Raises:
        UsageError: a first stage is named for it, or a grade of positives, which it does not look at.
    """
    _check_no_first_stage(request)
    if request.relevance is not None:
        what = f"{shown(request.by, 200)} ranks documents whatever their grades; only a model scores positives, too"
        hint = "leave it out; a stage's own `relevance` says which of the candidates are positives"
        raise UsageError(what, where="--relevance", hint=hint, code="options-conflict")
    dataset, written = _written(dataset, request.document_template)
    ranking = first_stage.candidates(dataset, request.by, request.depth, settings.cache)
    return _FoundCandidates(
        dataset=dataset,
        ranking=ranking,
        by="first stage",
        model_sha256=first_stage.fingerprint(dataset, request.by),
        settings=written,
    )


def _by_bi_encoder(
    settings: Settings, request: MiningRequest, dataset: Dataset, folder: Path, progress: Progress
) -> _FoundCandidates:
    from cerank.inference.dense_candidates import BiEncoder, nearest_documents, similarities
    from cerank.kernels.determinism import make_deterministic

    _check_no_first_stage(request)
    dataset, written = _written(dataset, request.document_template)
    Lab(settings).check_device(settings.device)
    device = resolve_device(settings.device)
    threads = settings.threads or physical_cores()
    make_deterministic(device, threads)
    files = read_bi_encoder(folder)
    model = BiEncoder(files, device)
    done, total = 0, len(dataset.queries) + len(dataset.documents)

    def advance(texts: int) -> None:
        nonlocal done
        done += texts
        progress("texts", done, total)

    ignores = int(dataset.ignores_identical_ids)
    scores = nearest_documents(model, dataset.queries, dataset.documents, request.depth + ignores, advance)
    known = similarities(model, dataset.queries, _positives(request, dataset), dataset.documents)
    merged = {query: {**known.get(query, {}), **of_query} for query, of_query in scores.items()}
    if ignores:
        merged = {query: {doc: s for doc, s in row.items() if doc != query} for query, row in merged.items()}
    return _FoundCandidates(
        dataset=dataset,
        ranking=ordered({query: row for query, row in merged.items() if row}),
        by="bi-encoder",
        model_sha256=files.sha256,
        settings={
            "pooling": files.pooling,
            "similarity": files.similarity,
            "max_length": files.max_length,
            "query_prefix": files.query_prefix,
            "document_prefix": files.document_prefix,
            "threads": threads,
            **written,
        },
        device=device,
    )


def _by_reranker(settings: Settings, request: MiningRequest, dataset: Dataset, progress: Progress) -> _FoundCandidates:
    Lab(settings).check_device(settings.device)
    folder = checkpoint_folder(settings.lab, request.by)
    passages, forms, notes = reranked_passages.as_in_run(None, request.document_template, folder)
    dataset, written = _written(dataset, forms.template)
    if forms.base_template:
        written["base_template"] = forms.base_template
    if passages is not None:
        size = f"{passages.max_passages} of {passages.length} tokens, stride {passages.stride}"
        written["passages"] = f"{size}, {passages.first_aggregation}"
    first = request.first_stage or first_stage.BM25
    before = first_stage.candidates(dataset, first, request.depth, settings.cache)
    positives = _positives(request, dataset)
    if dataset.ignores_identical_ids:
        positives = {query: [doc for doc in docs if doc != query] for query, docs in positives.items()}
    with_positives = _with_documents(before, positives)

    def advance(done: int, total: int) -> None:
        progress("queries", done, total)

    read = with_template(dataset, forms.base_template, "base_template")
    scored = score_by_model(
        settings, folder, read, with_positives, precision="fp32", progress=advance, passages=passages
    )
    return _FoundCandidates(
        dataset=dataset,
        ranking=ordered(scored.scores, with_positives),
        by="re-ranker",
        model_sha256=bases.fingerprint(folder),
        settings={
            "first_stage": first,
            "first_stage_sha256": first_stage.fingerprint(dataset, first),
            "precision": scored.precision,
            "threads": settings.threads or physical_cores(),
            **written,
        },
        device=resolve_device(settings.device),
        notes=notes,
    )


def _with_documents(ranking: Ranking, added: Mapping[str, Sequence[str]]) -> Ranking:
    """Return the ranking with further documents at the end of each list."""
    lists = {query: list(dict.fromkeys((*docs, *added.get(query, ())))) for query, docs in ranking.items()}
    return Ranking(lists, {query: [float(-place) for place in range(len(docs))] for query, docs in lists.items()})
