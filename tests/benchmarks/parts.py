"""The parts of the benchmark: each gives rows of the table, measured by contenders in processes of their own."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from scipy.stats import kendalltau

from cerank.bench.interleaved_rounds import BenchProcess, RoundEntry, TaskResponse, run_interleaved
from cerank.bench.text_samples import TextSample
from tests.benchmarks.arena import PEAK, Arena, first_lists, grown
from tests.benchmarks.contenders import LIGHTNING, OWN, PAPER, PEER, Entrant, entrants
from tests.benchmarks.table import Row, rates, ratio, spread

_PEAK = "the peak"
_MIB = 2**20
_GPU_RATE = 7000.0  # pairs a second that a base-size model is estimated to train on an H100


def rerank(arena: Arena, heard: Callable[[str], None]) -> Iterator[Row]:
    """Speed, share of the peak, memory, and whether scores are equal."""
    for precision in arena.options.precision.split(","):
        with ExitStack() as stack:
            yield from _rerank(arena, stack, precision, heard)
    yield from _equality(arena)


def _rerank(arena: Arena, stack: ExitStack, precision: str, heard: Callable[[str], None]) -> Iterator[Row]:
    options = arena.options
    every = entrants("score", precision, options.lightning_ir)
    goals = {who: arena.seated(stack, who, every[who], "score", precision) for who in (OWN, PEER) if who in every}
    peak = arena.seated(stack, _PEAK, PEAK, "peak", precision)
    turns = {_PEAK: RoundEntry(peak, "peak")}
    turns |= {who: RoundEntry(one, "score", scores=_scores(arena, precision, who)) for who, one in goals.items()}
    found = run_interleaved(turns, options.repeats, options.within, heard)
    own, peer = found[OWN], found.get(PEER, [])
    for who, one in goals.items():
        yield Row(f"re-ranking {precision}, {who}", "", _said(one, found[who]))
    yield ratio(f"re-ranking {precision} / {PEER} {precision}", own, peer, 1.8, _why(goals.get(PEER), PEER))
    if len(own) == len(found[_PEAK]) == options.repeats:
        yield _share(arena, precision, own, found[_PEAK])
    if own and peer and own[-1].memory and peer[-1].memory:
        held = own[-1].memory / peer[-1].memory
        figure = f"{held:.2f}x ({own[-1].memory / _MIB:.0f} MiB to {peer[-1].memory / _MIB:.0f})"
        yield Row(f"peak memory of re-ranking {precision} / {PEER}", "<= 1x", figure, held <= 1)
    yield from _others(arena, stack, precision, goals[OWN], heard)


def _others(
    arena: Arena, stack: ExitStack, precision: str, own: BenchProcess, heard: Callable[[str], None]
) -> Iterator[Row]:
    """Those that no goal names: fewer turns, on the first lists alone, which cerank then scores as well."""
    options = arena.options
    part = first_lists(arena.sample, options.others_pairs)
    file = arena.written(part, "part")
    every = entrants("score", precision, options.lightning_ir)
    rest = {
        who: arena.seated(stack, who, every[who], "score", precision, file)
        for who in (every if options.others_turns else ())
        if who not in {OWN, PEER}
    }
    turns = {OWN: RoundEntry(own, "score", sample=file)} | {who: RoundEntry(one, "score") for who, one in rest.items()}
    found = run_interleaved(turns, options.others_turns, options.within, heard)
    for who, one in rest.items():
        yield Row(f"re-ranking {precision}, {who}, {part.pairs} pairs", "", _said(one, found[who]))
        yield ratio(f"re-ranking {precision} / {who}, {part.pairs} pairs", found[OWN], found[who], 0, one.failure)
    if not options.lightning_ir:
        yield _without_lightning()


def _without_lightning() -> Row:
    return Row(LIGHTNING, "", "left out: --lightning-ir names no Python that has it (it needs transformers 4)")


def _said(one: BenchProcess, found: Sequence[TaskResponse]) -> str:
    """The rates of a contender and the most that its process held, or why there are none."""
    if one.failure or not found:
        return f"left out: {one.failure or 'no turn'}"
    return f"{rates(found)}; {found[-1].memory / _MIB:.0f} MiB at most"


def _why(one: BenchProcess | None, who: str) -> str:
    return f"{who} is not installed" if one is None else one.failure


def _share(arena: Arena, precision: str, own: Sequence[TaskResponse], peaks: Sequence[TaskResponse]) -> Row:
    rate = arena.needed(arena.sample) / arena.sample.pairs
    best = [100 * one.rate * rate / peak.value for one, peak in zip(own, peaks, strict=True)]
    lasting = [100 * one.rate * rate / peak.sustained for one, peak in zip(own, peaks, strict=True)]
    what = f"re-ranking {precision}, share of the measured {precision} GEMM peak"
    figure = (
        f"{spread(best, '.0f', ' %')} of {statistics.median(peak.value for peak in peaks) / 1e9:.0f} GFLOP/s, the best "
        f"product's; {statistics.median(lasting):.0f} % of what products of that shape sustain"
    )
    is_held = statistics.median(best) >= 70
    return Row(what, ">= 70 %", figure, is_held) if precision == "fp32" else Row(what, "", figure)


def _scores(arena: Arena, precision: str, who: str) -> str:
    return str(arena.room / f"scores {precision} {who}.json")


def _lists(arena: Arena, precision: str, who: str) -> list[list[float]]:
    """Scores by list; none where it did not score."""
    try:
        with open(_scores(arena, precision, who), encoding="utf8") as file:  # noqa: PTH123 - a name that may not be
            scores = json.load(file)
    except FileNotFoundError:
        return []
    ends = list(itertools.accumulate(map(len, arena.sample.lists.values()), initial=0))
    return [scores[start:end] for start, end in itertools.pairwise(ends)]


def _equality(arena: Arena) -> Iterator[Row]:
    own, peer = _lists(arena, "fp32", OWN), _lists(arena, "fp32", PEER)
    if own and peer:
        yield from equal(own, peer, arena.model_is)
    if own:
        yield agreement(f"Kendall tau of bf16 to float32, {OWN}", own, _lists(arena, "bf16", OWN), ">= .99")
    if peer:
        yield agreement(f"Kendall tau of bf16 to float32, {PEER}", peer, _lists(arena, "bf16", PEER), "")


def equal(own: Sequence[Sequence[float]], peer: Sequence[Sequence[float]], model_is: str) -> Iterator[Row]:
    """Whether scores and rankings by list are the same.

    A pair of passages ranked the other way round is told with how far apart they are.
    """
    largest = max(abs(a - b) for left, right in zip(own, peer, strict=True) for a, b in zip(left, right, strict=True))
    deviation = statistics.pstdev(itertools.chain.from_iterable(own))
    figure = f"{largest:.1e}, where scores deviate by {deviation:.2f} ({model_is})"
    yield Row("float32, largest difference of a score", "<= 1e-4", figure, largest <= 1e-4)
    orders = [(_order(left), _order(right)) for left, right in zip(own, peer, strict=True)]
    same = sum(left == right for left, right in orders)
    gaps = [
        abs(scores[a] - scores[b])
        for scores, (left, right) in zip(own, orders, strict=True)
        for a, b in zip(left, right, strict=True)
    ]
    apart = "" if same == len(orders) else f"; those that changed places are {max(gaps):.1e} apart at most"
    yield Row("float32, same ranking", "all lists", f"{same} of {len(orders)} lists{apart}", same == len(orders))


def _order(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda at: -scores[at])


def agreement(what: str, exact: Sequence[Sequence[float]], rough: Sequence[Sequence[float]], goal: str) -> Row:
    """Kendall's tau of two scorings, mean over lists."""
    if not rough:
        return Row(what, goal, "bf16 was not asked for")
    taus = [kendalltau(a, b).statistic for a, b in zip(exact, rough, strict=True) if len(a) > 1]
    middle = statistics.fmean(taus)
    figure = f"{middle:.4f} (mean over {len(taus)} lists; lowest {min(taus):.4f})"
    return Row(what, goal, figure, middle >= 0.99 if goal else None)


