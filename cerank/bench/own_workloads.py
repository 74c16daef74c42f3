"""Time cerank's own re-ranking and training, on work that other libraries can be timed on as well.

Invariant: what is timed is what a run does (`rerank`, `Trainer.train`), from texts to scores or to
updated weights.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec
import torch

from cerank.bench.text_samples import TextSample
from cerank.core.groups import Group
from cerank.core.metrics import StepMetrics
from cerank.inference.rerank import Scorer, TextLookup, rerank
from cerank.kernels import processor
from cerank.kernels.packing import pack
from cerank.kernels.processor import synchronize
from cerank.machine.devices import gpu_joules, joules_between
from cerank.machine.measured_speed import STEP_PAIRS
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles, fingerprint
from cerank.models.load_model import load_model
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Pair, PairTokenizer, TokenLimits, batches_by_length
from cerank.training.batches import TrainingData
from cerank.training.checkpoints import TrainingState
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.step_shards import RankStats
from cerank.training.trainer import Trainer

LIMITS = TokenLimits(max_length=256, max_query_length=64)  # a stage's defaults
_SEED = 0
_TIMED_STEPS = 3  # steps after the first; the fastest counts

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Timing(msgspec.Struct, frozen=True):
    """Number of pairs, and the seconds that they took."""

    pairs: int
    seconds: float
    data_seconds: float = 0.0  # training: seconds of them until the pairs of a step are tensors
    joules: float | None = None  # that the GPU used; None where nothing tells them

    @property
    def rate(self) -> float:
        """Return pairs a second."""
        return self.pairs / self.seconds


class BenchmarkedReranker(Protocol):
    """Anything that scores a sample's pairs."""

    def score(self, sample: TextSample) -> list[float]:
        """Return the scores of `sample.texts()`, in order; remembers nothing from an earlier call."""


class Training(Protocol):
    """Anything that trains by steps of whole groups."""

    def train(self, steps: int) -> Timing:
        """Train `steps` steps after one to warm up, and return the time of the `steps` alone."""


def save_checkpoint(files: BaseFiles, folder: Path) -> BaseFiles:
    """Save the base with a new head as a checkpoint that cerank, transformers and sentence-transformers load.

    A pooling "product" only cerank can express; its place is taken by "classifier", so that all can be timed alike.
    """
    pooling = "classifier" if files.pooling == "product" else files.pooling
    made = cross_encoder.load(files, pooling, _SEED)
    cross_encoder.save(made, cross_encoder.load_tokenizer(files.folder), folder, LIMITS)
    return BaseFiles(files.name, folder, pooling, fingerprint(folder))


class CerankReranker:
    """Re-ranking by cerank, with a checkpoint."""

    def __init__(self, files: BaseFiles, device: str, precision: str) -> None:
        self._scorer = Scorer.load(files.folder, device, precision)
        self._device = device

    def score(self, sample: TextSample) -> list[float]:
        """Return the scores of `sample.texts()`, in order."""
        self._scorer.clear()
        scores: dict[str, dict[str, float]] = {}
        texts = lookup(sample.queries), lookup(sample.documents)
        for chunk in rerank(self._scorer, sample.lists, sample.lists.__getitem__, *texts):
            scores |= chunk.scores
        return [scores[query][doc] for query, docs in sample.lists.items() for doc in docs]


def lookup(texts: Mapping[str, str]) -> TextLookup:
    """Return the function from ids to their texts."""
    return lambda ids: [texts[id_] for id_ in ids]


def benchmark_stage(sample: TextSample, *, precision: str, group_size: int, groups_per_step: int) -> Stage:
    """Return the stage that is timed: long enough never to end by itself, with the defaults of a recipe."""
    depth = max(map(len, sample.lists.values()))
    return Stage(
        loss="lce",
        steps=10**6,
        schedule="constant",
        warmup=0.0,
        group_size=group_size,
        groups_per_step=groups_per_step,
        window=(1, depth),
        precision="bf16" if precision == "bf16" else "fp32",
        max_length=LIMITS.max_length,
        max_query_length=LIMITS.max_query_length,
    )


def benchmark_sampler(sample: TextSample, stage: Stage) -> Sampler:
    """Return a sampler over a sample; the first candidate of a list is its positive, which no timing depends on."""
    return Sampler(
        "bench",
        stage,
        _SEED,
        TrainingPool(
            query_ids=list(sample.lists),
            qrels={query: {docs[0]: 1} for query, docs in sample.lists.items()},
            ranking=sample.lists,
            has_text=sample.documents.__contains__,
        ),
    )


class _EnoughError(Exception):
    """The steps that are timed are done; raised by the callback, before anything is saved."""


