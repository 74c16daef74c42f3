"""One contender of a race of speed, as a process: reads what to do line by line, and answers with what it took.

Invariant: it does nothing between its lines, and what is not cerank's is set no more than its count of threads.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from cerank.bench import own_workloads
from cerank.bench.interleaved_rounds import Answer, Ask, Work, most_memory
from cerank.bench.text_samples import Sample, reshaped
from cerank.kernels import determinism, processor
from cerank.models.bases import BaseFiles

Go = Callable[[Ask], Answer]


def main() -> int:
    """Answers each line of standard input with one line, until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # what libraries print goes where their warnings go
    held: dict[str, Go] = {}
    for line in sys.stdin:
        ask = msgspec.json.decode(line, type=Ask)
        if ask.ready is not None:
            held[ask.ready.name] = _made(ask.ready)
            answer = Answer()
        else:
            answer = held[ask.go](ask)
        answer = msgspec.structs.replace(answer, memory=most_memory())
        answers.write(msgspec.json.encode(answer).decode() + "\n")
        answers.flush()
    return 0


def _made(work: Work) -> Go:
    """What does a work, warm."""
    if work.is_own:
        determinism.prepare(work.device, work.threads)
    else:
        torch.set_num_threads(work.threads)
    module, _, name = work.kind.partition(":")
    kind = getattr(importlib.import_module(module), name)
    return {"score": _scoring, "train": _training, "peak": _peak, "figure": _figure}[work.task](work, kind)


def _files(work: Work) -> BaseFiles:
    return BaseFiles(Path(work.folder).name, Path(work.folder), work.pooling, "")


def _sample(file: str) -> Sample:
    return msgspec.json.decode(Path(file).read_bytes(), type=Sample)


def _scoring(work: Work, kind: Any) -> Go:
    one: own_workloads.Reranker = kind(_files(work), work.device, work.precision)
    samples = {"": _sample(work.sample)}
    one.score(reshaped(samples[""], 16, 8))

    def go(ask: Ask) -> Answer:
        if ask.sample not in samples:
            samples.clear()
            samples[ask.sample] = _sample(ask.sample or work.sample)
        sample = samples[ask.sample]
        processor.synchronized(work.device)
        started = time.perf_counter()
        scores = one.score(sample)
        processor.synchronized(work.device)
        seconds = time.perf_counter() - started
        if ask.scores:
            Path(ask.scores).write_text(json.dumps(scores), encoding="utf8")
        return Answer(pairs=sample.pairs, seconds=seconds)

    return go


def _training(work: Work, kind: Any) -> Go:
    sample = _sample(work.sample)
    stage = own_workloads.stage_of(
        sample, precision=work.precision, group_size=work.group_size, groups_per_step=work.groups
    )
    one: own_workloads.Learner = kind(_files(work), sample, stage, work.device)

    def go(_: Ask) -> Answer:
        timed = one.train(work.steps)
        return Answer(pairs=timed.pairs, seconds=timed.seconds, data_seconds=timed.data_seconds)

    return go


def _peak(work: Work, kind: Any) -> Go:
    def go(_: Ask) -> Answer:
        best, sustained = kind(work.device, work.precision)
        return Answer(value=best, sustained=sustained)

    return go


def _figure(work: Work, kind: Any) -> Go:
    def go(_: Ask) -> Answer:
        sample = _sample(work.sample)
        stage = own_workloads.stage_of(
            sample, precision=work.precision, group_size=work.group_size, groups_per_step=work.groups
        )
        return Answer(value=kind(_files(work), sample, stage, work.device))

    return go


if __name__ == "__main__":
    sys.exit(main())