def train(arena: Arena, heard: Callable[[str], None]) -> Iterator[Row]:
    """Speed of training, how exact gradients are, and what data takes of a step."""
    options = arena.options
    for precision in options.precision.split(","):
        every = entrants("train", precision, options.lightning_ir)
        with ExitStack() as stack:
            seats = {who: arena.seated(stack, who, one, "train", precision) for who, one in every.items()}
            turns = {who: RoundEntry(one, "train") for who, one in seats.items()}
            found = run_interleaved(turns, options.repeats, options.within, heard)
        for who, one in seats.items():
            yield Row(f"training {precision}, {who}", "", _said(one, found[who]))
        own = found[OWN]
        goals = {PEER: 2.0, PAPER: 4.0}
        for who in dict.fromkeys([PEER, *every]):
            if who != OWN:
                what = f"training {precision} / {who}" + f" {precision}" * (who == PEER)
                why = _why(seats.get(who), who)
                yield ratio(what, own, found.get(who, []), goals.get(who, 0.0), why)
        if own:
            share = [100 * one.data_seconds / one.seconds for one in own]
            yield Row(f"training {precision}, data and tokenizing, of a step", "", spread(share, ".1f", " %"))
        yield _gradients(arena, precision)
    if not options.lightning_ir:
        yield _without_lightning()


