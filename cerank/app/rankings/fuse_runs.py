"""Fuse rankings, and interpolate a re-ranker with its first stage: the weight is chosen on validation queries alone.

Invariant: nothing is chosen on the queries that are fused; a weight comes from other queries, or from the user.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.app.comparison import named_systems
from cerank.app.comparison.measuring import named_judgments, run_systems
from cerank.app.rerank_dataset import STDOUT, RerankRequest, rerank
from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.files import disk
from cerank.retrieval import rank_fusion
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown

ALPHAS = tuple(step / 20 for step in range(21))  # 0, .05 ... 1: how much of the re-ranker's score counts


MEASURE = "nDCG@10"


class FusionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to fuse, how, and where to write it."""

    targets: tuple[str, ...]  # runs (RUN:STAGE) or TREC run files; for an interpolation the first stage, the re-ranking
    method: str
    output: Path  # compressed if it ends in .gz; "-" is standard output
    k: int = rank_fusion.RRF_K
    weights: tuple[float, ...] = ()  # of a weighted sum; empty: all 1
    alpha: float | None = None  # of an interpolation; None: chosen on validation
    validation: tuple[str, ...] = ()  # TREC run files of the validation queries, in the order of the targets
    measure: str = MEASURE  # by which it is chosen
    dataset: str = ""  # validation qrels; for runs of the lab, the test dataset to take
    qrels: str = ""
    first_stage: str = ""  # of runs over several, the one to take
    replace: bool = False


class ChosenAlpha(msgspec.Struct, frozen=True, kw_only=True):
    """The weight of a re-ranker beside its first stage, and what it was chosen by."""

    alpha: float
    measure: str
    queries: int
    means: tuple[tuple[float, float], ...]  # weight -> mean of the measure, over the whole grid

    def mean(self, alpha: float) -> float:
        """Return the mean that a weight of the grid came to."""
        return dict(self.means)[alpha]


class FusionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A fused ranking as a TREC run."""

    queries: int
    run: bytes  # as text
    tag: str
    notes: tuple[str, ...]


def fuse(settings: Settings, request: FusionRequest) -> FusionResult:
    """Fuse the rankings and write the TREC run, whole or not at all.

    Raises:
        UsageError: a method that does not exist, options that it does not have, rankings without common queries, an
            interpolation whose weight would be chosen on nothing or on the queries that it is for.
    """
    _check(request)
    _check_output(request.output, replace=request.replace)
    notes: list[str] = []
    rankings = [_ranking(settings, text, request, notes) for text in request.targets]
    notes += _coverage(rankings, request.targets)
    if request.method == rank_fusion.RRF:
        fused, tag = rank_fusion.rrf(rankings, request.k), f"rrf-k{request.k}"
    elif request.method == rank_fusion.WEIGHTED_SUM:
        weights = request.weights or (1.0,) * len(rankings)
        fused = rank_fusion.weighted_sum([rank_fusion.min_max(ranking) for ranking in rankings], weights)
        tag = f"wsum-{'-'.join(f'{weight:g}' for weight in weights)}"
    elif request.method == rank_fusion.INTERPOLATE:
        fused, tag, said = _interpolate(settings, request, rankings)
        notes += said
    else:
        fused, tag = rank_fusion.fuse_by_ranx(rankings, request.method), f"ranx-{request.method}"
    from cerank.trec.text_io import write_run

    packed = write_run(fused, tag)
    plain = gzip.decompress(packed)
    if str(request.output) not in STDOUT:
        disk.write(request.output.resolve(), packed if request.output.suffix == ".gz" else plain)
    return FusionResult(queries=len(fused), run=plain, tag=tag, notes=tuple(notes))


def _check(request: FusionRequest) -> None:
    """Refuse what the method cannot do, before anything is read."""
    rank_fusion.check_method(request.method)
    if len(request.targets) < 2:
        raise UsageError("a fusion needs at least two rankings", hint="such as `cerank fuse a.run b.run`")
    is_chosen = request.method == rank_fusion.INTERPOLATE and request.alpha is None
    unused = (
        ("--weights", request.weights and request.method != rank_fusion.WEIGHTED_SUM, "it belongs to wsum"),
        ("--k", request.k != rank_fusion.RRF_K and request.method != rank_fusion.RRF, "it belongs to rrf"),
        (
            "--alpha",
            request.alpha is not None and request.method != rank_fusion.INTERPOLATE,
            "interpolate alone has it",
        ),
        ("--validation", request.validation and not is_chosen, "only interpolate without --alpha chooses by it"),
        ("--measure", request.measure != MEASURE and not is_chosen, "only interpolate without --alpha chooses by it"),
        ("--qrels", request.qrels and not request.validation, "judgments are read to choose alpha on --validation"),
    )
    for option, is_unused, what in unused:
        if is_unused:
            raise UsageError(what, where=option, hint="leave it out, or take that method", code="option-unused")
    if request.method == rank_fusion.INTERPOLATE:
        _check_interpolation(request)
    if request.weights:
        _check_weights(request)


def _check_interpolation(request: FusionRequest) -> None:
    if len(request.targets) != 2:
        what = f"an interpolation has two rankings, the first stage and its re-ranking, not {len(request.targets)}"
        raise UsageError(what, where="--method interpolate", hint="take wsum for more", code="interpolation-of-two")
    if request.alpha is not None and not 0 <= request.alpha <= 1:
        raise UsageError(f"{request.alpha:g} is not between 0 and 1", where="--alpha", code="alpha-out-of-range")


def _check_weights(request: FusionRequest) -> None:
    if len(request.weights) != len(request.targets):
        what = f"{counted(len(request.weights), 'weight')} for {counted(len(request.targets), 'ranking')}"
        raise UsageError(what, where="--weights", hint="give one each", code="weights-count")
    if any(not math.isfinite(weight) or weight < 0 for weight in request.weights) or not sum(request.weights):
        raise UsageError("weights are numbers from 0, not all 0", where="--weights", code="weights-out-of-range")


def _check_output(path: Path, *, replace: bool) -> None:
    if str(path) in STDOUT:
        return
    if not path.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(path))
    if path.exists() and not replace:
        raise UsageError("the file exists already", where=str(path), hint="--replace overwrites it", code="file-exists")


def _ranking(settings: Settings, text: str, request: FusionRequest, notes: list[str]) -> Ranking:
    """Return the ranking in a TREC run file, or that of a run's stage on one test dataset over one first stage.

    What is odd about a file is added to `notes`.
    """
    from cerank.trec.text_io import read_run

    target = named_systems.target(settings.lab, text)
    if isinstance(target, named_systems.FileTarget):
        run = read_run(target.path)
        notes += [f"{shown(text, 80)}: {note}" for note in run.notes]
        return run.ranking
    if target.system not in named_systems.systems_of(target.plan):
        what = f"{target.system} is an order for comparisons, made from judgments or at random"
        raise UsageError(what, where=text, hint="fuse what was ranked", code="reference-order-fused")
    data = target.plan.recipe.data
    of_a_run = "" if request.validation else request.dataset
    tests = [test for test in data.test if of_a_run in {"", test, named_systems.short_name(test)}]
    firsts = [
        first for first in data.first_stages if request.first_stage in {"", first, named_systems.short_name(first)}
    ]
    for option, matching, given in (("--dataset", tests, data.test), ("--first-stage", firsts, data.first_stages)):
        if len(matching) != 1:
            what = (
                f"run {run_store.title(target.folder)} has several; name one" if matching else "the run has no such one"
            )
            raise UsageError(what, where=option, hint=f"they are {', '.join(given)}", code="ranking-not-unique")
    return run_systems.ranking_of_run(target, tests[0], firsts[0])


def _coverage(rankings: Sequence[Ranking], names: Sequence[str]) -> list[str]:
    """Return how many queries are not in every ranking.

    Raises:
        UsageError: the rankings have no query in common.
    """
    shared = set.intersection(*(set(ranking) for ranking in rankings))
    every = set.union(*(set(ranking) for ranking in rankings))
    if not shared:
        what = f"{' and '.join(shown(name, 80) for name in names)} have no query in common"
        raise UsageError(what, hint="fuse rankings of the same queries", code="no-common-query")
    if len(shared) == len(every):
        return []
    return [f"{len(every) - len(shared)} of {counted(len(every), 'query')} are not in every ranking"]


def _interpolate(
    settings: Settings, request: FusionRequest, rankings: Sequence[Ranking]
) -> tuple[Ranking, str, list[str]]:
    """Return the interpolated ranking, its tag, and how its weight was chosen."""
    first, reranked = rankings
    if request.alpha is not None:
        tag = f"{rank_fusion.INTERPOLATED};alpha={request.alpha:g};as=given"
        note = f"alpha {request.alpha:g} was given: that it was not chosen on these queries is yours to know"
        return rank_fusion.interpolated(first, reranked, request.alpha), tag, [note]
    if not request.validation:
        of_run = _stage_of_one_run(settings, request)
        if of_run is not None:
            return _chosen_by_run(settings, request, of_run, first, reranked)
    if len(request.validation) != 2:
        what = "alpha has no validation queries to be chosen on, and is never chosen on the queries that are fused"
        hint = (
            "give --validation FIRST_STAGE_RUN RE_RANKED_RUN with their --qrels or --dataset, or fuse RUN:first-stage "
            "with RUN:STAGE, whose recipe names validation queries, or give --alpha"
        )
        raise UsageError(what, where="--method interpolate", hint=hint, code="alpha-without-validation")
    name, qrels = named_judgments.judgments(settings, request.dataset, request.qrels)
    notes: list[str] = []
    before, after = (_ranking(settings, text, request, notes) for text in request.validation)
    shared = sorted((set(before) | set(after)) & (set(first) | set(reranked)))
    if shared:
        what = f"{counted(len(shared), 'query')} of the validation runs are among those that are fused"
        hint = f"such as {shown(shared[0], 40)}; choose alpha on other queries"
        raise UsageError(what, where="--validation", hint=hint, code="validation-on-test")
    chosen = choose_alpha(before, after, qrels, request.measure)
    tag = f"{rank_fusion.INTERPOLATED};alpha={chosen.alpha:g};chosen-on={'_'.join(name.split())}"
    return rank_fusion.interpolated(first, reranked, chosen.alpha), tag, [*notes, describe(chosen, name)]


def _stage_of_one_run(settings: Settings, request: FusionRequest) -> named_systems.RunTarget | None:
    """Return the stage that is interpolated with the first stage of its own run; None for anything else."""
    first, stage = (named_systems.target(settings.lab, text) for text in request.targets)
    if not isinstance(first, named_systems.RunTarget) or not isinstance(stage, named_systems.RunTarget):
        return None
    is_pair = first.system == named_systems.FIRST_STAGE and stage.system in stage.plan.recipe.chain
    return stage if is_pair and first.folder == stage.folder else None


def _chosen_by_run(
    settings: Settings, request: FusionRequest, stage: named_systems.RunTarget, first: Ranking, reranked: Ranking
) -> tuple[Ranking, str, list[str]]:
    """Interpolate with the weight that is best on the validation queries of the run's recipe, re-ranked here."""
    from cerank.datasets.open_datasets import open_dataset
    from cerank.planning.inputs import validation_dataset
    from cerank.retrieval.first_stage import candidates
    from cerank.trec.text_io import run_of

    data = stage.plan.recipe.data
    firsts = [name for name in data.first_stages if request.first_stage in {"", name, named_systems.short_name(name)}]
    validation = validation_dataset(stage.plan.recipe, stage.plan.recipe.stages[stage.system])
    dataset = open_dataset(validation, settings.cache)
    before = candidates(dataset, firsts[0], data.depth, settings.cache)
    done = rerank(
        settings,
        RerankRequest(
            checkpoint=f"{stage.folder.name}:{stage.system}",
            dataset=validation,
            first_stage=firsts[0],
            depth=data.depth,
            precision=None,
            output=Path("-"),
        ),
        lambda _done, _total: None,
    )
    rows = (line.split() for line in done.run.decode().splitlines())
    after = run_of(((row[0], row[2], float(row[4])) for row in rows), "validation", validation).ranking
    chosen = choose_alpha(before, after, dataset.qrels, request.measure)
    tag = f"{rank_fusion.INTERPOLATED};alpha={chosen.alpha:g};chosen-on={'_'.join(validation.split())}"
    return rank_fusion.interpolated(first, reranked, chosen.alpha), tag, [describe(chosen, validation)]


