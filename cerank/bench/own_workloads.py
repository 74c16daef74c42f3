"""How fast this machine re-ranks and trains with cerank, as work that others' programs can be timed on as well.

Invariant: what is timed is what a run does (`Scorer.chunk`, `Trainer.train`), text in, scores or updated weights out.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec
import torch

from cerank.bench.text_samples import Sample
from cerank.core.groups import Group
from cerank.core.metrics import Reading
from cerank.inference.rerank import Scorer
from cerank.kernels import processor
from cerank.kernels.packing import pack
from cerank.kernels.processor import synchronized
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles, fingerprint
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Pair, Tokens, batches_by_length
from cerank.training.checkpoints import State
from cerank.training.sampler import Sampler
from cerank.training.trainer import Material, Trainer

CHUNK = 32  # queries handed over at once, as a run does
MAX_LENGTH, MAX_QUERY_LENGTH = 256, 64  # tokens; a stage's defaults
_SEED = 0
_SMALL = 8  # pairs of a step that is timed: rates of larger ones were the same
_STEPS = 3  # after the first; the fastest counts

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Timed(msgspec.Struct, frozen=True):
    """One timing: how many pairs in how many seconds."""

    pairs: int
    seconds: float
    data_seconds: float = 0.0  # of them (training): until the pairs of a step stand as tensors

    @property
    def rate(self) -> float:
        """Pairs a second."""
        return self.pairs / self.seconds


class Reranker(Protocol):
    """Something that scores a sample's pairs."""

    def score(self, sample: Sample) -> list[float]:
        """Scores of `sample.texts()`, in order; texts in, nothing remembered from an earlier call."""


class Learner(Protocol):
    """Something that trains by steps of whole groups."""

    def train(self, steps: int) -> Timed:
        """Trains `steps` steps and one before them to get warm; the timing holds the `steps` alone."""


def checkpoint_of(files: BaseFiles, folder: Path) -> BaseFiles:
    """The base with a new head, saved as a checkpoint that cerank, transformers and sentence-transformers load.

    A pooling "product" only cerank can express; its place is taken by "classifier", so that all can be timed alike.
    """
    pooling = "classifier" if files.pooling == "product" else files.pooling
    made = cross_encoder.load(files, pooling, _SEED)
    cross_encoder.save(made, cross_encoder.tokenizer_of(files.folder), folder, MAX_LENGTH, MAX_QUERY_LENGTH)
    return BaseFiles(files.name, folder, pooling, fingerprint(folder))


class Own:
    """cerank's own re-ranking by a checkpoint."""

    def __init__(self, files: BaseFiles, device: str, precision: str) -> None:
        self._scorer = Scorer.load(files.folder, device, precision)
        self._device = device

    def score(self, sample: Sample) -> list[float]:
        """As `Reranker` says."""
        self._scorer.forget()
        queries = list(sample.lists)
        out: list[float] = []
        for start in range(0, len(queries), CHUNK):
            part = {query: sample.lists[query] for query in queries[start : start + CHUNK]}
            found = self._scorer.chunk(
                part, lambda ids: [sample.queries[i] for i in ids], lambda ids: [sample.documents[i] for i in ids]
            )
            out += [found[query][doc] for query, docs in part.items() for doc in docs]
        return out


def stage_of(sample: Sample, *, precision: str, group_size: int, groups_per_step: int, loss: str = "lce") -> Stage:
    """The stage that is timed: long enough never to end by itself, with the defaults of a recipe."""
    depth = max(map(len, sample.lists.values()))
    return Stage(
        loss=loss,
        steps=10**6,
        schedule="constant",
        warmup=0.0,
        group_size=group_size,
        groups_per_step=groups_per_step,
        window=(1, depth),
        precision="bf16" if precision == "bf16" else "fp32",
        max_length=MAX_LENGTH,
        max_query_length=MAX_QUERY_LENGTH,
    )


def sampler_of(sample: Sample, stage: Stage) -> Sampler:
    """Draws groups from a sample; the first candidate of a list counts as its positive, which no timing depends on."""
    return Sampler(
        "bench",
        stage,
        _SEED,
        query_ids=list(sample.lists),
        qrels={query: {docs[0]: 1} for query, docs in sample.lists.items()},
        ranking=sample.lists,
        has_text=sample.documents.__contains__,
    )


class _EnoughError(Exception):
    """The steps that are timed are done; raised by the watch, before anything is saved."""


