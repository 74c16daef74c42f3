"""cerank beside its peers on one machine, in one run: speed, equality of scores, memory, and how cost grows.

    pip install 'cerank[bench]'
    python -m tests.benchmarks.peers --dataset ./trec-dl-2020-top100 --threads 2 --only rerank,train,data

Each contender sits in a process of its own, set up as its user's would be: cerank as its launcher and worker do it,
the others with the same count of threads and otherwise their defaults. They take turns, and while one computes the
others sleep, so that a machine that slows down slows all of them; a ratio is the median over turns of the ratio within
a turn. One that dies or stalls is a row that says so. The machine should have nothing else to do: threads that wait
by spinning, torch's default, suffer most from company (--peers-sleep has the others' threads sleep as cerank's do).

All score by one checkpoint: --checkpoint, or the base after --warm-up steps of training, since a head as drawn gives
all passages nearly one score, whose order says nothing. --keep FOLDER keeps that one for the next run.

Parts (--only): rerank, train, data, growth, lists, evaluation. On 2 cores with MiniLM, 2,000 pairs and 5 turns:
rerank 12 minutes (with --others-turns 0 ten), train 5, data and evaluation under one; growth with
`--growth 1000,10000 --precision bf16 --repeats 3` 5 minutes, and an hour with 100000; lists 2 minutes.

lightning-ir needs transformers 4, and so an environment of its own (see `lightning_peer.py`): --lightning-ir PYTHON.
Nothing is written but a temporary folder and what --keep and --json name.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch

from cerank.bench import own_workloads
from cerank.kernels import determinism
from tests.benchmarks.arena import Arena
from tests.benchmarks.parts import PARTS
from tests.benchmarks.table import Row, printed


def main(argv: Sequence[str] | None = None) -> int:
    started, load = time.perf_counter(), os.getloadavg()[0]
    options = _options(argv)
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    with TemporaryDirectory() as room:
        arena = Arena(options, Path(room))
        print(_head(arena, load), flush=True)
        for part in options.only.split(","):
            for row in PARTS[part](arena, _heard):
                rows.append(row)
                _heard(f"{row.what}: {row.measured} {row.verdict}")
    print(printed(rows))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.encode(rows))
    held, missed = (sum(row.is_held is each for row in rows) for each in (True, False))
    print(f"\n{held} goals held, {missed} missed; {time.perf_counter() - started:.0f} s in all")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--base", default="minilm", help="a base that is trained a little first")
    add("--checkpoint", default="", help="a checkpoint of cerank's with a classifier's head, in place of the base")
    add("--keep", default="", help="a folder for what the base came to, to be the next run's --checkpoint")
    add("--warm-up", type=int, default=40, help="steps that train the base")
    add("--dataset", default="", help="whose texts; left out: generated ones")
    add("--first-stage", default="bm25")
    add("--pairs", type=int, default=2000)
    add("--depth", type=int, default=100)
    add("--repeats", type=int, default=5, help="turns")
    add("--steps", type=int, default=4, help="training steps that a turn times, 32 pairs each, after one to get warm")
    add("--others-turns", type=int, default=2, help="turns of those that no goal of re-ranking names; 0: without them")
    add("--others-pairs", type=int, default=300, help="that these score in a turn")
    add("--growth", default="1000,10000", help="numbers of pairs")
    add("--lists", default="10,100,1000", help="lengths of lists, as many pairs in all as the longest")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--device", default="cpu")
    add("--precision", default="fp32,bf16", help="growth and lists take the last")
    add("--only", default="rerank,train,data,evaluation", help=f"of {', '.join(PARTS)}")
    add("--within", type=float, default=900.0, help="seconds that one answer may take")
    add("--peers-sleep", action="store_true", help="have the others' waiting threads sleep, for a machine with company")
    add("--lightning-ir", default="", metavar="PYTHON", help="the Python of an environment that has lightning-ir")
    add("--cache", default="", help="cerank's cache, for BM25 indexes; left out: a temporary one")
    add("--json", default="", help="a file for the rows")
    options = parser.parse_args(argv)
    unknown = set(options.only.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    return options


def _head(arena: Arena, load: float) -> str:
    options, sample = arena.options, arena.sample
    versions = ", ".join(f"{name} {version}" for name, version in own_workloads.versions().items())
    waits = "sleep" if options.peers_sleep else "wait as torch has it"
    return "\n".join(
        [
            f"{sample.pairs} pairs of {sample.name}, {len(sample.lists)} lists, "
            f"{statistics.fmean(arena.lengths):.0f} tokens a pair (longest {max(arena.lengths)}); {arena.model_is}",
            f"{determinism.hardware_name(options.device)}, {options.threads} threads each, the others' {waits}",
            versions,
            f"{options.repeats} turns; load of the machine before the start: {load:.1f}",
            "",
        ]
    )


def _heard(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
