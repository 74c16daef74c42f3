"""Re-ranking outside a run: a checkpoint and a first stage to a TREC run file."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from cerank.app import fold_runs, reranked_passages
from cerank.app.comparison.named_systems import FIRST_STAGE
from cerank.app.lab import Lab
from cerank.app.score_pairs import ScoredPairs, score_by_model
from cerank.app.shared_reranking import ScoringShare, score_on_devices
from cerank.core.rankings import Ranking, strictly_decreasing
from cerank.datasets.dataset import CATALOG, Dataset
from cerank.errors import CerankError, MissingError, UsageError
from cerank.exporting import mteb_files, run_metadata
from cerank.exporting.mteb_files import MtebTask
from cerank.exporting.resource_meter import ResourceMeter
from cerank.exporting.run_metadata import MetadataRequest, RerankedRun
from cerank.files import disk, manifests
from cerank.files.named_files import looks_like_a_path
from cerank.inference.rerank_server import RerankServer, ServerCosts
from cerank.inference.stored_chunks import OutputShards, ShardIdentity
from cerank.machine.devices import physical_cores, resolve_device
from cerank.models.bases import fingerprint, locate
from cerank.models.prompt_templates import DECLARATION
from cerank.planning import several_devices
from cerank.recipes.schema import BEST_OF, Recipe, kept_name
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.registry import nearest
from cerank.retrieval.first_stage import RETRIEVERS, is_built_in_bm25, open_given_run
from cerank.retrieval.first_stage import fingerprint as first_stage_fingerprint
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown

CHUNK = 32  # queries between two progress messages


STDOUT = ("-", "/dev/stdout")


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A first stage to re-rank, the model or server that does it, and the file to write."""

    checkpoint: str  # a model folder, a hub id, a run, RUN:STAGE, or the address of a re-ranking server
    dataset: str  # gives queries and documents
    first_stage: str  # bm25, a run of the dataset, or a TREC run file
    depth: int  # candidates per query
    precision: str | None  # "fp32", "bf16", "auto", on a GPU "fp16" or "tf32"; None: the run's, fp32 or auto
    output: Path  # compressed if it ends in .gz; "-" is standard output
    server_model: str = ""  # the model's name on a server
    replace: bool = False  # whether an existing file is overwritten
    shard: tuple[int, int] | None = None  # (number from 1, of how many): only these queries, beside the output
    merge: bool = False  # write the output from shards that are finished
    devices: str = ""  # share the queries among these: "all", how many, or which; "" for the one of the settings
    mteb: MtebTask | None = None  # whose files are written, too
    passages: PassageSpec | None = None  # how documents are cut; None: as the model's run did, if it is of one
    passage_scores: Path | None = None  # where the scores of passages are written
    document_template: str = ""  # text of a document from its fields; "": as the model's run had it, if it is of one
    base_template: str = ""  # the same as the model reads it, where its run had a template for the base
    metadata: MetadataRequest | None = None  # begin the file with the header of ir_metadata


class RerankResult(msgspec.Struct, frozen=True):
    """The result of re-ranking a dataset: how many queries, notes for the user, and the TREC run as text."""

    queries: int
    notes: tuple[str, ...]  # what the user should know of queries and candidates
    run: bytes  # the TREC run as text, where it goes to standard output; b"" after a shard
    costs: ServerCosts | None = None


