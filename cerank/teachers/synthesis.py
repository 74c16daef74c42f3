"""Synthetic queries: written by a model for passages of a collection, kept if a first stage leads back to the passage.

InPars (Bonifacio et al. 2022) and Promptagator (Dai et al. 2023) made training data so; the round trip is the latter's.
Invariant: the folder that results is marked, so that no recipe tests on it; the same store and caps as of any teacher.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import cerank
from cerank.core.rankings import Ranking
from cerank.core.seeds import derive
from cerank.datasets.local_folders import COLLECTION, collection_toml
from cerank.datasets.open_datasets import open_dataset
from cerank.datasets.query_text import normalized
from cerank.datasets.synthetic import MARKER
from cerank.errors import RunFailedError, UsageError
from cerank.files import disk, json_records
from cerank.files.json_records import timestamp
from cerank.registry import nearest
from cerank.retrieval import first_stage
from cerank.teachers import declared, prompts
from cerank.teachers.engines.engine import Usage
from cerank.teachers.make import Session
from cerank.teachers.procedures.by_kind import write_query
from cerank.teachers.procedures.steps import PromptedQuery
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.text.safe_text import shown


class SynthesisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is written, and what of it is kept."""

    collection: str  # dataset whose passages are asked about, as the user names it
    count: int  # passages
    seed: int = 0  # decides which
    least_words: int = 10  # of a passage: of shorter ones there is little to ask
    round_trip: int = 10  # rank of the first stage by which the passage must be found; 0 keeps all queries


