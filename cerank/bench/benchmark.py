"""Measure how fast this machine re-ranks and trains, beside sentence-transformers if it is installed.

Invariant: the implementations take turns on the same texts, weights and threads, each in a process set up as its
user's would be, and no figure is shown without its spread.
"""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from cerank.bench.interleaved_rounds import (
    BenchProcess,
    BenchTask,
    RoundEntry,
    TaskKind,
    TaskResponse,
    baseline_environment,
    run_interleaved,
)
from cerank.errors import RunFailedError, UsageError, os_error
from cerank.machine import device_locks, process_environment
from cerank.machine.devices import physical_cores, resolve_device
from cerank.registry import nearest
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.bench.text_samples import TextSample

CERANK, BASELINE, PEAK = "cerank", "sentence-transformers", "matrix products"
PRECISIONS = ("fp32", "bf16")
RERANKING, TRAINING = WORKLOADS = "re-ranking", "training"
GROUP, GROUPS = 8, 4  # pairs of a group and groups of a step in the timed training; a recipe's defaults
_GPU_GROUPS = 32  # a GPU waits for the host at fewer
_CPU_STEPS, _GPU_STEPS = 2, 200  # the latter are as many pairs as are re-ranked
_DEPTH = 100
_CPU_PAIRS, _GPU_PAIRS = 200, 51_200
_CPU_LATENCIES, _GPU_LATENCIES = 5, 50  # queries that are timed one by one
_RESPONSE_TIMEOUT = 600.0  # seconds before a process is dropped
_TRAINING_COST = 3.0  # a step's operations over those of scoring: backward is twice forward


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `cerank bench` is to measure: a base model, texts, and how often."""

    base: str = "minilm"
    dataset: str = ""  # "": generated texts, the same wherever the same Python is
    first_stage: str = "bm25"
    pairs: int = 0  # 0: 200, or on a GPU 51,200, which it takes seconds for, too
    repeats: int = 3
    steps: int = 0  # 0: 2 of 32 pairs, or on a GPU 200 of 256
    precisions: tuple[str, ...] = ()  # empty: both, or on a GPU bf16
    with_peer: bool = True


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of one implementation at one workload, in pairs a second over the repeats."""

    work: str  # RERANKING or TRAINING
    precision: str
    who: str
    median: float
    lowest: float
    highest: float
    of_peak: float  # fraction of the measured peak of matrix products
    ratio: float | None  # cerank's rate over this one's, median over rounds; None for cerank itself
    tokens: float = 0.0  # tokens a second, padding not counted
    latency: tuple[float, float] | None = None  # seconds of one query with 100 candidates: median, 95th percentile
    gpu_memory: int = 0  # bytes of a GPU, the most; 0 on other devices
    joules: float | None = None  # that the GPU used per 1,000 pairs; None where nothing tells them


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """All results, and what they were measured on."""

    device: str
    threads: int
    versions: dict[str, str]
    base: str
    pooling: str  # pooling that was timed
    sample: str
    pairs: int
    tokens: float  # mean number of tokens of a pair
    peaks: dict[str, float]  # precision -> floating point operations a second, median over rounds
    data_share: dict[str, float]  # precision -> fraction of a training step's time that its data took
    figures: tuple[BenchResult, ...]
    commands: tuple[str, ...]  # commands that measure this again
    notes: tuple[str, ...]


def measure(settings: Settings, options: BenchRequest, progress: Callable[[str], None]) -> BenchReport:
    """Measure re-ranking and training; takes a minute or two for a small base on a CPU.

    Args:
        settings: settings in force: the device, the number of threads and the cache.
        options: which base, dataset and implementations to measure, and how often.
        progress: called with what is being done.

    Raises:
        CerankError: no such base, dataset or device.
    """
    for precision in options.precisions:
        if precision not in PRECISIONS:
            raise UsageError(
                f"no precision is called '{precision}'", hint=nearest(precision, PRECISIONS), code="unknown-precision"
            )
    device, threads = resolve_device(settings.device), settings.threads or physical_cores()
    options = complete_request(options, device)
    with device_locks.hold_gpu(device, settings.lab, "cerank bench"):
        return _measure(settings, options, device, threads, progress)


