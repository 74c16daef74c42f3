"""How fast this machine re-ranks and trains, beside sentence-transformers where it is installed: `cerank bench`.

Invariant: contenders take turns on the same texts, weights and threads, and no figure is shown without its spread.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.lab.plans import device_named, physical_cores
from cerank.registry import nearest
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.data.bases import BaseFiles
    from cerank.data.samples import Sample
    from cerank.learn.speed import Timed

OWN, PEER = "cerank", "sentence-transformers"
PRECISIONS = ("fp32", "bf16")
RERANKING, TRAINING = "re-ranking", "training"
GROUP, GROUPS = 8, 4  # pairs a group and groups a step that training is timed with, a recipe's defaults
_DEPTH = 100
_TRAINING_COST = 3.0  # a step's operations over those of scoring: backward is twice forward


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    base: str = "minilm"
    dataset: str = ""  # "": generated texts, the same wherever the same Python is
    first_stage: str = "bm25"
    pairs: int = 400
    repeats: int = 3
    steps: int = 4
    precisions: tuple[str, ...] = PRECISIONS
    with_peer: bool = True


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One contender at one work; rates in pairs a second over the repeats."""

    work: str  # RERANKING or TRAINING
    precision: str
    who: str
    median: float
    lowest: float
    highest: float
    of_peak: float  # share of the measured matrix-product peak
    ratio: float | None  # cerank's rate over this one's, median within turns; None for cerank itself


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured, and on what."""

    device: str
    threads: int
    versions: dict[str, str]
    base: str
    pooling: str  # that was timed
    sample: str
    pairs: int
    tokens: float  # a pair, on average
    peaks: dict[str, float]  # precision -> floating point operations a second, median over turns
    figures: tuple[Figure, ...]
    commands: tuple[str, ...]  # that measure this again, and more
    notes: tuple[str, ...]


Work = Callable[[], "Timed"]


def measure(settings: Settings, asked: Asked, progress: Callable[[str], None]) -> Report:
    """Times re-ranking and training; a minute or two for a small base on a CPU.

    Args:
        settings: device, threads and caches.
        asked: what.
        progress: hears what is under way.

    Raises:
        CerankError: no such base, dataset or device.
    """
    for precision in asked.precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"no precision is called '{precision}'", hint=nearest(precision, PRECISIONS))
    from cerank.data.bases import locate
    from cerank.learn import determinism, speed

    device, threads = device_named(settings.device), settings.threads or physical_cores()
    determinism.prepare(device, threads)
    found = locate(asked.base)
    sample = _sample(asked, settings.cache)
    with TemporaryDirectory() as room:
        progress("loading")
        files = speed.checkpoint_of(found, Path(room))
        lengths = speed.lengths_of(files, sample)
        needed = speed.work_of(files, lengths) / len(lengths)
        peaks: dict[str, float] = {}
        figures: list[Figure] = []
        for precision in asked.precisions:
            every = _contenders(files, sample, asked, device, precision)
            for work, contenders in every.items():
                cost = needed * (_TRAINING_COST if work == TRAINING else 1.0)
                progress(f"{work} {precision}")
                timed, best = _turns(contenders, asked.repeats, partial(speed.gemm_peak, device, precision, 0.15))
                peaks[precision] = max(peaks.get(precision, 0.0), statistics.median(best))
                figures += [_figure((work, precision, who), timed, best, cost) for who in contenders]
    return Report(
        device=determinism.device_name(device),
        threads=threads,
        versions=speed.versions(),
        base=asked.base,
        pooling=files.pooling,
        sample=sample.name,
        pairs=sample.pairs,
        tokens=statistics.fmean(lengths),
        peaks=peaks,
        figures=tuple(figures),
        commands=_commands(asked, device, threads),
        notes=_notes(asked, found.pooling, files.pooling),
    )


def _sample(asked: Asked, cache: Path) -> Sample:
    from cerank.data.samples import generated, of_dataset

    if not asked.dataset:
        return generated(asked.pairs, _DEPTH)
    from cerank.data.datasets import open_dataset

    dataset = open_dataset(asked.dataset, cache)
    return of_dataset(dataset, asked.first_stage, pairs=asked.pairs, depth=_DEPTH, cache=cache)


def _contenders(
    files: BaseFiles, sample: Sample, asked: Asked, device: str, precision: str
) -> dict[str, dict[str, Work]]:
    """Work -> contender -> what is timed; each has scored a few pairs, so that nothing is loaded in its time."""
    from cerank.data.samples import reshaped
    from cerank.learn import peers, speed

    stage = speed.stage_of(sample, precision=precision, group_size=GROUP, groups_per_step=GROUPS)
    scorers: dict[str, speed.Reranker] = {OWN: speed.Own(files, device, precision)}
    learners: dict[str, speed.Learner] = {OWN: speed.OwnTraining(files, sample, stage, device)}
    if asked.with_peer and peers.can_rerank():
        scorers[PEER] = peers.SentenceTransformers(files, device, precision)
    if asked.with_peer and peers.can_train():
        learners[PEER] = peers.SentenceTransformersTraining(files, sample, stage, device)
    warm = reshaped(sample, 16, 8)
    for one in scorers.values():
        one.score(warm)

    def reranking(one: speed.Reranker) -> Work:
        return lambda: speed.timed(one, sample, device)

    def training(one: speed.Learner) -> Work:
        return lambda: one.train(asked.steps)

    return {
        RERANKING: {who: reranking(one) for who, one in scorers.items()},
        TRAINING: {who: training(one) for who, one in learners.items()},
    }


def _turns(
    contenders: dict[str, Work], repeats: int, peak: Callable[[], float]
) -> tuple[dict[str, list[Timed]], list[float]]:
    """Contender -> timings, and the peak found in each turn; a machine that slows down slows all of a turn."""
    names = list(contenders)
    timed: dict[str, list[Timed]] = {name: [] for name in names}
    best: list[float] = []
    for turn in range(repeats):
        best.append(peak())
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            timed[name].append(contenders[name]())
    return timed, best


def _figure(name: tuple[str, str, str], timed: dict[str, list[Timed]], best: Sequence[float], cost: float) -> Figure:
    work, precision, who = name
    rates = [one.rate for one in timed[who]]
    ratios = [own.rate / rate for own, rate in zip(timed[OWN], rates, strict=True)]
    return Figure(
        work=work,
        precision=precision,
        who=who,
        median=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        of_peak=statistics.median(rate * cost / peak for rate, peak in zip(rates, best, strict=True)),
        ratio=None if who == OWN else statistics.median(ratios),
    )


def _commands(asked: Asked, device: str, threads: int) -> tuple[str, ...]:
    words = ["cerank", "bench", "--base", asked.base, "--pairs", str(asked.pairs), "--repeats", str(asked.repeats)]
    words += ["--steps", str(asked.steps), "--device", device, "--threads", str(threads)]
    words += [word for precision in asked.precisions for word in ("--precision", precision)]
    if asked.dataset:
        words += ["--dataset", asked.dataset, "--first-stage", asked.first_stage]
    if not asked.with_peer:
        words.append("--alone")
    return (shlex.join(words),)


def _notes(asked: Asked, declared: str, timed: str) -> tuple[str, ...]:
    from cerank.learn import peers

    notes = []
    if asked.with_peer and not peers.can_train():
        missing = "sentence-transformers" if not peers.can_rerank() else "sentence-transformers' trainer"
        notes.append(f"{missing} is not installed here, so cerank stands alone: pip install 'cerank[peers]'")
    if declared != timed:
        notes.append(f"{asked.base} is timed with a {timed} head: its own, {declared}, no other library computes")
    notes.append("of peak: the operations that scores need (thrice for training), over the best matrix product's rate")
    return tuple(notes)