class _SilentCallback:
    """The parts of a trainer's callback that a timing does not need."""

    def on_scores(self, step: int, spread: float) -> None:
        """Do nothing: the speed does not depend on scores."""

    def validate(self, step: int) -> float:  # noqa: ARG002 - the callback's signature
        return 0.0

    def measured(self) -> dict[str, float]:
        return {}

    def before_save(self) -> None:
        """Do nothing: nothing is saved."""

    def after_save(self, state: TrainingState) -> None:
        """Do nothing: nothing is saved."""

    def on_rejected(self, reason: str) -> None:
        """Do nothing: the speed does not depend on what the update came to."""

    def on_out_of_memory(self, what: str) -> None:
        """Do nothing: smaller microbatches show in the time."""

    def on_rank_stats(self, stats: Sequence[RankStats]) -> None:
        """Do nothing: a single process is measured."""

    def on_filter(self, step: int, what: str) -> None:
        """Do nothing: a stage without a filter is measured."""

    def should_stop(self) -> bool:
        return False


class _StepTimer(_SilentCallback):
    """A callback that takes the time of each step and ends the training by `_EnoughError`."""

    def __init__(self, steps: int, device: str, spent: _DataTime) -> None:
        self._steps, self._device, self._spent = steps, device, spent
        self.times: list[float] = []
        self.data: list[float] = []  # seconds that had gone into data by then
        self.pairs: list[int] = []
        self.joules: list[float | None] = []  # at the first step's end and the last's

    def on_step(self, metrics: StepMetrics) -> None:
        if not self.times or len(self.times) == self._steps:  # between them a run does not wait either
            synchronize(self._device)
            self.joules.append(gpu_joules(self._device))
        self.times.append(time.perf_counter())
        self.data.append(self._spent.seconds)
        self.pairs.append(metrics.pairs)
        if len(self.times) > self._steps:
            raise _EnoughError


class _FastestStep(_SilentCallback):
    """A callback that keeps the fastest of a few steps but the first, which makes the optimizer's state."""

    def __init__(self, seconds: float, device: str) -> None:
        self._seconds, self._device = seconds, device
        self._over = math.inf  # when no more steps are begun
        self._count = 0
        self.rate = 0.0  # pairs a second

    def on_step(self, metrics: StepMetrics) -> None:
        synchronize(self._device)
        rate = metrics.pairs / max(metrics.seconds, 1e-9)
        self.rate = rate if self._count < 2 else max(self.rate, rate)
        self._count += 1
        if self._count == 1:
            self._over = time.perf_counter() + self._seconds
        is_enough = self._count > _TIMED_STEPS or (self._count > 1 and time.perf_counter() >= self._over)
        if is_enough or metrics.seconds > 4 * self._seconds:
            raise _EnoughError


class _DataTime:
    """Seconds spent on data, summed; `counted` makes a method add its own."""

    seconds = 0.0

    def counted(self, work: Callable[_P, _R]) -> Callable[_P, _R]:
        def timed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            started = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