def complete_request(options: BenchRequest, device: str) -> BenchRequest:
    """Return the options with what a device is measured by where they leave it out."""
    is_gpu = device.startswith("cuda")
    return msgspec.structs.replace(
        options,
        pairs=options.pairs or (_GPU_PAIRS if is_gpu else _CPU_PAIRS),
        steps=options.steps or (_GPU_STEPS if is_gpu else _CPU_STEPS),
        precisions=options.precisions or (("bf16",) if is_gpu else PRECISIONS),
    )


def _measure(
    settings: Settings, options: BenchRequest, device: str, threads: int, progress: Callable[[str], None]
) -> BenchReport:
    from cerank.bench import own_workloads
    from cerank.kernels import determinism
    from cerank.models.bases import locate

    determinism.make_deterministic(device, threads)
    options, left_out = _without_emulated_precision(options, device)
    base = locate(options.base)
    sample = _sample(options, settings.cache)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        progress("loading")
        folder_path = Path(folder)
        files = own_workloads.save_checkpoint(base, folder_path / "checkpoint")
        (folder_path / "sample.json").write_bytes(msgspec.json.encode(sample))
        lengths = own_workloads.pair_lengths(files, sample)
        common = BenchTask(
            name="", implementation="", task="score", folder=str(files.folder), pooling=files.pooling,
            sample=str(folder_path / "sample.json"), device=device, threads=threads, steps=options.steps,
            group_size=GROUP, groups=_GPU_GROUPS if device.startswith("cuda") else GROUPS,
        )  # fmt: skip
        comparison = _Comparison(
            common,
            options,
            {
                who: stack.enter_context(process)
                for who, process in _start_processes(options, threads, folder_path).items()
            },
        )
        comparison.get_ready(progress)
        needed = own_workloads.scoring_operations(files, lengths) / len(lengths)
        tokens = statistics.fmean(lengths)
        figures = [
            figure
            for precision in options.precisions
            for work in WORKLOADS
            for figure in comparison.figures(work, precision, (needed, tokens), progress)
        ]
        return BenchReport(
            device=determinism.hardware_name(device),
            threads=threads,
            versions=own_workloads.versions(),
            base=options.base,
            pooling=files.pooling,
            sample=sample.name,
            pairs=sample.pairs,
            tokens=tokens,
            peaks=comparison.peaks,
            data_share=comparison.data_share,
            figures=tuple(figures),
            commands=_commands(options, device, threads),
            notes=(*left_out, *_notes(options, base.pooling, files.pooling), *comparison.notes()),
        )


def _without_emulated_precision(options: BenchRequest, device: str) -> tuple[BenchRequest, tuple[str, ...]]:
    """Return the options without what cannot be timed here, and a note that says so.

    Raises:
        UsageError: nothing is left.
    """
    from cerank.kernels import processor

    if "bf16" not in options.precisions or device != "cpu" or processor.multiplies_bf16():
        return options, ()
    precisions = tuple(precision for precision in options.precisions if precision != "bf16")
    why = "this processor has no instructions for bf16 that may be used, and imitating them takes many times as long"
    if not precisions:
        raise UsageError(why, where="--precision bf16", hint="--precision fp32", code="precision-not-supported")
    return msgspec.structs.replace(options, precisions=precisions), (f"bf16 was not measured: {why}",)


def _sample(options: BenchRequest, cache: Path) -> TextSample:
    from cerank.bench.text_samples import dataset_sample, generated_sample

    if not options.dataset:
        return generated_sample(options.pairs, _DEPTH)
    from cerank.datasets.open_datasets import open_dataset

    dataset = open_dataset(options.dataset, cache)
    return dataset_sample(dataset, options.first_stage, pairs=options.pairs, depth=_DEPTH, cache=cache)


