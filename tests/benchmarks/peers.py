"""cerank beside its peers on one machine, in one run: speed, equality of scores, memory, and how cost grows.

    pip install 'cerank[peers]'
    export OMP_WAIT_POLICY=PASSIVE  # where the machine is shared
    python -m tests.benchmarks.peers --dataset ./trec-dl-2020-top100 --first-stage bm25 --pairs 2000 --repeats 5

Contenders take turns, so that a machine that slows down slows all of them; a ratio is the median over turns of the
ratio within a turn. Models are trained a little first, so that their scores are apart as those of a real re-ranker.
Single parts: --only rerank,train,memory,growth,lists,evaluation. Nothing is written but a temporary folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch
from scipy.stats import kendalltau

from cerank.data.bases import BaseFiles, fingerprint, locate
from cerank.data.datasets import open_dataset
from cerank.data.samples import Sample, generated, of_dataset, reshaped
from cerank.learn import determinism, model, speed
from cerank.learn.speed import Own, OwnTraining, Timed, stage_of
from tests.benchmarks.contenders import learners, rerankers

PARTS = ("rerank", "train", "memory", "growth", "lists", "evaluation")
PEER = "sentence-transformers"


class Row(msgspec.Struct, frozen=True):
    """One line of the table: what, the figure, the goal, and whether it is met (None: no goal)."""

    what: str
    figure: str
    goal: str = ""
    is_met: bool | None = None


def main(argv: Sequence[str] | None = None) -> int:
    started = time.perf_counter()
    options = _options(argv)
    torch.set_num_threads(options.threads)
    determinism.prepare(options.device, options.threads)
    if options.child:
        print(_child(options))
        return 0
    sample = _sample(options)
    with TemporaryDirectory() as room:
        files = _model(options, sample, Path(room))
        print(_head(options, sample, files), flush=True)
        rows: list[Row] = []
        for part in options.only.split(","):
            for row in _PARTS[part](options, sample, files):
                rows.append(row)
                print(_line(row), flush=True)
    if options.json:
        Path(options.json).write_bytes(msgspec.json.encode(rows))
    met, missed = (sum(row.is_met is each for row in rows) for each in (True, False))
    print(f"\n{met} goals met, {missed} missed; {time.perf_counter() - started:.0f} s in all")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="minilm", help="a base, or a checkpoint that all of them load")
    parser.add_argument("--dataset", default="", help="whose texts; left out: generated ones")
    parser.add_argument("--first-stage", default="bm25")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="training steps of one turn, 32 pairs each")
    parser.add_argument("--warm-up", type=int, default=40, help="steps that train the model before it is timed")
    parser.add_argument("--growth", default="1000,10000", help="numbers of pairs; 100000 takes minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--cache", default="", help="cerank's cache, for BM25 indexes; left out: a temporary one")
    parser.add_argument("--json", default="", help="a file for the rows")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _sample(options: argparse.Namespace) -> Sample:
    if not options.dataset:
        return generated(options.pairs, options.depth)
    with TemporaryDirectory() as room:
        cache = Path(options.cache or room)
        dataset = open_dataset(options.dataset, cache)
        return of_dataset(dataset, options.first_stage, pairs=options.pairs, depth=options.depth, cache=cache)


def _model(options: argparse.Namespace, sample: Sample, room: Path) -> BaseFiles:
    """A checkpoint that all load, with scores apart: an untrained head ranks by noise, which bf16 would reorder."""
    if (Path(options.base) / "cerank.json").is_file():
        return locate(options.base)
    files = speed.checkpoint_of(locate(options.base), room / "new")
    if not options.warm_up:
        return files
    stage = msgspec.structs.replace(
        stage_of(sample, precision="fp32", group_size=8, groups_per_step=4), learning_rate=1e-4
    )
    learner = OwnTraining(files, sample, stage, options.device)
    learner.train(options.warm_up)
    folder = room / "model"
    trained, tokenizer = learner.model, model.tokenizer_of(files.folder)
    model.save(trained, tokenizer, folder, speed.MAX_LENGTH, speed.MAX_QUERY_LENGTH)
    return BaseFiles(files.name, folder, files.pooling, fingerprint(folder))


def _head(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> str:
    lengths = speed.lengths_of(files, sample)
    versions = speed.versions()
    return "\n".join(
        [
            f"{sample.pairs} pairs of {sample.name}, {len(sample.lists)} lists, {statistics.fmean(lengths):.0f} tokens "
            f"a pair (longest {max(lengths)}); base {options.base} ({files.pooling})",
            f"{determinism.device_name(options.device)}, {options.threads} threads; "
            + ", ".join(f"{name} {version}" for name, version in versions.items()),
            f"{options.repeats} turns; medians, and ratios as medians of the ratio within a turn [lowest, highest]",
            "",
        ]
    )


def _line(row: Row) -> str:
    mark = {True: "met", False: "MISSED", None: ""}[row.is_met]
    return f"{row.what:<62} {row.figure:<44} {row.goal:<12} {mark}"


def _rates(turns: Sequence[Timed]) -> str:
    rates = [turn.rate for turn in turns]
    return f"{statistics.median(rates):.1f} pairs/s [{min(rates):.1f}, {max(rates):.1f}]"


def _turns(work: dict[str, Callable[[], Timed]], repeats: int) -> dict[str, list[Timed]]:
    """Name -> timings; every turn takes all of them, each turn starting one further."""
    names = list(work)
    found: dict[str, list[Timed]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(work[name]())
    return found


def _ratio(what: str, own: Sequence[Timed], peer: Sequence[Timed], goal: float) -> Row:
    ratios = [left.rate / right.rate for left, right in zip(own, peer, strict=True)]
    middle = statistics.median(ratios)
    is_met = middle >= goal if goal else None
    return Row(what, f"{middle:.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]", f">= {goal:g}x" if goal else "", is_met)


def _rerank(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> list[Row]:
    rows: list[Row] = []
    needed = speed.work_of(files, speed.lengths_of(files, sample))
    reference: list[float] = []
    warm = reshaped(sample, 16, 8)
    for precision in options.precision.split(","):
        every = {name: kind(files, options.device, precision) for name, kind in rerankers(precision).items()}
        for one in every.values():
            one.score(warm)
        peaks: list[float] = []

        def timing(one: speed.Reranker) -> Callable[[], Timed]:
            return lambda: speed.timed(one, sample, options.device)

        def peak(kind: str = precision, into: list[float] = peaks) -> Timed:
            into.append(speed.gemm_peak(options.device, kind))
            return Timed(1, 1.0)

        work: dict[str, Callable[[], Timed]] = {name: timing(one) for name, one in every.items()}
        found = _turns({"the peak": peak, **work}, options.repeats)
        share = [needed / turn.seconds / best for turn, best in zip(found["cerank"], peaks, strict=True)]
        rows += [Row(f"re-ranking {precision}, {name}", _rates(found[name])) for name in every]
        for name in every:
            goal = 1.8 if name == PEER else 0.0
            if name != "cerank":
                rows.append(_ratio(f"re-ranking {precision}, cerank / {name}", found["cerank"], found[name], goal))
        middle = statistics.median(share)
        met = middle >= 0.7 if precision == "fp32" else None
        figure = f"{middle:.1%} of {statistics.median(peaks) / 1e9:.0f} GFLOP/s"
        rows.append(
            Row(
                f"re-ranking {precision}, share of the measured GEMM peak",
                figure,
                ">= 70 %" * bool(met is not None),
                met,
            )
        )
        scores = every["cerank"].score(sample)
        if precision == "fp32":
            reference = scores
            if PEER in every:
                rows += _equality(sample, scores, every[PEER].score(sample))
        elif reference:
            rows.append(_agreement(sample, reference, scores))
    return rows


def _lists(sample: Sample, scores: Sequence[float]) -> list[list[float]]:
    ends = list(itertools.accumulate(map(len, sample.lists.values()), initial=0))
    return [list(scores[start:end]) for start, end in itertools.pairwise(ends)]


def _equality(sample: Sample, own: Sequence[float], peer: Sequence[float]) -> list[Row]:
    largest = max(abs(left - right) for left, right in zip(own, peer, strict=True))
    same = [
        sorted(range(len(a)), key=lambda at: -a[at]) == sorted(range(len(b)), key=lambda at: -b[at])
        for a, b in zip(_lists(sample, own), _lists(sample, peer), strict=True)
    ]
    spread = statistics.pstdev(own)
    return [
        Row(
            f"largest difference of a score (their deviation: {spread:.2f})",
            f"{largest:.1e}",
            "<= 1e-4",
            largest <= 1e-4,
        ),
        Row("lists in the same order", f"{sum(same)} of {len(same)}", "all", all(same)),
    ]


def _agreement(sample: Sample, exact: Sequence[float], rough: Sequence[float]) -> Row:
    taus = [kendalltau(a, b).statistic for a, b in zip(_lists(sample, exact), _lists(sample, rough), strict=True)]
    middle = statistics.fmean(taus)
    return Row("Kendall tau of bf16 to float32, mean over lists", f"{middle:.4f}", ">= .99", middle >= 0.99)


def _train(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> list[Row]:
    rows: list[Row] = []
    own: dict[str, list[Timed]] = {}
    for precision in options.precision.split(","):
        stage = stage_of(sample, precision=precision, group_size=8, groups_per_step=4)
        every = {name: kind(files, sample, stage, options.device) for name, kind in learners(precision).items()}

        def timing(one: speed.Learner) -> Callable[[], Timed]:
            return lambda: one.train(options.steps)

        found = _turns({name: timing(one) for name, one in every.items()}, options.repeats)
        own[precision] = found["cerank"]
        rows += [Row(f"training {precision}, {name}", _rates(found[name])) for name in every]
        for name in every:
            if name != "cerank":
                goal = 2.0 if name == PEER else 4.0
                rows.append(_ratio(f"training {precision}, cerank / {name}", found["cerank"], found[name], goal))
    return rows


def _memory(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> list[Row]:
    """Each in a process of its own, for a peak never falls again."""
    rows: list[Row] = []
    for precision in options.precision.split(","):
        peaks: dict[str, float] = {}
        for name in rerankers(precision):
            if name in {"cerank", PEER}:
                found = json.loads(_spawned(options, files, f"{name}:{precision}"))
                peaks[name] = found["peak"]
                figure = f"{found['peak'] / 2**20:.0f} MiB, {found['before'] / 2**20:.0f} of them before the first pair"
                rows.append(Row(f"peak memory of re-ranking {precision}, {name}", figure))
        if PEER in peaks:
            ratio = peaks["cerank"] / peaks[PEER]
            rows.append(Row(f"peak memory {precision}, cerank / {PEER}", f"{ratio:.2f}x", "<= 1x", ratio <= 1))
    return rows


def _spawned(options: argparse.Namespace, files: BaseFiles, child: str) -> str:
    words = [sys.executable, "-m", "tests.benchmarks.peers", "--child", child, "--base", str(files.folder)]
    for name in ("dataset", "first_stage", "pairs", "depth", "threads", "device", "cache"):
        if getattr(options, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


def _child(options: argparse.Namespace) -> str:
    name, _, precision = options.child.partition(":")
    sample = _sample(options)
    one = rerankers(precision)[name](locate(options.base), options.device, precision)
    before = _peak_bytes()
    one.score(sample)
    return json.dumps({"before": before, "peak": _peak_bytes()})


def _peak_bytes() -> int:
    """The largest resident size of this process; not getrusage's, which a child inherits from who started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's peak memory")