def checkpoint_folder(lab: Path, text: str) -> Path:
    """Return the model folder that `text` names: a path, a hub id, or what a run (its last stage) or RUN:STAGE left.

    Raises:
        UsageError: no such run or stage; MissingError: it has not come that far.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    name, colon, stage = text.partition(":")
    try:
        folder = fold_runs.find_one(lab, name)
    except UsageError as error:
        if error.code == "folds-together":
            raise
        if "/" in text and not text.startswith((".", "/", "~")):
            return locate(text).source
        if path.suffix == ".toml" and path.is_file():
            what, hint = "a declaration file is no model folder", f"put it into the model's folder as {DECLARATION}"
            raise UsageError(what, where=shown(text, 200), hint=hint, code="folder-not-run") from None
        if looks_like_a_path(text):
            raise MissingError("no such folder, and no run of the lab is called so", where=shown(text, 200)) from None
        raise
    recipe = run_store.load_plan(folder).recipe
    chain = recipe.chain
    stage, best_of, measure = (stage if colon else chain[-1]).partition(BEST_OF)
    if stage not in chain:
        hint = "the first stage has no model" if stage == FIRST_STAGE else nearest(stage, chain)
        raise UsageError(f"run {run_store.title(folder)} has no stage '{stage}'", hint=hint)
    final = folder.final(chain.index(stage), stage)
    if not final.is_dir():
        raise MissingError(f"stage {stage} is not finished", where=run_store.title(folder))
    if best_of:
        final = _best_model(folder, recipe, stage, measure)
    manifests.verify_folder(final)
    return final


def _best_model(folder: RunFolder, recipe: Recipe, stage: str, measure: str) -> Path:
    """Return the folder of the weights that were best by a measure of the stage's `keep_best`.

    Raises:
        UsageError: the stage kept none by this measure.
        MissingError: they are not there.
    """
    measures = recipe.stages[stage].keep_best
    if measure not in measures:
        hint = (
            f"stages.{stage}.keep_best names the measures; it is empty" if not measures else nearest(measure, measures)
        )
        what = f"stage '{stage}' kept no weights that were best by '{shown(measure, 60)}'"
        raise UsageError(what, where=run_store.title(folder), hint=hint, code="best-not-kept")
    model = folder.best_model(recipe.chain.index(stage), stage, measure)
    if not model.is_dir():
        raise MissingError(f"the weights of {kept_name(stage, measure)} are gone", where=str(model))
    return model


def rerank(settings: Settings, request: RerankRequest, progress: Callable[[int, int], None]) -> RerankResult:
    """Write the TREC run, whole or not at all.

    Scores that the model gave to the same candidates before, here or in a run, are taken from the cache.

    Args:
        settings: where the lab and caches are, and on what device to score.
        request: what to re-rank with which model, and where to write the result.
        progress: called with the number of finished queries and of all queries.

    Raises:
        UsageError: the output exists already or cannot be written, or no such model, dataset or first stage.
    """
    from cerank.core.rankings import ordered
    from cerank.datasets.document_fields import with_template
    from cerank.datasets.open_datasets import open_dataset
    from cerank.retrieval.first_stage import candidates
    from cerank.trec.text_io import write_run

    output = request.output
    _check_request(request)
    is_server = request.checkpoint.startswith(("http://", "https://"))
    if not is_server and not request.merge:
        Lab(settings).check_devices(request.devices, settings.device)
    folder = None if is_server else checkpoint_folder(settings.lab, request.checkpoint)
    request, notes_of_run = _as_in_run(settings, request, folder)
    dataset = with_template(open_dataset(request.dataset, settings.cache), request.document_template, "--template")
    before = candidates(dataset, request.first_stage, request.depth, settings.cache)
    searched, dataset = dataset, with_template(dataset, request.base_template, "base_template")
    meter = ResourceMeter(_metered_device(settings, request)) if request.metadata and not request.shard else None
    costs, began = None, time.monotonic()
    shards = _shards_of(request, folder, dataset, before) if folder is not None and _is_shared(request) else None
    if folder is None:
        server = RerankServer(request.checkpoint, request.server_model, settings.cache)
        scored = _score_by_server(server, dataset, before, progress)
        costs = server.costs
        tag = "-".join(request.server_model.split()) or "rerank-server"
    elif shards is None:
        scored = score_by_model(
            settings,
            folder,
            dataset,
            before,
            precision=request.precision,
            progress=progress,
            passages=request.passages,
            keeps_passages=request.passage_scores is not None,
        )
        tag = _tag(folder)
    else:
        scored = _score_chunks(settings, request, folder, dataset, before, shards=shards, progress=progress)
        if request.shard:
            return _shard_result(shards, *request.shard, len(before), notes_of_run + scored.notes)
        scored, tag = _merged(request, scored, shards.merged()), _tag(folder)
    ranking, seconds = ordered(scored.scores, before), time.monotonic() - began
    head, head_notes = list[str](), tuple[str, ...]()
    if request.metadata is not None and meter is not None:
        resources = None if shards is not None else meter.stop()
        source = _reranked(settings, request, searched, folder, scored, tag=tag, pairs=sum(map(len, before.values())))
        head = run_metadata.header(request.metadata, source, resources)
        head_notes = run_metadata.notes(source, resources)
    packed = write_run(ranking, tag, comments=head)
    plain = packed if output.suffix == ".gz" else gzip.decompress(packed)
    reranked_passages.write_scores(request.passage_scores, scored.passages)
    if str(output) not in STDOUT:
        disk.write(output.resolve(), plain)
        if shards is not None:
            disk.remove_tree(shards.folder)
    notes = notes_of_run + scored.notes + _notes(dataset, request.first_stage, before) + head_notes
    if request.mteb is not None:
        notes += _write_mteb(request.mteb, dataset, ranking, tag, seconds)
    if folder is not None:
        notes += _trained_on(settings, folder, request.dataset, dataset)
    return RerankResult(len(before), notes, plain, costs)


def _check_request(request: RerankRequest) -> None:
    """Check all that can be said before anything is read.

    Raises:
        UsageError: options contradict one another, or a file cannot be written.
    """
    _check_shards(request)
    check_output(request)
    reranked_passages.check_request(
        request.passages,
        request.passage_scores,
        request.output,
        is_server=request.checkpoint.startswith(("http://", "https://")),
        is_shard=request.shard is not None,
        replace=request.replace,
    )
    if request.mteb is not None:
        mteb_files.check_task(request.mteb, replace=request.replace)
    if request.metadata is not None:
        run_metadata.check_request(request.metadata)


def _tag(folder: Path) -> str:
    return "-".join(folder.resolve().parent.name.split()) or "cerank"


def _as_in_run(
    settings: Settings, request: RerankRequest, folder: Path | None
) -> tuple[RerankRequest, tuple[str, ...]]:
    """Return the request with what the model's run read and its precision, unless it says else, and notes on that."""
    passages, forms, notes = reranked_passages.as_in_run(request.passages, request.document_template, folder)
    reranked_passages.check_scores_file(passages, request.passage_scores)
    written = {"document_template": forms.template, "base_template": forms.base_template}
    precision = request.precision
    if precision is None and folder is not None and not request.merge:
        precision, more = reranked_passages.precision_of_run(folder, resolve_device(settings.device))
        notes += more
    return msgspec.structs.replace(request, passages=passages, precision=precision, **written), notes