def _start_processes(options: BenchRequest, threads: int, folder_path: Path) -> dict[str, BenchProcess]:
    """Start a process for each: cerank as its launcher starts a worker, others in the user's environment."""
    from cerank.bench import baselines

    own = process_environment.inherited_environment(os.environ) | process_environment.pinned_environment(threads)
    theirs = baseline_environment(os.environ, threads)
    processes = {CERANK: BenchProcess(CERANK, own, folder_path), PEAK: BenchProcess(PEAK, theirs, folder_path)}
    if options.with_peer and baselines.can_rerank():
        processes[BASELINE] = BenchProcess(BASELINE, theirs, folder_path)
    return processes


IMPLEMENTATIONS = {
    (CERANK, RERANKING): "cerank.bench.own_workloads:CerankReranker",
    (CERANK, TRAINING): "cerank.bench.own_workloads:CerankTraining",
    (BASELINE, RERANKING): "cerank.bench.baselines:SentenceTransformers",
    (BASELINE, TRAINING): "cerank.bench.baselines:SentenceTransformersTraining",
}


class _Comparison:
    """The processes and their tasks; peaks and shares of data are added as they are measured."""

    def __init__(self, common: BenchTask, options: BenchRequest, processes: dict[str, BenchProcess]) -> None:
        self._common, self._options, self._processes = common, options, processes
        self.peaks: dict[str, float] = {}
        self.data_share: dict[str, float] = {}

    def get_ready(self, progress: Callable[[str], None]) -> None:
        """Let each process load its models and score a few pairs, so that loading is not timed."""
        from cerank.bench import baselines

        for precision in self._options.precisions:
            for who, process in self._processes.items():
                if who == PEAK:
                    self._prepare(
                        process, f"{PEAK} {precision}", "cerank.bench.own_workloads:product_peaks", "peak", precision
                    )
                    continue
                progress(f"{who} loads, {precision}")
                self._prepare(process, f"{RERANKING} {precision}", IMPLEMENTATIONS[who, RERANKING], "score", precision)
                if who == CERANK or baselines.can_train():
                    self._prepare(
                        process, f"{TRAINING} {precision}", IMPLEMENTATIONS[who, TRAINING], "train", precision
                    )

    def _prepare(self, process: BenchProcess, name: str, implementation: str, task: TaskKind, precision: str) -> None:
        is_own = process.name == CERANK
        process.prepare(
            msgspec.structs.replace(
                self._common, name=name, implementation=implementation, task=task, precision=precision, is_own=is_own
            )
        )

    def figures(
        self, work: str, precision: str, of_pair: tuple[float, float], progress: Callable[[str], None]
    ) -> list[BenchResult]:
        """Return one result of each implementation that can do this and did not fail.

        Args:
            work: kind of work to measure: RERANKING or TRAINING.
            precision: "fp32" or "bf16", the precision of matrix products.
            of_pair: operations that scoring a pair needs, and its tokens; means over the sample.
            progress: called with what is being done.

        Raises:
            RunFailedError: cerank's own process failed.
        """
        from cerank.bench import baselines

        who = [
            CERANK,
            *([BASELINE] if BASELINE in self._processes and (work == RERANKING or baselines.can_train()) else []),
        ]
        entries = {PEAK: RoundEntry(self._processes[PEAK], f"{PEAK} {precision}")}
        entries |= {name: RoundEntry(self._processes[name], f"{work} {precision}") for name in who}
        responses = run_interleaved(
            entries, self._options.repeats, _RESPONSE_TIMEOUT, lambda what: progress(f"{work} {precision}, {what}")
        )
        for name in (CERANK, PEAK):
            if self._processes[name].failure:
                raise RunFailedError(f"{name} was not measured: {self._processes[name].failure}", where=work)
        peak = statistics.median(response.value for response in responses[PEAK])
        self.peaks[precision] = max(self.peaks.get(precision, 0.0), peak)
        if work == TRAINING:
            self.data_share[precision] = statistics.median(
                response.data_seconds / response.seconds for response in responses[CERANK]
            )
        needed, tokens = of_pair
        cost = needed * (_TRAINING_COST if work == TRAINING else 1.0)
        complete = [name for name in who if len(responses[name]) == self._options.repeats]
        results = [_result((work, precision, name), responses, cost, tokens) for name in complete]
        return [self._with_latency(result, progress) for result in results] if work == RERANKING else results

    def _with_latency(self, result: BenchResult, progress: Callable[[str], None]) -> BenchResult:
        """Return the result with the time of one query with 100 candidates, where its process still answers."""
        progress(f"{result.who} {result.precision}, one query at a time")
        times = _GPU_LATENCIES if self._common.device.startswith("cuda") else _CPU_LATENCIES
        task = f"{RERANKING} {result.precision}"
        response = self._processes[result.who].run(task, _RESPONSE_TIMEOUT, latency=times)
        if response is None or not response.latencies:
            return result
        seconds = sorted(response.latencies)
        slow = seconds[min(len(seconds) - 1, round(0.95 * (len(seconds) - 1)))]
        return msgspec.structs.replace(result, latency=(statistics.median(seconds), slow))

    def notes(self) -> list[str]:
        """Return notes on the share of data, and on the processes that failed."""
        dropped = [
            f"{process.name} was dropped: {process.failure}" for process in self._processes.values() if process.failure
        ]
        data = ", ".join(f"{share:.1%} of a step ({kind})" for kind, share in self.data_share.items())
        return [f"cerank's training spends on data, tokenizing included: {data}", *dropped]


