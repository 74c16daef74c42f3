"""How fast a stage learns and scores here, measured within a second or two at its real settings.

Invariant: nothing that a run's bits depend on is changed: models are loaded apart, and random states put back.
"""

from __future__ import annotations

import time

import msgspec
import torch

from cerank.data.bases import BaseFiles
from cerank.data.samples import Sample
from cerank.domain.recipe import Stage
from cerank.learn import speed
from cerank.learn.forward import resolved
from cerank.learn.processor import synchronized
from cerank.learn.rerank import Scorer, similarity
from cerank.learn.tokens import Tokens
from cerank.store.paces import Pace

WITHIN = 0.8  # seconds for each of training and scoring, as far as single steps allow
_EMBEDDED = 96  # texts that the embedding teacher is timed with


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
        own = _stage(stage, learnt, precision)
        begun = time.perf_counter()
        learner = speed.OwnTraining(files, learnt, own, device)
        load = time.perf_counter() - begun
        trained = learner.within(WITHIN)
        tokens = Tokens(
            learner.tokenizer, stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation
        )
        rate = _scored(Scorer(learner.model, tokens, device, precision), scored, device)
    return Pace(train=trained.rate, score=rate, load=load, precision=precision)


def embedding(files: BaseFiles, sample: Sample, max_length: int, device: str) -> float:
    """Texts a second through the embedding teacher."""
    ids = list(sample.documents)[:_EMBEDDED]
    query = next(iter(sample.lists))

    def seconds(docs: list[str]) -> float:
        begun = time.perf_counter()
        similarity(
            files,
            {query: docs},
            lambda found: [sample.queries[one] for one in found],
            lambda found: [sample.documents[one] for one in found],
            max_length=max_length,
            device=device,
        )
        return time.perf_counter() - begun

    with torch.random.fork_rng():
        few = ids[: max(1, len(ids) // 8)]
        alone = min(seconds(few), seconds(few))
        return max(1, len(ids) - len(few)) / max(seconds(ids) - alone, 1e-3)


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

    def once() -> None:
        scorer.forget()
        scorer.chunk(
            sample.lists, lambda ids: [sample.queries[i] for i in ids], lambda ids: [sample.documents[i] for i in ids]
        )
        synchronized(device)

    begun = time.perf_counter()
    once()  # kernels are built, and packing is tried
    first = time.perf_counter() - begun
    if first > 2 * WITHIN:
        return sample.pairs / first
    begun, count = time.perf_counter(), 0
    while not count or time.perf_counter() < begun + WITHIN:
        once()
        count += 1
    return count * sample.pairs / (time.perf_counter() - begun)