class _Unwatched:
    """What of a training is of no interest to whoever takes its time."""

    def validate(self, step: int) -> float:  # noqa: ARG002 - a watch is asked so
        return 0.0

    def saving(self) -> None:
        """Nothing is saved."""

    def saved(self, state: State) -> None:
        """Nothing is saved."""

    def rejected(self, reason: str) -> None:
        """A speed is measured whatever the update came to."""

    def out_of_memory(self, what: str) -> None:
        """Parts become smaller, which their time will show."""

    def wants_to_stop(self) -> bool:
        return False


class _Clock(_Unwatched):
    """A watch that takes the time of each step and ends the training by `_EnoughError`."""

    def __init__(self, steps: int, device: str, spent: _Spent) -> None:
        self._steps, self._device, self._spent = steps, device, spent
        self.times: list[float] = []
        self.data: list[float] = []  # seconds that had gone into data by then
        self.pairs: list[int] = []

    def read(self, reading: Reading) -> None:
        synchronized(self._device)
        self.times.append(time.perf_counter())
        self.data.append(self._spent.seconds)
        self.pairs.append(reading.pairs)
        if len(self.times) > self._steps:
            raise _EnoughError


class _Fastest(_Unwatched):
    """A watch that keeps the fastest of a few steps, the first not counted: it makes the optimizer's state."""

    def __init__(self, seconds: float, device: str) -> None:
        self._seconds, self._device = seconds, device
        self._over = math.inf  # when no more steps are begun
        self._count = 0
        self.rate = 0.0  # pairs a second

    def read(self, reading: Reading) -> None:
        synchronized(self._device)
        rate = reading.pairs / max(reading.seconds, 1e-9)
        self.rate = rate if self._count < 2 else max(self.rate, rate)
        self._count += 1
        if self._count == 1:
            self._over = time.perf_counter() + self._seconds
        is_enough = self._count > _STEPS or (self._count > 1 and time.perf_counter() >= self._over)
        if is_enough or reading.seconds > 4 * self._seconds:
            raise _EnoughError


class _Spent:
    """Seconds that went into data, summed; `counted` makes a method add its own."""

    seconds = 0.0

    def counted(self, work: Callable[_P, _R]) -> Callable[_P, _R]:
        def timed(*given: _P.args, **named: _P.kwargs) -> _R:
            started = time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