def _result(
    name: tuple[str, str, str], responses: dict[str, list[TaskResponse]], cost: float, tokens: float
) -> BenchResult:
    work, precision, who = name
    rates = [response.rate for response in responses[who]]
    ratios = [own.rate / rate for own, rate in zip(responses[CERANK], rates, strict=True)]
    shares = [rate * cost / peak.value for rate, peak in zip(rates, responses[PEAK], strict=True)]
    joules = [response.joules / response.pairs * 1000 for response in responses[who] if response.joules is not None]
    return BenchResult(
        tokens=statistics.median(rates) * tokens,
        gpu_memory=max(response.gpu_memory for response in responses[who]),
        joules=statistics.median(joules) if joules else None,
        work=work,
        precision=precision,
        who=who,
        median=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        of_peak=statistics.median(shares),
        ratio=None if who == CERANK else statistics.median(ratios),
    )


def _commands(options: BenchRequest, device: str, threads: int) -> tuple[str, ...]:
    words = [
        "cerank",
        "bench",
        "--base",
        options.base,
        "--pairs",
        str(options.pairs),
        "--repeats",
        str(options.repeats),
    ]
    words += ["--steps", str(options.steps), "--device", device, "--threads", str(threads)]
    words += [word for precision in options.precisions for word in ("--precision", precision)]
    if options.dataset:
        words += ["--dataset", options.dataset, "--first-stage", options.first_stage]
    if not options.with_peer:
        words.append("--cerank-only")
    return (shlex.join(words),)


def _notes(options: BenchRequest, declared: str, timed: str) -> tuple[str, ...]:
    from cerank.bench import baselines

    notes = []
    if options.with_peer and not baselines.can_train():
        missing = "sentence-transformers" if not baselines.can_rerank() else "sentence-transformers' trainer"
        notes.append(f"{missing} is not installed here, so cerank is measured alone: pip install 'cerank[bench]'")
    if declared != timed:
        notes.append(f"{options.base} is timed with a {timed} head: no other library computes its own, {declared}")
    notes.append(
        "of peak: operations needed for scoring (three times as many for training), over the best matrix product's rate"
    )
    return tuple(notes)


def publish(report: BenchReport, path: Path, now: datetime) -> None:
    """Write everything that was measured, with the machine and the versions, to a file for others to compare with.

    Raises:
        UsageError: the file exists, or cannot be written.
    """
    if path.exists():
        raise UsageError("the file exists", where=str(path), hint="give the name of a new file", code="file-exists")
    published = {"measured": now.isoformat(timespec="seconds"), **msgspec.to_builtins(report)}
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(published), indent=2) + b"\n")
    except OSError as error:
        raise os_error(error, path) from error
