"""Filter a stage's candidates against false negatives before it trains, and keep the list of what was dropped.

Only queries that the stage samples are looked at. The list is written once; a resumed run, and the other processes of
a run on several devices, read it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from cerank.core.rankings import Ranking
from cerank.files import disk
from cerank.planning import inputs
from cerank.recipes.schema import Stage
from cerank.retrieval import false_negatives
from cerank.retrieval.false_negatives import DroppedNegative, FilterCounts
from cerank.retrieval.first_stage import open_given_run
from cerank.runs import checksums
from cerank.teachers.cross_encoder_scores import scores_of
from cerank.teachers.engines.engine import StopTeachingError
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.teachers.work import TeachingProgress
from cerank.training.sampling.sampler import Sampler
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs

_AT_ONCE = 2048  # queries whose texts are in memory at once; a model that scores is loaded for each such part

SamplerKind = TypeVar("SamplerKind", bound=Sampler)
Candidates = Mapping[str, tuple[Sequence[str], Mapping[str, tuple[str, int]]]]  # query -> positives, and negatives
Scores = Callable[[Candidates], Mapping[str, Mapping[str, float]]]


class NegativeFilter:
    """Drops the candidates of a stage that may be relevant; `save` keeps the list once all are known.

    Args:
        context: state of this attempt: the plan, the run's folder, the log, and the request to stop.
        run_inputs: the run's datasets.
        name: name of the stage.
        stage: its settings, with `false_negatives`.
    """

    def __init__(self, context: RunContext, run_inputs: RunInputs, name: str, stage: Stage) -> None:
        self._context, self._inputs, self._name, self._stage = context, run_inputs, name, stage
        self._path = context.folder.dropped_negatives(name)
        self._known = false_negatives.read_list(self._path) if self._path.exists() else None  # by an earlier attempt
        self._scores: Scores | None = None
        self._looked_at: set[str] = set()
        self._dropped: list[DroppedNegative] = []
        self._counts = FilterCounts()

    def filtered(self, sampler: SamplerKind) -> SamplerKind:
        """Return the sampler without the candidates that the filters drop of the queries that it then samples.

        A sampler of fewer queries may follow: what was looked at is not looked at again.

        Raises:
            RunFailedError: the filters leave no query a negative, or one query none and the recipe refuses that.
            PausedError: the worker was asked to stop while a model scored; its scores are in the cache.
        """
        if self._known is not None:
            return sampler.dropping(false_negatives.by_query(self._known))
        if self._scores is None:
            self._scores = _scores(self._context, self._inputs, self._name, self._stage, len(sampler.sampled_queries))
        left = sampler.dropping(false_negatives.by_query(self._dropped)) if self._dropped else sampler
        while new := [query for query in left.sampled_queries if query not in self._looked_at]:
            self._looked_at.update(new)
            for chunk in _chunks(new):
                self._context.raise_if_stopped()
                candidates = {query: sampler.candidates_of(query) for query in chunk}
                of_chunk = _filtered(self._inputs, self._context, self._stage, candidates, self._scores(candidates))
                self._dropped += of_chunk[0]
                self._counts = _added(self._counts, of_chunk[1])
            left = sampler.dropping(false_negatives.by_query(self._dropped))
        return left

    def save(self, sampler: Sampler) -> None:
        """Record what was dropped, once no other query is sampled by this sampler, which `filtered` returned."""
        if self._known is not None:
            return
        context, counts = self._context, self._counts
        emptied = sum(query in self._looked_at for query in sampler.emptied)
        dropped = false_negatives.count_dropped(self._dropped)
        counts = msgspec.structs.replace(counts, dropped=dropped, emptied=emptied)
        context.log.event("negatives filtered", f"{self._name}: {counts}")
        if context.ranks.is_first:
            disk.make_folder(self._path.parent)
            checksums.save(context.folder, context.folder.filter_counts(self._name), counts)
            checksums.write(context.folder, self._path, false_negatives.list_bytes(self._dropped))


def _chunks(queries: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(queries), _AT_ONCE):
        yield queries[start : start + _AT_ONCE]


def _added(counts: FilterCounts, more: FilterCounts) -> FilterCounts:
    return FilterCounts(
        queries=counts.queries + more.queries,
        candidates=counts.candidates + more.candidates,
        unscored=counts.unscored + more.unscored,
        unscored_positives=counts.unscored_positives + more.unscored_positives,
    )


def _filtered(
    run_inputs: RunInputs,
    context: RunContext,
    stage: Stage,
    candidates: Candidates,
    scores: Mapping[str, Mapping[str, float]],
) -> tuple[list[DroppedNegative], FilterCounts]:
    """Return what the filters drop of some queries' candidates, and what was looked at."""
    filters, dataset = stage.false_negatives, inputs.training_dataset(context.plan.recipe, stage)
    texts: dict[str, str] = {}
    if filters.near_duplicates is not None:
        ids = list(dict.fromkeys(doc for positives, docs in candidates.values() for doc in (*positives, *docs)))
        texts = dict(zip(ids, run_inputs.documents(dataset, ids), strict=True))
    dropped: list[DroppedNegative] = []
    unscored = unscored_positives = 0
    for query, (positives, docs) in candidates.items():
        of_query = scores.get(query, {})
        dropped += false_negatives.filter_query(filters, query, positives, docs, scores=of_query, texts=texts)
        if filters.needs_scores:
            unscored += sum(doc not in of_query for doc in docs)
            unscored_positives += not any(doc in of_query for doc in positives)
    return dropped, FilterCounts(
        queries=len(candidates),
        candidates=sum(len(docs) for _, docs in candidates.values()),
        unscored=unscored,
        unscored_positives=unscored_positives,
    )


def _scores(context: RunContext, run_inputs: RunInputs, name: str, stage: Stage, queries: int) -> Scores:
    """Return the function that gives the scores of some positives and candidates, of `queries` queries in all."""
    recipe, scorer = context.plan.recipe, stage.false_negatives.scores
    dataset = run_inputs.datasets[inputs.training_dataset(recipe, stage)]
    if not scorer:
        return lambda _candidates: {}
    if scorer not in recipe.teachers:
        ranking = open_given_run(dataset, scorer).ranking
        return lambda candidates: {
            query: dict(zip(ranking[query], ranking.scores(query), strict=True))
            for query in candidates
            if query in ranking
        }
    context.heartbeat.enter("teacher", name, total=queries)

    def by_model(candidates: Candidates) -> Mapping[str, Mapping[str, float]]:
        lists = {query: list(dict.fromkeys((*positives, *docs))) for query, (positives, docs) in candidates.items()}
        unordered = Ranking(lists, {query: [float(-place) for place in range(len(lists[query]))] for query in lists})
        request = TeachRequest(
            lab=context.folder.lab,
            cache=Path(context.plan.cache),
            name=scorer,
            teachers=recipe.teachers,
            dataset=dataset,
            first_stage=inputs.training_first_stage(recipe, stage),
            queries=tuple(lists),
            device=context.device,
            threads=context.plan.threads,
            fetch=False,
        )
        done = 0

        def advance(progress: TeachingProgress) -> None:
            nonlocal done
            context.heartbeat.advance(progress.queries - done)
            done = progress.queries

        try:
            return scores_of(request, unordered, Hooks(progress=advance, should_stop=lambda: context.stop.reason))
        except StopTeachingError as error:
            context.stop.request(str(error))
            context.raise_if_stopped()
            raise

    return by_model
