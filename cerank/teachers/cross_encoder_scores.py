"""A cross-encoder as a teacher: any base or checkpoint that `cerank rerank` takes, in this process.

Invariant: a checkpoint of a run reads documents as it did there, whatever the recipe that it teaches says of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.inference.documents_of_run import ModelDocuments, documents_of, use_passages
from cerank.machine import process_environment
from cerank.teachers.engines.engine import StopTeachingError, Usage
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.teachers.work import TeachingProgress

if TYPE_CHECKING:
    from cerank.inference.rerank import Scorer

_LIMITS = (512, 64)  # tokens of a pair and of its query, for a base, which says nothing of them


def scores_of(request: TeachRequest, before: Ranking, hooks: Hooks) -> dict[str, dict[str, float]]:
    """Return the model's score of each candidate; scores that it gave before are taken from the cache.

    Raises:
        StopTeachingError: the caller asked to stop; scores so far are in the cache.
        CerankError: the model is missing or malformed.
    """
    os.environ |= process_environment.CUDA_ENVIRONMENT  # read once, when CUDA starts
    from cerank.inference.rerank import rerank
    from cerank.inference.score_cache import ScoreCache, score_cache_key
    from cerank.kernels.determinism import make_deterministic

    make_deterministic(request.device, request.threads)
    scorer, documents = _scorer(request)
    where = f"teachers.{request.name}.model"
    dataset = documents.written(request.dataset, where)
    use_passages(documents.passages, scorer, dataset, where)
    facts = score_cache_key(
        scorer.checkpoint + scorer.scored_text,
        dataset.documents.fingerprint(),
        device=request.device,
        threads=request.threads,
        precision=scorer.precision,
    )
    cache = ScoreCache(request.cache, facts, has_passages=bool(scorer.scored_text))
    scores: dict[str, dict[str, float]] = {}

    def query_texts(ids: Sequence[str]) -> list[str]:
        return [dataset.queries[query] for query in ids]

    for chunk in rerank(scorer, before, before.__getitem__, query_texts, dataset.documents.texts, cache=cache):
        scores |= chunk.scores
        hooks.progress(TeachingProgress(len(scores), 0, 0, 0, Usage(), None))
        if reason := hooks.should_stop():
            raise StopTeachingError(reason)
    cache.trim()
    return scores


def _scorer(request: TeachRequest) -> tuple[Scorer, ModelDocuments]:
    """Return the scorer of a checkpoint of cerank, or of a base whose head is trained or needs no training.

    With it, how it reads documents: a checkpoint of a run as it did there.

    Raises:
        UsageError: a base whose head would be random.
    """
    from cerank.inference.rerank import Scorer
    from cerank.models import bases, cross_encoder, model_folders
    from cerank.tokenization.tokens import PairTokenizer, TokenLimits

    files = bases.locate(request.spec.model, fetch=request.fetch)
    if (files.folder / bases.CHECKPOINT_CONFIG).is_file():
        return Scorer.load(files.folder, request.device, "fp32"), documents_of(files.folder)
    named = str(model_folders.json_object(files.folder / "config.json").get("architectures"))
    if files.pooling == "classifier" and "ForSequenceClassification" not in named:
        hint = "take a re-ranker, or a checkpoint of a run"
        raise UsageError("the model has no trained head to rank with", where=request.spec.model, hint=hint)
    encoder = cross_encoder.load(files, files.pooling, seed=0).to(request.device)
    limits = TokenLimits(*_LIMITS)
    scorer = Scorer(encoder, PairTokenizer(cross_encoder.load_tokenizer(files.folder), limits), request.device, "fp32")
    scorer.checkpoint = f"{files.sha256} {files.pooling} {_LIMITS}"
    return scorer, ModelDocuments()
