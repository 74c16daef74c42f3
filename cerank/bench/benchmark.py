"""How fast this machine re-ranks and trains, beside sentence-transformers where it is installed: `cerank bench`.

Invariant: contenders take turns on the same texts, weights and threads, each in a process of its own that is set up
as its user's would be, and no figure is shown without its spread.
"""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from cerank.bench.interleaved_rounds import Answer, Contender, Task, Turn, Work, peers_environment, take_turns
from cerank.errors import RunFailedError, UsageError
from cerank.machine import process_environment
from cerank.machine.devices import device_named, physical_cores
from cerank.registry import nearest
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.bench.text_samples import Sample

OWN, PEER, PEAK = "cerank", "sentence-transformers", "matrix products"
PRECISIONS = ("fp32", "bf16")
RERANKING, TRAINING = WORKS = "re-ranking", "training"
GROUP, GROUPS = 8, 4  # pairs a group and groups a step that training is timed with, a recipe's defaults
_DEPTH = 100
_WITHIN = 600.0  # seconds that an answer may take before its contender is left out
_TRAINING_COST = 3.0  # a step's operations over those of scoring: backward is twice forward


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: a base model, texts, and how often."""

    base: str = "minilm"
    dataset: str = ""  # "": generated texts, the same wherever the same Python is
    first_stage: str = "bm25"
    pairs: int = 200
    repeats: int = 3
    steps: int = 2
    precisions: tuple[str, ...] = PRECISIONS
    with_peer: bool = True


class BenchFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One contender at one work; rates in pairs a second over the repeats."""

    work: str  # RERANKING or TRAINING
    precision: str
    who: str
    median: float
    lowest: float
    highest: float
    of_peak: float  # share of the measured matrix-product peak
    ratio: float | None  # cerank's rate over this one's, median within turns; None for cerank itself


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
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
    data_share: dict[str, float]  # precision -> of a training step's time, what its data took
    figures: tuple[BenchFigure, ...]
    commands: tuple[str, ...]  # that measure this again, and more
    notes: tuple[str, ...]


def measure(settings: Settings, asked: BenchRequest, progress: Callable[[str], None]) -> BenchReport:
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
    from cerank.bench import own_workloads
    from cerank.kernels import determinism
    from cerank.models.bases import locate

    device, threads = device_named(settings.device), settings.threads or physical_cores()
    determinism.prepare(device, threads)
    asked, left_out = _without_emulated(asked, device)
    found = locate(asked.base)
    sample = _sample(asked, settings.cache)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        progress("loading")
        room = Path(folder)
        files = own_workloads.checkpoint_of(found, room / "checkpoint")
        (room / "sample.json").write_bytes(msgspec.json.encode(sample))
        lengths = own_workloads.lengths_of(files, sample)
        common = Work(
            name="", kind="", task="score", folder=str(files.folder), pooling=files.pooling,
            sample=str(room / "sample.json"), device=device, threads=threads, steps=asked.steps,
            group_size=GROUP, groups=GROUPS,
        )  # fmt: skip
        race = _Race(
            common, asked, {who: stack.enter_context(one) for who, one in _contenders(asked, threads, room).items()}
        )
        race.get_ready(progress)
        needed = own_workloads.work_of(files, lengths) / len(lengths)
        figures = [
            figure
            for precision in asked.precisions
            for work in WORKS
            for figure in race.figures(work, precision, needed, progress)
        ]
        return BenchReport(
            device=determinism.device_name(device),
            threads=threads,
            versions=own_workloads.versions(),
            base=asked.base,
            pooling=files.pooling,
            sample=sample.name,
            pairs=sample.pairs,
            tokens=statistics.fmean(lengths),
            peaks=race.peaks,
            data_share=race.data_share,
            figures=tuple(figures),
            commands=_commands(asked, device, threads),
            notes=(*left_out, *_notes(asked, found.pooling, files.pooling), *race.notes()),
        )


def _without_emulated(asked: BenchRequest, device: str) -> tuple[BenchRequest, tuple[str, ...]]:
    """What can be timed here, and what is to be said of what cannot.

    Raises:
        UsageError: nothing is left.
    """
    from cerank.kernels import processor

    if "bf16" not in asked.precisions or device != "cpu" or processor.multiplies_bf16():
        return asked, ()
    kept = tuple(precision for precision in asked.precisions if precision != "bf16")
    why = "this processor has no instructions for bf16 that may be used, and imitating them takes many times as long"
    if not kept:
        raise UsageError(why, where="--precision bf16", hint="--precision fp32")
    return msgspec.structs.replace(asked, precisions=kept), (f"bf16 was left out: {why}",)


def _sample(asked: BenchRequest, cache: Path) -> Sample:
    from cerank.bench.text_samples import generated, of_dataset

    if not asked.dataset:
        return generated(asked.pairs, _DEPTH)
    from cerank.datasets.open_datasets import open_dataset

    dataset = open_dataset(asked.dataset, cache)
    return of_dataset(dataset, asked.first_stage, pairs=asked.pairs, depth=_DEPTH, cache=cache)


def _contenders(asked: BenchRequest, threads: int, room: Path) -> dict[str, Contender]:
    """Who takes part, each starting up: cerank as its launcher starts a worker, others in the person's environment."""
    from cerank.bench import baselines

    own = process_environment.passed(os.environ) | process_environment.pinned(threads)
    theirs = peers_environment(os.environ, threads)
    found = {OWN: Contender(OWN, own, room), PEAK: Contender(PEAK, theirs, room)}
    if asked.with_peer and baselines.can_rerank():
        found[PEER] = Contender(PEER, theirs, room)
    return found