class CerankTraining:
    """Training by cerank from a base, optimizer included."""

    def __init__(self, files: BaseFiles, sample: TextSample, stage: Stage, device: str) -> None:
        self._sample, self._stage, self._device = sample, stage, device
        precision = str(stage.precision)
        self.model = load_model(files, files.pooling, _SEED, spec=stage.adapter, precision=precision).to(device)
        self._tokenizer = cross_encoder.load_tokenizer(files.folder)

    def train(self, steps: int) -> Timing:
        """Train `steps` steps after one to warm up; texts are tokenized anew in each call, as without a token store."""
        spent = _DataTime()
        data, pairs_of = self._data(spent)
        timer = _StepTimer(steps, self._device, spent)
        with TemporaryDirectory() as folder:
            trainer = Trainer(0, "bench", self._stage, seed=_SEED, folder=Path(folder), device=self._device)
            with contextlib.suppress(_EnoughError):
                trainer.train(self.model, data, timer)
        packing = sum(packing_seconds(pairs_of(step), self._stage, self._device) for step in range(2, steps + 2))
        data_seconds = timer.data[-1] - timer.data[0] + packing
        seconds, joules = timer.times[-1] - timer.times[0], joules_between(*timer.joules)
        return Timing(sum(timer.pairs[1:]), seconds, data_seconds, joules)

    @property
    def tokenizer(self) -> Any:
        """Return the base's tokenizer."""
        return self._tokenizer

    def best(self, seconds: float) -> float:
        """Return pairs a second of the fastest of at most three steps of some eight pairs, after one to warm up.

        No more steps begin once `seconds` are over; if the first alone takes four times as long, its speed is returned.
        """
        data, _ = self._data(_DataTime())
        groups = min(self._stage.groups_per_step, -(-STEP_PAIRS // (self._stage.group_size + self._stage.in_batch)))
        stage, fastest = (
            msgspec.structs.replace(self._stage, groups_per_step=groups),
            _FastestStep(seconds, self._device),
        )
        with TemporaryDirectory() as folder:
            trainer = Trainer(0, "pace", stage, seed=_SEED, folder=Path(folder), device=self._device)
            with contextlib.suppress(_EnoughError):
                trainer.train(self.model, data, fastest)
        return fastest.rate

    def _data(self, spent: _DataTime) -> tuple[TrainingData, Callable[[int], list[Pair]]]:
        """Return the training data, and a function from a step to its pairs; `spent` adds up their time."""
        sample, stage = self._sample, self._stage
        tokens = self.model.make_tokens(self._tokenizer, TokenLimits.of_stage(stage))
        sampler = benchmark_sampler(sample, stage)
        groups, pair = sampler.groups, tokens.pair

        def pairs_of(step: int) -> list[Pair]:
            return [pair(group.query_id, doc) for group in groups(step) for doc in group.doc_ids]

        for reader, name in ((sampler, "groups"), (tokens, "add"), (tokens, "pair")):
            setattr(reader, name, spent.counted(getattr(reader, name)))
        data = TrainingData(
            sampler,
            tokens,
            lookup(sample.queries),
            lookup(sample.documents),
        )
        return data, pairs_of


def packing_seconds(pairs: Sequence[Pair], stage: Stage, device: str) -> float:
    """Return the seconds it takes to lay these pairs end to end as tensors, as a step does in its forward pass."""
    started = time.perf_counter()
    for batch in batches_by_length([len(pair.ids) for pair in pairs], stage.tokens_at_once):
        pack([pairs[index] for index in batch], has_types=True, device=torch.device(device))
    synchronize(device)
    return time.perf_counter() - started


def benchmark_groups(sample: TextSample, stage: Stage, steps: int) -> list[Group]:
    """Return the groups of the first `steps` steps, to train other libraries on the same."""
    sampler = benchmark_sampler(sample, stage)
    return [group for step in range(1, steps + 1) for group in sampler.groups(step)]


# the speed of the machine

_SHAPES = ((2048, 384, 1536), (2048, 768, 3072), (1024, 1024, 1024), (4096, 2048, 2048))
_GPU_SHAPES = ((8192, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192))


def product_peaks(device: str, precision: str, seconds: float = processor.TIME_LIMIT) -> tuple[float, float]:
    """Return the most floating point operations a second of a matrix product here, over shapes of encoders' sizes.

    With it, what the best shape's products reach one after another, the slow ones among them. Shapes that would take
    longer than what is left of `seconds` are skipped.
    """
    shapes = _GPU_SHAPES if device.startswith("cuda") else _SHAPES
    peaks = processor.measure_peaks(device, precision, shapes, seconds)
    return peaks.best, peaks.sustained


def scoring_operations(files: BaseFiles, lengths: Sequence[int]) -> float:
    """Return the floating point operations of scoring pairs of these lengths (tokens), from an encoder's config.

    A classifier reads one position of the last layer. What that one asks of the others' states needs neither their
    keys nor their values, unless those turn with the position, as ModernBERT's do (see `packed_encoders._Folded`).
    Embeddings, norms and activations are not counted, as usual.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    return encoder_operations(config, lengths, reads_first_only=files.pooling == "classifier")


def encoder_operations(config: Any, lengths: Sequence[int], *, reads_first_only: bool) -> float:
    """Return the operations of an encoder; with `reads_first_only` one position of the last layer is read."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    gates = 3 if config.model_type == "modernbert" else 2  # its feed-forward part multiplies two halves
    token = 2.0 * (4 * hidden * hidden + gates * hidden * inner)  # operations of one layer for a token
    total = 0.0
    for length in lengths:
        layer = length * token + 4.0 * length * length * hidden
        last = token + 4.0 * length * hidden * config.num_attention_heads
        if config.model_type == "modernbert":
            last = 4.0 * length * hidden * hidden + token - 4.0 * hidden * hidden + 4.0 * length * hidden
        total += layer * (layers - 1) + (last if reads_first_only else layer)
    return total


def pair_lengths(files: BaseFiles, sample: TextSample) -> list[int]:
    """Return the number of tokens of each pair of a sample, after it is cut."""
    tokens = PairTokenizer(cross_encoder.load_tokenizer(files.folder), LIMITS)
    tokens.add("query", list(sample.lists), lookup(sample.queries))
    tokens.add("document", list(sample.documents), lookup(sample.documents))
    return [len(tokens.pair(query, doc).ids) for query, docs in sample.lists.items() for doc in docs]


_PACKAGES = ("cerank", "torch", "transformers", "tokenizers", "sentence-transformers")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that the results depend on."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