def check_output(request: RerankRequest) -> None:
    """Check that the output can be written.

    Raises:
        UsageError: it exists already, or its folder does not.
    """
    output = request.output
    if str(output) in STDOUT:
        return
    if not output.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(output))
    if output.exists() and not request.replace:
        raise UsageError(
            "the file exists already", where=str(output), hint="--replace overwrites it", code="file-exists"
        )


def _check_shards(request: RerankRequest) -> None:
    """Check what is asked of shards.

    Raises:
        UsageError: it contradicts itself.
    """
    if not _is_shared(request):
        return
    option = "--shard" if request.shard else "--merge" if request.merge else "--devices"
    if request.merge and (request.shard or request.devices):
        other = "--shard" if request.shard else "--devices"
        hint = "first every shard, then --merge alone"
        raise UsageError(f"{other} and --merge cannot be combined", where=other, hint=hint, code="options-conflict")
    if str(request.output) in STDOUT:
        what = f"{option} needs an output file, beside which the shards lie"
        raise UsageError(what, where="--output", code="options-conflict")
    if request.shard and request.metadata is not None:
        what = "the header begins the whole ranking: give --metadata with --merge"
        raise UsageError(what, where="--metadata", code="options-conflict")
    if request.shard and request.mteb is not None:
        what = "mteb's files need the whole ranking: give --mteb-predictions with --merge"
        raise UsageError(what, where="--mteb-predictions", code="options-conflict")
    if request.checkpoint.startswith(("http://", "https://")):
        what = f"{option} is for models; a server's answers are kept in the cache, so that it is resumed without"
        raise UsageError(what, where=option, code="options-conflict")


