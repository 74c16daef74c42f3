"""A cross-encoder as a teacher: any base or checkpoint that `cerank rerank` takes, in this process."""

from __future__ import annotations

import os
from pathlib import Path

from cerank.core.rankings import Ranking
from cerank.teachers.engines.engine import StopTeachingError, Usage
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.teachers.work import Progress

_CHUNK = 32  # queries between two messages


def scores_of(request: TeachRequest, before: Ranking, hooks: Hooks) -> dict[str, dict[str, float]]:
    """Return the model's score of each candidate; scores that it gave before are taken from the cache.

    Raises:
        StopTeachingError: somebody asked to stop; scores so far are in the cache.
        CerankError: the model is missing or malformed.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read once, when CUDA starts
    from cerank.inference.rerank import Scorer
    from cerank.inference.score_cache import ScoreCache, score_cache_key, score_with_cache
    from cerank.kernels.determinism import make_deterministic
    from cerank.models import bases

    model = request.spec.model
    folder = Path(model) if Path(model).is_dir() else bases.locate(model, fetch=request.fetch).folder
    make_deterministic(request.device, request.threads)
    scorer = Scorer.load(folder, request.device, "fp32")
    dataset = request.dataset
    facts = score_cache_key(
        scorer.checkpoint,
        dataset.documents.fingerprint(),
        device=request.device,
        threads=request.threads,
        precision=scorer.precision,
    )
    kept = ScoreCache(request.cache, facts)
    queries = sorted(before)
    scores: dict[str, dict[str, float]] = {}
    for start in range(0, len(queries), _CHUNK):
        if reason := hooks.should_stop():
            raise StopTeachingError(reason)
        part = {query: before[query] for query in queries[start : start + _CHUNK]}
        scores |= score_with_cache(
            scorer, part, lambda ids: [dataset.queries[i] for i in ids], dataset.documents.texts, kept
        )
        hooks.progress(Progress(len(scores), 0, 0, 0, Usage(), None))
    kept.trim()
    return scores