_KINDS = {
    (OWN, RERANKING): "cerank.bench.own_workloads:Own",
    (OWN, TRAINING): "cerank.bench.own_workloads:OwnTraining",
    (PEER, RERANKING): "cerank.bench.baselines:SentenceTransformers",
    (PEER, TRAINING): "cerank.bench.baselines:SentenceTransformersTraining",
}


class _Race:
    """The contenders and what they hold ready; peaks and shares as they come to be known."""

    def __init__(self, common: Work, asked: BenchRequest, contenders: dict[str, Contender]) -> None:
        self._common, self._asked, self._contenders = common, asked, contenders
        self.peaks: dict[str, float] = {}
        self.data_share: dict[str, float] = {}

    def get_ready(self, progress: Callable[[str], None]) -> None:
        """Has each load its models and score a few pairs, so that nothing is loaded in its time."""
        from cerank.bench import baselines

        for precision in self._asked.precisions:
            for who, contender in self._contenders.items():
                if who == PEAK:
                    self._hold(
                        contender, f"{PEAK} {precision}", "cerank.bench.own_workloads:gemm_peaks", "peak", precision
                    )
                    continue
                progress(f"{who} loads, {precision}")
                self._hold(contender, f"{RERANKING} {precision}", _KINDS[who, RERANKING], "score", precision)
                if who == OWN or baselines.can_train():
                    self._hold(contender, f"{TRAINING} {precision}", _KINDS[who, TRAINING], "train", precision)

    def _hold(self, contender: Contender, name: str, kind: str, task: Task, precision: str) -> None:
        is_own = contender.name == OWN
        contender.ready(
            msgspec.structs.replace(self._common, name=name, kind=kind, task=task, precision=precision, is_own=is_own)
        )

    def figures(self, work: str, precision: str, needed: float, progress: Callable[[str], None]) -> list[BenchFigure]:
        """One of each contender that can do this and was not lost.

        Raises:
            RunFailedError: cerank's own contender was lost.
        """
        from cerank.bench import baselines

        who = [OWN, *([PEER] if PEER in self._contenders and (work == RERANKING or baselines.can_train()) else [])]
        turns = {PEAK: Turn(self._contenders[PEAK], f"{PEAK} {precision}")}
        turns |= {one: Turn(self._contenders[one], f"{work} {precision}") for one in who}
        found = take_turns(turns, self._asked.repeats, _WITHIN, lambda what: progress(f"{work} {precision}, {what}"))
        for one in (OWN, PEAK):
            if self._contenders[one].lost:
                raise RunFailedError(f"{one} was not measured: {self._contenders[one].lost}", where=work)
        peak = statistics.median(answer.value for answer in found[PEAK])
        self.peaks[precision] = max(self.peaks.get(precision, 0.0), peak)
        if work == TRAINING:
            self.data_share[precision] = statistics.median(one.data_seconds / one.seconds for one in found[OWN])
        cost = needed * (_TRAINING_COST if work == TRAINING else 1.0)
        complete = [one for one in who if len(found[one]) == self._asked.repeats]
        return [_figure((work, precision, one), found, cost) for one in complete]

    def notes(self) -> list[str]:
        """What is to be said of those that were lost."""
        lost = [f"{one.name} was left out: {one.lost}" for one in self._contenders.values() if one.lost]
        data = ", ".join(f"{share:.1%} of a step ({kind})" for kind, share in self.data_share.items())
        return [f"cerank's training spends on data, tokenizing included: {data}", *lost]


def _figure(name: tuple[str, str, str], found: dict[str, list[Answer]], cost: float) -> BenchFigure:
    work, precision, who = name
    rates = [one.rate for one in found[who]]
    ratios = [own.rate / rate for own, rate in zip(found[OWN], rates, strict=True)]
    shares = [rate * cost / peak.value for rate, peak in zip(rates, found[PEAK], strict=True)]
    return BenchFigure(
        work=work,
        precision=precision,
        who=who,
        median=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        of_peak=statistics.median(shares),
        ratio=None if who == OWN else statistics.median(ratios),
    )


def _commands(asked: BenchRequest, device: str, threads: int) -> tuple[str, ...]:
    words = ["cerank", "bench", "--base", asked.base, "--pairs", str(asked.pairs), "--repeats", str(asked.repeats)]
    words += ["--steps", str(asked.steps), "--device", device, "--threads", str(threads)]
    words += [word for precision in asked.precisions for word in ("--precision", precision)]
    if asked.dataset:
        words += ["--dataset", asked.dataset, "--first-stage", asked.first_stage]
    if not asked.with_peer:
        words.append("--cerank-only")
    return (shlex.join(words),)


def _notes(asked: BenchRequest, declared: str, timed: str) -> tuple[str, ...]:
    from cerank.bench import baselines

    notes = []
    if asked.with_peer and not baselines.can_train():
        missing = "sentence-transformers" if not baselines.can_rerank() else "sentence-transformers' trainer"
        notes.append(f"{missing} is not installed here, so cerank stands alone: pip install 'cerank[peers]'")
    if declared != timed:
        notes.append(f"{asked.base} is timed with a {timed} head: its own, {declared}, no other library computes")
    notes.append("of peak: the operations that scores need (thrice for training), over the best matrix product's rate")
    return tuple(notes)
