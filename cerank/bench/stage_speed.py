"""How fast a stage learns and scores here, measured within a second or two at its real settings.

Invariant: nothing that a run's bits depend on is changed: models are loaded apart, and random states put back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import torch

from cerank.bench import own_workloads
from cerank.bench.text_samples import Sample
from cerank.inference.rerank import Embedder, Scorer
from cerank.kernels.processor import synchronized
from cerank.machine.measured_speed import Pace
from cerank.models.bases import BaseFiles
from cerank.models.forward_pass import resolved
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Tokens

WITHIN = 0.3  # seconds of training and of scoring each, as far as single steps allow
_EMBEDDED = 32  # texts that the embedding teacher is timed with
_REPEATS = 3  # of which the fastest counts


def measured(files: BaseFiles, stage: Stage, learnt: Sample, scored: Sample, device: str) -> Pace:
    """Times steps of training and batches of scoring.

    Args:
        files: the base, with the pooling that is to be timed.
        stage: whose settings count: lengths, groups, frozen weights, precision.
        learnt: texts of the dataset it learns from.
        scored: texts of the dataset that is re-ranked.
        device: where.
    """
    with torch.random.fork_rng():
        precision = resolved(stage.precision, torch.device(device))
        for _ in range(2):  # the first time imports much
            begun = time.perf_counter()
            learner = own_workloads.OwnTraining(files, learnt, _stage(stage, learnt, precision), device)
            load = time.perf_counter() - begun
        train = learner.best(WITHIN)
        tokens = Tokens(
            learner.tokenizer, stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation
        )
        rate = _scored(Scorer(learner.model, tokens, device, precision), scored, device)
    return Pace(train=train, score=rate, load=load, precision=precision)


def embedding(files: BaseFiles, sample: Sample, max_length: int, device: str) -> float:
    """Texts a second through the embedding teacher, by documents and queries in about the shares it meets them in."""
    documents = list(sample.documents.values())[:_EMBEDDED]
    texts = [*list(sample.queries.values())[: max(1, len(documents) // 5)], *documents]
    with torch.random.fork_rng():
        embedder = Embedder(files, max_length=max_length, device=device)
        embedder.embeddings(texts[:: max(1, len(texts) // 8)])  # kernels are built
        return len(texts) / _fastest(lambda: embedder.embeddings(texts), device)


def _fastest(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of a few repetitions; no more are begun once the time is over."""
    best, over = math.inf, time.perf_counter() + WITHIN
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        work()
        synchronized(device)
        best = min(best, time.perf_counter() - begun)
        if time.perf_counter() >= over:
            break
    return max(best, 1e-9)


def _stage(stage: Stage, sample: Sample, precision: str) -> Stage:
    """The stage as a training on labels that ends by no count: its loss costs next to nothing, its lengths all."""
    like = Stage(steps=10**6)
    kept = (
        "max_length", "max_query_length", "max_document_length", "truncation", "group_size", "groups_per_step",
        "in_batch", "microbatch", "freeze", "freeze_layers", "dropout", "learning_rate", "betas", "epsilon", "clip",
    )  # fmt: skip
    depth = max(map(len, sample.lists.values()))
    return msgspec.structs.replace(
        like,
        **{name: getattr(stage, name) for name in kept},
        loss="lce",
        schedule="constant",
        warmup=0.0,
        window=(1, depth),
        precision="bf16" if precision == "bf16" else "fp32",
        on_nonfinite="skip:1000",
    )


def _scored(scorer: Scorer, sample: Sample, device: str) -> float:
    """Pairs a second; texts are read anew each time, as they are of every next chunk of queries."""

    def score(lists: Mapping[str, Sequence[str]]) -> None:
        scorer.forget()
        scorer.chunk(
            lists, lambda ids: [sample.queries[i] for i in ids], lambda ids: [sample.documents[i] for i in ids]
        )

    first = next(iter(sample.lists))
    score({first: sample.lists[first]})  # kernels are built, and packing is tried
    return sample.pairs / _fastest(lambda: score(sample.lists), device)