class OwnTraining:
    """cerank's own training of a checkpoint, optimizer included."""

    def __init__(self, files: BaseFiles, sample: Sample, stage: Stage, device: str) -> None:
        self._sample, self._stage, self._device = sample, stage, device
        self.model = cross_encoder.load(files, files.pooling, _SEED).to(device)
        self._tokenizer = cross_encoder.tokenizer_of(files.folder)

    def train(self, steps: int) -> Timed:
        """As `Learner` says; texts are tokenized anew in each call, as without a token store."""
        spent = _Spent()
        material, pairs_of = self._material(spent)
        clock = _Clock(steps, self._device, spent)
        with TemporaryDirectory() as folder:
            trainer = Trainer(0, "bench", self._stage, seed=_SEED, folder=Path(folder), device=self._device)
            with contextlib.suppress(_EnoughError):
                trainer.train(self.model, material, clock)
        packing = sum(_packing(pairs_of(step), self._stage, self._device) for step in range(2, steps + 2))
        data = clock.data[-1] - clock.data[0] + packing
        return Timed(sum(clock.pairs[1:]), clock.times[-1] - clock.times[0], data)

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self._tokenizer

    def best(self, seconds: float) -> float:
        """Pairs a second of the fastest of at most three steps of some eight pairs, after one to get warm.

        No more are begun once `seconds` are over; where the first alone took four times as long, it is what counts.
        """
        material, _ = self._material(_Spent())
        groups = min(self._stage.groups_per_step, -(-_SMALL // (self._stage.group_size + self._stage.in_batch)))
        stage, clock = msgspec.structs.replace(self._stage, groups_per_step=groups), _Fastest(seconds, self._device)
        with TemporaryDirectory() as folder:
            trainer = Trainer(0, "pace", stage, seed=_SEED, folder=Path(folder), device=self._device)
            with contextlib.suppress(_EnoughError):
                trainer.train(self.model, material, clock)
        return clock.rate

    def _material(self, spent: _Spent) -> tuple[Material, Callable[[int], list[Pair]]]:
        """What is learnt from, and the pairs of a step that was taken; `spent` hears what groups and ids took."""
        sample, stage = self._sample, self._stage
        lengths = (stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation)
        tokens = Tokens(self._tokenizer, *lengths)
        sampler = sampler_of(sample, stage)
        groups, pair = sampler.groups, tokens.pair

        def pairs_of(step: int) -> list[Pair]:
            return [pair(group.query_id, doc) for group in groups(step) for doc in group.doc_ids]

        for one, name in ((sampler, "groups"), (tokens, "add"), (tokens, "pair")):
            setattr(one, name, spent.counted(getattr(one, name)))
        material = Material(
            sampler,
            tokens,
            lambda ids: [sample.queries[i] for i in ids],
            lambda ids: [sample.documents[i] for i in ids],
        )
        return material, pairs_of


def _packing(pairs: Sequence[Pair], stage: Stage, device: str) -> float:
    """Seconds that it takes to lay these pairs end to end as tensors, as a step does within its forward pass."""
    started = time.perf_counter()
    for cut in batches_by_length([len(pair.ids) for pair in pairs], stage.microbatch):
        pack([pairs[at] for at in cut], has_types=True, device=torch.device(device))
    synchronized(device)
    return time.perf_counter() - started


def assembly(files: BaseFiles, sample: Sample, stage: Stage, device: str, steps: int = 64) -> float:
    """Pairs a second that stand as tensors for training where all texts are tokenized already, as from a store."""
    learner, spent = OwnTraining(files, sample, stage, device), _Spent()
    material, pairs_of = learner._material(spent)
    material.tokens.add("query", list(sample.queries), material.queries)
    material.tokens.add("document", list(sample.documents), material.documents)
    started, count = time.perf_counter(), 0
    for step in range(1, steps + 1):
        pairs = pairs_of(step)
        _packing(pairs, stage, device)
        count += len(pairs)
    return count / (time.perf_counter() - started)


def groups_of(sample: Sample, stage: Stage, steps: int) -> list[Group]:
    """The groups of the first `steps` steps, for whoever else is to train on the same."""
    sampler = sampler_of(sample, stage)
    return [group for step in range(1, steps + 1) for group in sampler.groups(step)]


# what the machine could do

_SHAPES = ((2048, 384, 1536), (2048, 768, 3072), (1024, 1024, 1024), (4096, 2048, 2048))
_GPU_SHAPES = ((8192, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192))


def gemm_peaks(device: str, precision: str, seconds: float = processor.BUDGET) -> tuple[float, float]:
    """The most floating point operations a second that a product reaches here, over shapes of encoders' sizes.

    With it, what the best shape's products reach one after another, the slow ones among them. Shapes that would take
    longer than what is left of `seconds` are left out.
    """
    shapes = _GPU_SHAPES if device.startswith("cuda") else _SHAPES
    found = processor.peaks(device, precision, shapes, seconds)
    return found.best, found.sustained


def work_of(files: BaseFiles, lengths: Sequence[int]) -> float:
    """Floating point operations that scores of pairs of these lengths (in tokens) need, by an encoder's config.

    A classifier reads one position of the last layer. What that one asks of the others' states needs neither their
    keys nor their values, unless those turn with the position, as ModernBERT's do (see `packed_encoders._Folded`).
    Embeddings, norms and activations are left out, as usual.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    gates = 3 if config.model_type == "modernbert" else 2  # its feed-forward part multiplies two halves
    token = 2.0 * (4 * hidden * hidden + gates * hidden * inner)  # of one layer
    total = 0.0
    for length in lengths:
        layer = length * token + 4.0 * length * length * hidden
        last = token + 4.0 * length * hidden * config.num_attention_heads
        if config.model_type == "modernbert":
            last = 4.0 * length * hidden * hidden + token - 4.0 * hidden * hidden + 4.0 * length * hidden
        total += layer * (layers - 1) + (last if files.pooling == "classifier" else layer)
    return total


def lengths_of(files: BaseFiles, sample: Sample) -> list[int]:
    """Tokens of each pair of a sample, as it is cut."""
    tokens = Tokens(cross_encoder.tokenizer_of(files.folder), MAX_LENGTH, MAX_QUERY_LENGTH)
    tokens.add("query", list(sample.lists), lambda ids: [sample.queries[i] for i in ids])
    tokens.add("document", list(sample.documents), lambda ids: [sample.documents[i] for i in ids])
    return [len(tokens.pair(query, doc).ids) for query, docs in sample.lists.items() for doc in docs]


_PACKAGES = ("cerank", "torch", "transformers", "tokenizers", "sentence-transformers")


def versions() -> dict[str, str]:
    """Python and the packages that the figures depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