def _gradients(arena: Arena, precision: str) -> Row:
    what = f"training {precision}, relative error of a step's gradient to transformers' fp32, no dropout"
    goal = "<= 1e-5" if precision == "fp32" else ""
    with ExitStack() as stack:
        one = arena.seated(stack, OWN, _figure_of("gradient_error"), "figure", precision)
        found = one.run("figure", arena.options.within)
    if found is None:
        return Row(what, goal, f"not measured: {one.failure}")
    return Row(what, goal, f"{found.value:.1e}", found.value <= 1e-5 if goal else None)


def _figure_of(name: str) -> Entrant:
    everyone = entrants("train", "bf16", "")
    return Entrant(f"tests.benchmarks.contenders:{name}", is_own=True, program=everyone[PAPER].program)


def data(arena: Arena, heard: Callable[[str], None]) -> Iterator[Row]:
    """How fast pairs of tokenized texts are laid end to end for training, against what a GPU would take."""
    heard("assembly")
    with ExitStack() as stack:
        one = arena.seated(
            stack, OWN, Entrant("tests.benchmarks.contenders:assembly_rate", is_own=True), "figure", "fp32"
        )
        found = [one.run("figure", arena.options.within) for _ in range(arena.options.repeats)]
    values = [answer.value for answer in found if answer is not None]
    if not values:
        yield Row("assembly of tokenized pairs", "", f"not measured: {one.failure}")
        return
    share = _GPU_RATE / statistics.median(values)
    figure = f"{spread(values, ',.0f')} pairs/s; {share:.0%} of a step at {_GPU_RATE:,.0f} pairs/s on a GPU"
    yield Row("assembly of tokenized pairs, one thread", "", figure)


def growth(arena: Arena, heard: Callable[[str], None]) -> Iterator[Row]:
    """Cost of a pair by the number of pairs."""
    sizes = sorted(map(int, arena.options.growth.split(",")))
    depth = min(arena.options.depth, sizes[0])
    samples = {f"{size:,} pairs": grown(arena.sample, size, depth, sizes[0]) for size in sizes}
    yield from _costs(arena, samples, heard)


def lists(arena: Arena, heard: Callable[[str], None]) -> Iterator[Row]:
    """Cost of a pair by the length of lists."""
    depths = sorted(map(int, arena.options.lists.split(",")))
    samples = {f"lists of {depth:,}": grown(arena.sample, depths[-1], depth, depths[-1]) for depth in depths}
    yield from _costs(arena, samples, heard)


def _costs(arena: Arena, samples: dict[str, TextSample], heard: Callable[[str], None]) -> Iterator[Row]:
    """The first sample is scored before and after each other, so that a machine that drifts is none's advantage."""
    options = arena.options
    precision = options.precision.split(",")[-1]
    first, *larger = samples
    files = {name: arena.written(sample, name) for name, sample in samples.items()}
    per_pair = {name: arena.needed(sample) / sample.pairs for name, sample in samples.items()}
    costs: dict[str, list[float]] = {name: [] for name in larger}
    found: dict[str, list[TaskResponse]] = {name: [] for name in samples}
    with ExitStack() as stack:
        one = arena.seated(stack, OWN, entrants("score", precision, "")[OWN], "score", precision, files[first])

        def cost(name: str) -> float:
            heard(name)
            answer = one.run("score", options.within, sample=files[name])
            if answer is None:
                return float("nan")
            found[name].append(answer)
            return 1 / answer.rate / per_pair[name]

        cost(first)
        found[first].clear()
        for _ in range(options.repeats):
            before = cost(first)
            for name in larger:
                here, after = cost(name), cost(first)
                costs[name].append(2 * here / (before + after))
                before = after
    for name in samples:
        yield Row(f"re-ranking {precision}, {name}", "", _said(one, found[name]))
    for name in larger:
        what = f"re-ranking {precision}, cost of a pair: {name} / {first}"
        middle = statistics.median(costs[name])
        if one.failure:
            yield Row(what, "1 within 10 %", one.failure)
        else:
            yield Row(what, "1 within 10 %", spread(costs[name], ".3f"), abs(middle - 1) <= 0.1)


def evaluation(arena: Arena, heard: Callable[[str], None]) -> Iterator[Row]:
    """Reading and measuring a large run."""
    from tests.benchmarks.evaluation import measured

    heard("evaluation")
    found = [measured() for _ in range(arena.options.repeats)]
    what = "reading and measuring 6,980 queries x 100"
    yield Row(what, "< 0.4 s", spread(found, unit=" s"), statistics.median(found) < 0.4)


PARTS = {
    "rerank": rerank,
    "train": train,
    "data": data,
    "growth": growth,
    "lists": lists,
    "evaluation": evaluation,
}