def _shards_of(request: RerankRequest, folder: Path, dataset: Dataset, before: Ranking) -> OutputShards:
    """Return the shards of a request's output; where they are scored, what else decides their bits comes later."""
    candidates = hashlib.sha256()
    for query in sorted(before):
        candidates.update(
            "\0".join((query, dataset.queries[query], *before[query], "\n")).encode("utf-8", "surrogatepass")
        )
    identity = ShardIdentity(
        shards=request.shard[1] if request.shard else 1 if request.devices else 0,
        chunks=-(-len(before) // CHUNK),
        model=f"{fingerprint(folder)}{reranked_passages.windows_text(request.passages)}",
        candidates=candidates.hexdigest(),
        collection=dataset.documents.fingerprint(),
    )
    return OutputShards(request.output.resolve(), identity)


def _metered_device(settings: Settings, request: RerankRequest) -> str:
    """Return the device that scores; "cpu" where a server or other processes do."""
    is_elsewhere = request.merge or request.devices or request.checkpoint.startswith(("http://", "https://"))
    return "cpu" if is_elsewhere else resolve_device(settings.device)


def _reranked(
    settings: Settings,
    request: RerankRequest,
    dataset: Dataset,
    folder: Path | None,
    scored: ScoredPairs,
    *,
    tag: str,
    pairs: int,
) -> RerankedRun:
    """Return what was re-ranked with what, for the metadata.

    Args:
        settings: device and threads.
        request: what was asked for.
        dataset: the dataset, open, as the first stage reads it.
        folder: folder of the model; None for a server.
        scored: the scores and how they came about.
        tag: tag of the run.
        pairs: number of all pairs.
    """
    from cerank.datasets.open_datasets import open_dataset

    collection = open_dataset(request.dataset, settings.cache) if request.document_template else dataset
    device = "" if folder is None or request.merge else resolve_device(settings.device)
    is_built_in = is_built_in_bm25(dataset, request.first_stage)
    return RerankedRun(
        tag=tag,
        model=request.server_model or request.checkpoint,
        model_sha256=fingerprint(folder) if folder is not None else "",
        precision=scored.precision,
        device=device,
        threads=settings.threads or physical_cores() if device else 0,
        first_stage=request.first_stage,
        first_stage_sha256="" if is_built_in else first_stage_fingerprint(dataset, request.first_stage),
        depth=request.depth,
        dataset=request.dataset,
        ir_datasets=dataset.name if dataset.location == CATALOG else "",
        documents_sha256=collection.documents.fingerprint(),
        document_template=request.base_template or request.document_template,
        queries=len(dataset.queries),
        pairs=pairs,
        pairs_scored=scored.computed,
    )


def _is_shared(request: RerankRequest) -> bool:
    """Return whether chunks of scores are kept beside the output."""
    return bool(request.shard or request.merge or request.devices)


def _score_chunks(
    settings: Settings,
    request: RerankRequest,
    folder: Path,
    dataset: Dataset,
    before: Ranking,
    *,
    shards: OutputShards,
    progress: Callable[[int, int], None],
) -> ScoredPairs:
    """Score the chunks of a shard, or all, as far as they are not there yet; nothing where shards are only merged.

    The scores themselves are kept beside the output.
    """
    if request.merge:
        return ScoredPairs({})
    shard = request.shard[0] if request.shard else 1
    total = _queries_of(shards.numbers_of(shard), len(before))
    if not request.devices:
        return score_by_model(
            settings,
            folder,
            dataset,
            before,
            precision=request.precision,
            progress=lambda done, _: progress(done, total),
            shards=shards,
            numbers=shards.numbers_of(shard),
            passages=request.passages,
        )
    missing = shards.missing(shard)
    if not missing:
        return ScoredPairs({})
    known = total - _queries_of(missing, len(before))
    share = ScoringShare(
        settings,
        folder,
        request.dataset,
        request.first_stage,
        request.depth,
        request.precision,
        shards.output,
        shards.identity,
        request.passages,
        request.document_template,
        request.base_template,
    )
    devices = several_devices.parse_devices(request.devices, resolve_device(settings.device), None)
    done = score_on_devices(share, devices[: len(missing)], missing, lambda queries: progress(known + queries, total))
    return ScoredPairs({}, sum(each.computed for each in done), next((each.precision for each in done), ""))


def _merged(request: RerankRequest, scored: ScoredPairs, scores: dict[str, dict[str, float]]) -> ScoredPairs:
    """Return the result with the scores that finished shards hold: of documents, or of their passages."""
    of_documents = reranked_passages.aggregated(request.passages, scores)
    return msgspec.structs.replace(scored, scores=of_documents, passages=scores)


def _queries_of(chunks: Iterable[int], queries: int) -> int:
    """Return how many of all queries are in some chunks."""
    return sum(min(CHUNK, queries - chunk * CHUNK) for chunk in chunks)


def _shard_result(shards: OutputShards, number: int, count: int, queries: int, notes: tuple[str, ...]) -> RerankResult:
    """Return the result of a shard: how many of all queries are in it, and what is to be done next."""
    left = [f"{shard}/{count}" for shard in shards.unfinished()]
    next_step = "--merge writes the output" if not left else f"not finished yet: {', '.join(left[:8])}"
    note = f"shard {number} of {count} is in {shards.folder}; {next_step}"
    return RerankResult(_queries_of(shards.numbers_of(number), queries), (*notes, note), b"")


def _write_mteb(task: MtebTask, dataset: Dataset, ranking: Ranking, model: str, seconds: float) -> tuple[str, ...]:
    """Write mteb's files of a ranking, and return which; results only where the dataset has judgments."""
    from cerank.app.comparison.measuring.named_judgments import identity
    from cerank.evaluation.measures import per_query

    scores = {
        query: dict(zip(ranking[query], strictly_decreasing(ranking.scores(query)), strict=True)) for query in ranking
    }
    mteb_files.write_predictions(task, scores, model)
    notes = [f"mteb's predictions are in {task.predictions}"]
    if qrels := dataset.qrels:
        values = per_query(list(mteb_files.measure_names()), qrels, ranking)
        mteb_files.write_results(task, values, identity(qrels), seconds)
        notes.append(f"its results, a query without candidates counted 0, are in {task.results}")
    return tuple(notes)


def _score_by_server(
    server: RerankServer, dataset: Dataset, before: Ranking, progress: Callable[[int, int], None]
) -> ScoredPairs:
    scores, pairs_asked = dict[str, dict[str, float]](), 0
    for query in before:
        doc_ids, requests = before[query], server.costs.requests
        values = server.score(dataset.queries[query], dataset.documents.texts(doc_ids))
        pairs_asked += len(doc_ids) if server.costs.requests > requests else 0
        scores[query] = dict(zip(doc_ids, values, strict=True))
        if len(scores) % CHUNK == 0 or len(scores) == len(before):
            progress(len(scores), len(before))
    return ScoredPairs(scores, pairs_asked)


def _trained_on(settings: Settings, folder: Path, name: str, dataset: Dataset) -> tuple[str, ...]:
    """Return how many queries of the dataset a checkpoint of a run was trained or chosen by; none for other models.

    Args:
        settings: where datasets are built.
        folder: folder of the model; that of a stage lies in the folder of its run.
        name: the dataset, as it was asked for.
        dataset: the same, open.
    """
    from cerank.datasets import query_overlaps
    from cerank.datasets.open_datasets import open_dataset
    from cerank.planning.inputs import dataset_names

    home = reranked_passages.run_of(folder)
    if home is None:
        return ()
    try:
        recipe = run_store.load_plan(home).recipe
        index = reranked_passages.stage_index(home, recipe, folder)
        data = msgspec.structs.replace(recipe.data, test=(name,))
        recipe = msgspec.structs.replace(recipe, chain=recipe.chain[: index + 1], data=data)
        datasets = {
            used: dataset if used == name else open_dataset(used, settings.cache) for used in dataset_names(recipe)
        }
        shared = query_overlaps.overlaps(recipe, datasets)
    except CerankError as error:
        return (f"whether the model was trained on these queries cannot be told: {error.what}",)
    return tuple(str(overlap) for overlap in shared if overlap.right.role == query_overlaps.TEST)


def _notes(dataset: Dataset, first_stage: str, before: Ranking) -> tuple[str, ...]:
    """Return how many queries have no candidates, how many of the first stage's are unknown, and what is decided."""
    notes = list(dataset.decisions())
    absent = [query for query in dataset.queries if query not in before]
    if absent:
        some = ", ".join(shown(query, 40) for query in absent[:3])
        of = f"{len(absent)} of {counted(len(dataset.queries), 'query')}"
        notes.append(f"{of} have no candidates and are not in the output: {some}")
    judged = {query: row for query, row in dataset.qrels.items() if query in before}
    if dataset.qrels and not any(doc in row for query, row in judged.items() for doc in before[query]):
        notes.append("no candidate is judged, so every measure is 0: are the ids of the qrels those of the collection?")
    is_computed = first_stage in RETRIEVERS and first_stage not in dataset.runs
    if not is_computed and not is_built_in_bm25(dataset, first_stage):
        given = open_given_run(dataset, first_stage)
        notes += [f"{shown(first_stage, 80)}: {note}" for note in given.notes]
        unknown = sum(query not in dataset.queries for query in given.ranking)
        if unknown:
            notes.append(f"{counted(unknown, 'query')} of {shown(first_stage, 80)} are not in {dataset.name}")
    return tuple(notes)