class Synthesized(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; `synthetic.json` of the folder, and its mark."""

    teacher: str
    model: str
    place: str  # the host that the passages were sent to, or "in process"
    collection: str
    documents: str  # fingerprint
    decisive: dict[str, object]  # settings and the template's hash
    first_stage: str  # of the round trip
    round_trip: int
    seed: int
    passages: int  # that were asked about
    failed: dict[str, int] = {}  # reason -> passages without a query
    known: int = 0  # queries that the collection has already: dropped, for they may be tested
    repeated: int = 0  # dropped: another passage has the same query, so that neither label is complete
    not_found: int = 0  # dropped: the first stage does not lead back to the passage
    kept: int = 0
    usage: Usage = Usage()
    cost: float | None = None
    currency: str = ""
    created: str = ""
    version: str = ""


def sampled_passages(request: TeachRequest, options: SynthesisOptions) -> list[PromptedQuery]:
    """Return the passages that are asked about, as prompts show them, in the order of the collection.

    Raises:
        UsageError: the collection has none that is long enough, the teacher writes no queries, or the first stage
            of the round trip cannot rank new queries.
    """
    spec = request.spec
    if spec.kind != "queries":
        hint = 'declare one with kind = "queries"'
        what = f"a teacher of kind {spec.kind} writes no queries"
        raise UsageError(what, where=f"teachers.{request.name}", hint=hint, code="teacher-without-queries")
    if options.round_trip:
        _check_round_trip(request.first_stage)
    generator = random.Random(derive(options.seed, "synthesize"))
    sample: list[tuple[int, str, str]] = []
    seen = 0
    for doc, text in request.dataset.documents:
        if len(text.split()) < options.least_words:
            continue
        seen += 1
        entry = (seen, doc, text)
        if len(sample) < options.count:
            sample.append(entry)
        elif (place := generator.randrange(seen)) < options.count:  # reservoir sampling: one pass, few in memory
            sample[place] = entry
    if not sample:
        what = f"no document has {options.least_words} words or more"
        raise UsageError(what, where=options.collection, hint="give a smaller --min-words")
    cleaned = ((doc, prompts.clean_passage(text, spec.passage_words)) for _, doc, text in sorted(sample))
    return [PromptedQuery(doc, "", (text,)) for doc, text in cleaned]


def _check_round_trip(name: str) -> None:
    """Check, before a model is paid, that a first stage computes its ranking: a given run has no queries yet written.

    Raises:
        UsageError: it is neither BM25 nor the first stage of an extension.
    """
    if name == first_stage.BM25 or name in first_stage.RETRIEVERS:
        return
    what = f"first stage '{shown(name, 120)}' cannot rank queries that are yet to be written"
    hint = f"{nearest(name, {first_stage.BM25, *first_stage.RETRIEVERS})}; --round-trip 0 needs no first stage"
    raise UsageError(what, where="--first-stage", hint=hint, code="round-trip-first-stage")


def synthesize(request: TeachRequest, options: SynthesisOptions, into: Path, hooks: Hooks) -> tuple[Synthesized, str]:
    """Write a dataset folder with synthetic queries; return what it holds, and why it was not written if it was not.

    Args:
        request: names the teacher and the collection; its queries are not read.
        options: what is written, and what of it is kept.
        into: folder to create; it takes its documents from the collection.
        hooks: functions that report progress and ask whether to stop.

    Raises:
        UsageError: the folder exists, or as `sampled_passages`.
        RunFailedError: too many failures, or no query was kept.
        CerankError: as `teachers.make.make`.
    """
    if into.exists():
        raise UsageError("the folder exists", where=str(into), hint="name another one", code="folder-exists")
    passages = sampled_passages(request, options)
    session = Session(request, Ranking({}, {}), hooks)
    result = session.carry_out(write_query, prompted=passages)
    failed: dict[str, int] = {}
    for report in result.reports.values():
        if report.failure:
            failed[report.failure] = failed.get(report.failure, 0) + 1
    written = {passage.id: result.outcomes[passage.id].text for passage in passages if passage.id in result.outcomes}
    dataset, spec, price = request.dataset, request.spec, session.price
    facts = Synthesized(
        teacher=request.name,
        model=spec.model,
        place=spec.server or "in process",
        collection=options.collection,
        documents=dataset.documents.fingerprint(),
        decisive=declared.decisive_parts(spec, request.teachers),
        first_stage=request.first_stage,
        round_trip=options.round_trip,
        seed=options.seed,
        passages=len(passages),
        failed=failed,
        usage=result.usage,
        cost=result.cost,
        currency=price.currency if price else "",
        created=timestamp(datetime.now(UTC)),
        version=cerank.__version__,
    )
    if result.stopped:
        return facts, result.stopped
    fresh, known, repeated = _new_queries(written, dataset.queries)
    usable = _found_again(request, options, fresh, into.parent) if options.round_trip and fresh else fresh
    facts = msgspec.structs.replace(
        facts, known=known, repeated=repeated, not_found=len(fresh) - len(usable), kept=len(usable)
    )
    if not usable:
        what = f"of {len(passages)} passages no query was kept: {sum(failed.values())} failed, {known} were known, "
        what += f"{repeated} were repeated, {facts.not_found} did not lead back"
        raise RunFailedError(what, where=str(into), code="nothing-synthesized")
    with disk.new_folder(into) as folder:
        json_records.save(folder / MARKER, facts)
        _write_folder(folder, request, options.collection, usable)
    return facts, ""


def _new_queries(written: Mapping[str, str], known: Mapping[str, str]) -> tuple[dict[str, str], int, int]:
    """Return document -> query without those that people asked or that several documents have, and both numbers."""
    questions = {normalized(text) for text in known.values()}
    new = {doc: text for doc, text in written.items() if normalized(text) not in questions}
    times: dict[str, int] = {}
    for text in new.values():
        times[normalized(text)] = times.get(normalized(text), 0) + 1
    single = {doc: text for doc, text in new.items() if times[normalized(text)] == 1}
    return single, len(written) - len(new), len(new) - len(single)


def _found_again(
    request: TeachRequest, options: SynthesisOptions, written: Mapping[str, str], room: Path
) -> dict[str, str]:
    """Return those queries for which the first stage ranks their own document high enough."""
    folder = room / f".synthetic-{derive(options.seed, 'folder', *written.values()):x}"
    try:
        _write_folder(folder, request, options.collection, written)
        dataset = open_dataset(str(folder.resolve()), request.cache)
        ranking = first_stage.candidates(dataset, request.first_stage, options.round_trip, request.cache)
        return {doc: text for doc, text in written.items() if doc in ranking.get(_query_id(doc), ())}
    finally:
        disk.remove_tree(folder)


def _query_id(doc: str) -> str:
    return f"synthetic-{doc}"


def _write_folder(folder: Path, request: TeachRequest, collection: str, queries: Mapping[str, str]) -> None:
    """Write queries and qrels, and where the documents are: those that cerank ships are in no folder, and copied."""
    documents = request.dataset.documents if request.dataset.name.startswith("pydocs") else None
    disk.make_folder(folder)
    if documents is None:
        disk.write(folder / COLLECTION, collection_toml(collection))
    else:
        rows = (msgspec.json.encode({"doc_id": doc, "text": text}) + b"\n" for doc, text in documents)
        disk.write(folder / "docs.jsonl", b"".join(rows))
    topics = "".join(f"{_query_id(doc)}\t{text}\n" for doc, text in queries.items())
    disk.write(folder / "queries.tsv", topics.encode())
    disk.write(folder / "qrels", "".join(f"{_query_id(doc)} 0 {doc} 1\n" for doc in queries).encode())