def choose_alpha(
    first: Ranking, reranked: Ranking, qrels: Mapping[str, Mapping[str, int]], measure: str
) -> ChosenAlpha:
    """Return the weight of the grid with the best mean; of equals the largest, which is nearest to the re-ranker alone.

    Raises:
        UsageError: no query of the rankings is judged, or there is no such measure.
    """
    from cerank.evaluation.measures import check, per_query

    judged = {query: qrels[query] for query in qrels if query in reranked}
    if not judged:
        raise UsageError("no query of the validation runs is judged", where="--validation", code="no-judged-query")
    (name,) = check([measure], judged, "--measure")
    means = []
    for alpha in ALPHAS:
        values = per_query([name], judged, rank_fusion.interpolated(first, reranked, alpha))[name]
        means.append((alpha, math.fsum(values.values()) / len(values)))
    best = max(means, key=lambda pair: (round(pair[1], 12), pair[0]))
    return ChosenAlpha(alpha=best[0], measure=name, queries=len(judged), means=tuple(means))


def describe(chosen: ChosenAlpha, name: str) -> str:
    """Return the weight, what it was chosen on, and what either ranking alone came to there."""
    return (
        f"alpha {chosen.alpha:g} of the re-ranker, chosen on {counted(chosen.queries, 'validation query')} of {name}: "
        f"{chosen.measure} {chosen.mean(chosen.alpha):.4f}, against {chosen.mean(1.0):.4f} of the re-ranker alone and "
        f"{chosen.mean(0.0):.4f} of the first stage"
    )