def _growth(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> list[Row]:
    samples = {
        f"{pairs} pairs": reshaped(sample, pairs, options.depth) for pairs in map(int, options.growth.split(","))
    }
    return _costs(options, files, samples, "cost of a pair as work grows")


def _by_list(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> list[Row]:
    samples = {f"lists of {depth}": reshaped(sample, options.pairs, depth) for depth in (10, 100, 1000)}
    return _costs(options, files, samples, "cost of a pair as lists grow")


def _costs(options: argparse.Namespace, files: BaseFiles, samples: dict[str, Sample], what: str) -> list[Row]:
    one = Own(files, options.device, "fp32")
    one.score(reshaped(next(iter(samples.values())), 16, 8))

    def timing(sample: Sample) -> Callable[[], Timed]:
        return lambda: speed.timed(one, sample, options.device)

    found = _turns({name: timing(sample) for name, sample in samples.items()}, options.repeats)
    # a sample of other texts has other lengths: cost is counted by the operations that its pairs need
    needed = {name: speed.work_of(files, speed.lengths_of(files, sample)) for name, sample in samples.items()}
    costs = {name: statistics.median(turn.seconds for turn in found[name]) / needed[name] for name in samples}
    worst = max(costs.values()) / min(costs.values()) - 1
    rows = [Row(f"re-ranking fp32, {name}", _rates(found[name])) for name in samples]
    return [*rows, Row(what, f"{worst:.1%} between the least and the most", "<= 10 %", worst <= 0.1)]


def _evaluation(options: argparse.Namespace, sample: Sample, files: BaseFiles) -> list[Row]:
    from tests.benchmarks.evaluation import measured

    found = [measured() for _ in range(options.repeats)]
    middle = statistics.median(found)
    return [Row("reading and measuring 6,980 queries x 100", f"{middle:.2f} s", "< 0.4 s", middle < 0.4)]


_PARTS = {
    "rerank": _rerank,
    "train": _train,
    "memory": _memory,
    "growth": _growth,
    "lists": _by_list,
    "evaluation": _evaluation,
}

if __name__ == "__main__":
    sys.exit(main())
