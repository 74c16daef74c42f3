"""Re-ranking outside a run: a checkpoint and a first stage to a TREC run file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cerank.app.comparison.comparisons import FIRST_STAGE
from cerank.app.lab import Lab
from cerank.errors import MissingError, UsageError
from cerank.files import disk, manifests
from cerank.machine import process_environment
from cerank.machine.device_locks import hold_gpu
from cerank.machine.devices import physical_cores, resolve_device
from cerank.registry import nearest
from cerank.runs import run_store
from cerank.settings import Settings


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A first stage to re-rank, the model that does it, and the file to write."""

    checkpoint: str  # a model folder, a run, or RUN:STAGE
    dataset: str  # gives queries and documents
    first_stage: str  # bm25, a run of the dataset, or a TREC run file
    depth: int  # candidates per query
    precision: str  # "fp32", "bf16", "auto", or on a GPU "fp16" or "tf32"
    output: Path  # compressed if it ends in .gz


def checkpoint_folder(lab: Path, text: str) -> Path:
    """Return the model folder that `text` names: a path, or the model that a run (its last stage) or RUN:STAGE left.

    Raises:
        UsageError: no such run or stage; MissingError: it has not come that far.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    name, colon, stage = text.partition(":")
    folder = run_store.find(lab, name)
    chain = run_store.load_plan(folder).recipe.chain
    stage = stage if colon else chain[-1]
    if stage not in chain:
        hint = "the first stage has no model" if stage == FIRST_STAGE else nearest(stage, chain)
        raise UsageError(f"run {run_store.title(folder)} has no stage '{stage}'", hint=hint)
    final = folder.final(chain.index(stage), stage)
    if not final.is_dir():
        raise MissingError(f"stage {stage} is not finished", where=run_store.title(folder))
    manifests.verify_folder(final)
    return final


def rerank(settings: Settings, request: RerankRequest, progress: Callable[[int, int], None]) -> int:
    """Write the TREC run, whole or not at all; return how many queries it ranks.

    Scores that the checkpoint gave to the same chunks before, here or in a run, are taken from the cache.

    Args:
        settings: where the lab and caches are, and on what device to score.
        request: what to re-rank with which model, and where to write the result.
        progress: called with the number of finished queries and of all queries.
    """
    from cerank.core.rankings import ordered
    from cerank.datasets.open_datasets import open_dataset
    from cerank.inference.rerank import Scorer
    from cerank.inference.rerank import rerank as rerank_chunks
    from cerank.inference.score_cache import ScoreCache, score_cache_key
    from cerank.kernels.determinism import make_deterministic
    from cerank.retrieval.first_stage import candidates
    from cerank.trec.text_io import write_run

    os.environ |= process_environment.CUDA_ENVIRONMENT  # read once, when CUDA starts
    output = request.output
    if not output.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(output))
    Lab(settings).check_device(settings.device)
    folder = checkpoint_folder(settings.lab, request.checkpoint)
    dataset = open_dataset(request.dataset, settings.cache)
    before = candidates(dataset, request.first_stage, request.depth, settings.cache)
    device = resolve_device(settings.device)
    threads = settings.threads or physical_cores()
    with hold_gpu(device, settings.lab, "cerank rerank"):
        make_deterministic(device, threads)
        scorer = Scorer.load(folder, device, request.precision)
        collection = dataset.documents.fingerprint()
        key = score_cache_key(scorer.checkpoint, collection, device=device, threads=threads, precision=scorer.precision)
        cache = ScoreCache(settings.cache, key)

        def query_texts(ids: Sequence[str]) -> list[str]:
            return [dataset.queries[query] for query in ids]

        scores: dict[str, dict[str, float]] = {}
        texts = query_texts, dataset.documents.texts
        for chunk in rerank_chunks(scorer, before, before.__getitem__, *texts, cache=cache):
            scores |= chunk.scores
            progress(len(scores), len(before))
        cache.trim()
    tag = "-".join(folder.resolve().parent.name.split()) or "cerank"
    packed = write_run(ordered(scores, before), tag)
    disk.write(output.resolve(), packed if output.suffix == ".gz" else gzip.decompress(packed))
    return len(before)
