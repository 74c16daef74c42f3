"""Run one implementation of a speed benchmark as a process: read tasks line by line, and answer with their times.

Invariant: it computes nothing between its lines, and for other libraries it sets nothing but the number of threads.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
import torch

from cerank.bench import own_workloads
from cerank.bench.interleaved_rounds import BenchTask, TaskRequest, TaskResponse, peak_memory
from cerank.bench.text_samples import TextSample, reshape
from cerank.files import json_records
from cerank.kernels import determinism, processor
from cerank.machine.devices import gpu_joules, joules_between
from cerank.machine.gpu_properties import smallest_gpu
from cerank.models.bases import BaseFiles
from cerank.planning.gpu_settings import choose_microbatch
from cerank.recipes.schema import Stage

RunTask = Callable[[TaskRequest], TaskResponse]


def main() -> int:
    """Answer each line of standard input with one line, until there are no more."""
    output = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # libraries' output goes to standard error
    prepared: dict[str, RunTask] = {}
    for line in sys.stdin:
        request = json_records.decode(line, TaskRequest)
        if request.prepare is not None:
            prepared[request.prepare.name] = _prepare(request.prepare)
            response = TaskResponse()
        else:
            response = prepared[request.run](request)
        response = msgspec.structs.replace(response, memory=peak_memory())
        output.write(msgspec.json.encode(response).decode() + "\n")
        output.flush()
    return 0


def _prepare(task: BenchTask) -> RunTask:
    """Load and warm up what a task needs, and return the function that runs it."""
    if task.is_own:
        determinism.make_deterministic(task.device, task.threads)
    else:
        torch.set_num_threads(task.threads)
    module, _, name = task.implementation.partition(":")
    kind = getattr(importlib.import_module(module), name)
    return {"score": _scoring_task, "train": _training_task, "peak": _peak_task, "figure": _figure_task}[task.task](
        task, kind
    )


def _files(task: BenchTask) -> BaseFiles:
    return BaseFiles(Path(task.folder).name, Path(task.folder), task.pooling, "")


def _sample(file: str) -> TextSample:
    return json_records.decode(Path(file).read_bytes(), TextSample)


def _scoring_task(task: BenchTask, kind: Any) -> RunTask:
    implementation: own_workloads.BenchmarkedReranker = kind(_files(task), task.device, task.precision)
    samples = {"": _sample(task.sample)}
    implementation.score(reshape(samples[""], 16, 8))

    def run(request: TaskRequest) -> TaskResponse:
        if request.sample not in samples:
            samples.clear()
            samples[request.sample] = _sample(request.sample or task.sample)
        sample = samples[request.sample]
        if request.latency:
            return TaskResponse(latencies=_latencies(implementation, sample, request.latency, task.device))
        with _UsageMeter(task.device) as usage:
            scores = implementation.score(sample)
        if request.scores:
            Path(request.scores).write_text(json.dumps(scores), encoding="utf8")
        return TaskResponse(pairs=sample.pairs, seconds=usage.seconds, gpu_memory=usage.gpu_memory, joules=usage.joules)

    return run


class _UsageMeter:
    """Measures the time of a `with` block to its end on the device, and the GPU's memory and energy."""

    def __init__(self, device: str) -> None:
        self._device, self._is_gpu = device, device.startswith("cuda")
        self.seconds, self.gpu_memory = 0.0, 0
        self.joules: float | None = None

    def __enter__(self) -> Self:
        processor.synchronize(self._device)
        if self._is_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        self._joules, self._started = gpu_joules(self._device), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        processor.synchronize(self._device)
        self.seconds = time.perf_counter() - self._started
        self.joules = joules_between(self._joules, gpu_joules(self._device))
        if self._is_gpu:
            self.gpu_memory = torch.cuda.max_memory_allocated(self._device)


def _latencies(implementation: Any, sample: TextSample, times: int, device: str) -> tuple[float, ...]:
    """Return the seconds that one query with 100 candidates takes from texts to scores, each time another query."""
    queries = reshape(sample, 100 * times, min(100, len(sample.documents)))
    seconds = []
    for query, docs in list(queries.lists.items())[:times]:
        single = TextSample(sample.name, {query: queries.queries[query]}, queries.documents, {query: docs})
        with _UsageMeter(device) as usage:
            implementation.score(single)
        seconds.append(usage.seconds)
    return tuple(seconds)


def _stage(task: BenchTask, sample: TextSample) -> Stage:
    """Return the stage that is timed; on a GPU with the microbatch that a plan would have."""
    stage = own_workloads.benchmark_stage(
        sample, precision=task.precision, group_size=task.group_size, groups_per_step=task.groups
    )
    if not task.device.startswith("cuda"):
        return stage
    config = json.loads((Path(task.folder) / "config.json").read_bytes())
    tokens, _ = choose_microbatch(stage, config, smallest_gpu(task.device, os.environ))
    return msgspec.structs.replace(stage, microbatch=tokens)


def _training_task(task: BenchTask, kind: Any) -> RunTask:
    sample = _sample(task.sample)
    stage = _stage(task, sample)
    implementation: own_workloads.Training = kind(_files(task), sample, stage, task.device)

    def run(_: TaskRequest) -> TaskResponse:
        with _UsageMeter(task.device) as usage:
            timed = implementation.train(task.steps)
        return TaskResponse(
            pairs=timed.pairs,
            seconds=timed.seconds,
            data_seconds=timed.data_seconds,
            gpu_memory=usage.gpu_memory,
            joules=timed.joules,
        )

    return run


def _peak_task(task: BenchTask, kind: Any) -> RunTask:
    def run(_: TaskRequest) -> TaskResponse:
        best, sustained = kind(task.device, task.precision)
        return TaskResponse(value=best, sustained=sustained)

    return run


def _figure_task(task: BenchTask, kind: Any) -> RunTask:
    def run(_: TaskRequest) -> TaskResponse:
        sample = _sample(task.sample)
        stage = _stage(task, sample)
        return TaskResponse(value=kind(_files(task), sample, stage, task.device))

    return run


if __name__ == "__main__":
    sys.exit(main())
