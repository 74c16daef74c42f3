"""Score the candidates of a first stage with a model on one device of this machine, as `cerank rerank` does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from cerank.app import reranked_passages
from cerank.core.rankings import Ranking
from cerank.datasets.dataset import Dataset
from cerank.errors import RunFailedError
from cerank.inference.stored_chunks import OutputShards
from cerank.machine import process_environment
from cerank.machine.device_locks import hold_gpu
from cerank.machine.devices import physical_cores, resolve_device
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.settings import Settings


class ScoredPairs(msgspec.Struct, frozen=True):
    """The scores of all candidates, and how they came about."""

    scores: dict[str, dict[str, float]]
    computed: int = 0  # pairs that were scored now; others came from the cache or a shard
    precision: str = ""  # of the model's numbers; "" for a server, or where shards were scored before
    passages: dict[str, dict[str, float]] = {}  # query -> passage -> score, where a file of them is asked for
    notes: tuple[str, ...] = ()


def score_by_model(
    settings: Settings,
    folder: Path,
    dataset: Dataset,
    before: Ranking,
    *,
    precision: str | None,
    progress: Callable[[int, int], None],
    shards: OutputShards | None = None,
    numbers: Iterable[int] | None = None,
    passages: PassageSpec | None = None,
    keeps_passages: bool = False,
) -> ScoredPairs:
    """Return the scores of the candidates.

    Args:
        settings: where the lab and caches are, and on what device to score.
        folder: folder of the model.
        dataset: gives the texts.
        before: the first stage's candidates.
        precision: as for `Scorer`.
        progress: called with the number of finished queries and of all queries.
        shards: where finished chunks are kept for other commands and processes.
        numbers: numbers of the chunks to score; None for all.
        passages: how documents are cut into passages; None scores them whole.
        keeps_passages: whether the scores of passages are returned, too.
    """
    from cerank.inference.rerank import Scorer
    from cerank.inference.rerank import rerank as rerank_chunks
    from cerank.inference.score_cache import ScoreCache, score_cache_key
    from cerank.kernels.determinism import make_deterministic
    from cerank.tokenization.truncation import candidate_truncation

    os.environ |= process_environment.CUDA_ENVIRONMENT  # read once, when CUDA starts
    device = resolve_device(settings.device)
    threads = settings.threads or physical_cores()
    with hold_gpu(device, settings.lab, "cerank rerank"):
        make_deterministic(device, threads)
        scorer = Scorer.load(folder, device, precision)
        reranked_passages.use_passages(passages, scorer, dataset)
        model = scorer.checkpoint + scorer.scored_text
        collection = dataset.documents.fingerprint()
        key = score_cache_key(model, collection, device=device, threads=threads, precision=scorer.precision)
        cache = ScoreCache(settings.cache, key, has_passages=bool(scorer.scored_text))
        if shards is not None:
            if scorer.forward.supports_threads:  # each batch is scored by one thread, however many there are
                key = score_cache_key(model, collection, device=device, threads=0, precision=scorer.precision)
            computed_by = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()
            shards = OutputShards(shards.output, msgspec.structs.replace(shards.identity, computed=computed_by))
            shards.begin()

        def query_texts(ids: Sequence[str]) -> list[str]:
            return [dataset.queries[query] for query in ids]

        scores, computed = dict[str, dict[str, float]](), 0
        of_passages: dict[str, dict[str, float]] = {}
        texts = query_texts, dataset.documents.texts
        truncation = candidate_truncation(scorer.tokens, before, *texts)
        store = shards.chunks if shards is not None else None
        try:
            for chunk in rerank_chunks(
                scorer, before, before.__getitem__, *texts, cache=cache, store=store, numbers=numbers
            ):
                scores |= chunk.scores
                of_passages |= chunk.passages if keeps_passages else {}
                computed += chunk.pairs
                progress(len(scores), len(before))
        except RunFailedError as error:
            error.where = error.where or str(folder)  # a score that is no number: the model that gave it
            raise
        cache.trim()
    return ScoredPairs(scores, computed, scorer.precision, of_passages, (str(truncation),))
