"""Measure within a second or two how fast a stage trains and scores here, at its real settings.

Invariant: nothing that a run's bits depend on is changed: models are loaded apart, and random states put back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import torch

from cerank.bench import own_workloads
from cerank.bench.text_samples import TextSample
from cerank.inference.embeddings import Embedder
from cerank.inference.rerank import Scorer
from cerank.kernels.processor import synchronize
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.models.bases import BaseFiles, locate
from cerank.models.forward_pass import resolve_precision
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import TokenLimits

TIME_LIMIT = 0.3  # seconds of training and of scoring each, as far as single steps allow
_EMBEDDED_TEXTS = 16  # texts that the embedding teacher is timed with
_REPEATS = 3  # repetitions; the fastest counts


def measure_stage_speed(
    files: BaseFiles, stage: Stage, train_sample: TextSample, rerank_sample: TextSample, device: str
) -> MeasuredSpeed:
    """Measure steps of training and batches of scoring.

    Args:
        files: the base, with the pooling to time.
        stage: settings of the stage: its lengths, group size, frozen weights and precision.
        train_sample: texts of the dataset that the stage trains on.
        rerank_sample: texts of the dataset that is re-ranked.
        device: device to measure on, such as "cpu" or "cuda:0".
    """
    with torch.random.fork_rng():
        precision = resolve_precision(stage.precision, torch.device(device))
        for _ in range(2):  # the first time also imports modules
            started = time.perf_counter()
            training = own_workloads.CerankTraining(
                files, train_sample, _timed_stage(stage, train_sample, precision), device
            )
            load = time.perf_counter() - started
        train = training.best(TIME_LIMIT)
        tokens = training.model.make_tokens(training.tokenizer, TokenLimits.of_stage(stage))
        rate = _scoring_rate(Scorer(training.model, tokens, device, precision), rerank_sample, device)
    return MeasuredSpeed(train=train, score=rate, load=load, precision=precision)


def measure_scoring_speed(model: str, precision: str | None, sample: TextSample, device: str) -> MeasuredSpeed:
    """Measure how fast a finished re-ranker, given by hub id or folder, loads and scores; it is never trained."""
    with torch.random.fork_rng():
        started = time.perf_counter()
        files = locate(model, fetch=False)
        scorer = Scorer.load(files.source, device, precision, name=model, declared=files.declaration)
        load = time.perf_counter() - started
        rate = _scoring_rate(scorer, sample, device)
    return MeasuredSpeed(train=0.0, score=rate, load=load, precision=scorer.precision)


def measure_embedding_speed(files: BaseFiles, sample: TextSample, max_length: int, device: str) -> float:
    """Return texts a second through the embedding teacher, documents and queries in about their usual shares."""
    documents = list(sample.documents.values())[:_EMBEDDED_TEXTS]
    texts = [*list(sample.queries.values())[: max(1, len(documents) // 5)], *documents]
    with torch.random.fork_rng():
        embedder = Embedder(files, max_length=max_length, device=device)
        embedder.embeddings(texts[:: max(1, len(texts) // 8)])  # to build kernels
        return len(texts) / _fastest_seconds(lambda: embedder.embeddings(texts), device)


def _fastest_seconds(work: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest of a few repetitions; no more are started once the time is over."""
    best, over = math.inf, time.perf_counter() + TIME_LIMIT
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() >= over:
            break
    return max(best, 1e-9)


def _timed_stage(stage: Stage, sample: TextSample, precision: str) -> Stage:
    """Return the stage as a training on labels without an end: its loss costs next to nothing, its lengths all."""
    like = Stage(steps=10**6)
    settings = (
        "max_length", "max_query_length", "max_document_length", "truncation", "group_size", "groups_per_step",
        "in_batch", "microbatch", "freeze", "freeze_layers", "dropout", "learning_rate", "betas", "epsilon", "clip",
        "optimizer", "lion_betas", "layer_decay", "head_rate_factor", "ema", "adapter", "gradient_checkpointing",
    )  # fmt: skip
    depth = max(map(len, sample.lists.values()))
    return msgspec.structs.replace(
        like,
        **{name: getattr(stage, name) for name in settings},
        loss="lce",
        schedule="constant",
        warmup=0.0,
        window=(1, depth),
        precision="bf16" if precision == "bf16" else "fp32",
        on_nonfinite="skip:1000",
    )


def _scoring_rate(scorer: Scorer, sample: TextSample, device: str) -> float:
    """Return pairs a second; texts are read anew each time, as they are for every next chunk of queries."""

    def score(lists: Mapping[str, Sequence[str]]) -> None:
        scorer.clear()
        scorer.score_candidates(
            lists, lambda ids: [sample.queries[i] for i in ids], lambda ids: [sample.documents[i] for i in ids]
        )

    first = next(iter(sample.lists))
    score({first: sample.lists[first]})  # kernels are built, and packing is tried
    return sample.pairs / _fastest_seconds(lambda: score(sample.lists), device)
