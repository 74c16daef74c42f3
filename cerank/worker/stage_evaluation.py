"""Re-ranks the test datasets and measures the rankings; an interrupted run produces the same bytes."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from cerank.core.metrics import Scoring
from cerank.core.rankings import Ranking, bfloat16, ordered
from cerank.evaluation.measures import check, per_query
from cerank.evaluation.studies.aggregation_choice import AggregationChoice, choose_aggregation
from cerank.files import disk, json_records
from cerank.inference.rerank import CHUNK, Scorer, chunk_count, rerank
from cerank.inference.score_cache import ScoreCache, score_cache_key
from cerank.inference.stored_chunks import StoredChunks
from cerank.planning import inputs as planned_inputs
from cerank.recipes.schema import VALIDATION_LOSS, Recipe
from cerank.runs import checksums
from cerank.runs.records import DOCUMENTS_CUT, encode_measures
from cerank.tokenization.tokens import TokenLimits
from cerank.tokenization.truncation import Truncation, candidate_truncation
from cerank.training.stage_summary import ranking_stats
from cerank.trec.text_io import write_qrels, write_run
from cerank.worker import orders
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs

FIRST_STAGE = "first-stage"  # the system that every other is compared with


def candidate_union(rankings: Sequence[Ranking], query: str) -> list[str]:
    """Return the query's candidates over all rankings, each once, in order of appearance."""
    return list(dict.fromkeys(doc for ranking in rankings for doc in ranking.get(query, ())))


class StageEvaluation:
    """Re-ranks and measures the systems of one run on its test datasets."""

    def __init__(self, context: RunContext, inputs: RunInputs) -> None:
        self._context, self._inputs = context, inputs
        self._plan, self._folder = context.plan, context.folder
        self._truncations: dict[object, Truncation] = {}
        self._shared: tuple[str, Scorer] | None = None  # the system whose test datasets are shared, and its model

    def prepare(self) -> None:
        """Store each test dataset's qrels, and measure the first stages at the depth that is re-ranked."""
        for test in self._plan.recipe.data.test:
            path = self._folder.qrels(test)
            if not path.exists():
                disk.make_folder(path.parent)
                checksums.write(self._folder, path, write_qrels(self._inputs.datasets[test].qrels))
            for first in self._plan.recipe.data.first_stages:
                self._write_ranking(FIRST_STAGE, test, first, self._candidates(test, first))

    def load(self, system: str, precision: str) -> Scorer:
        """Return the model of a stage that is finished, or a baseline, ready to score."""
        recipe = self._plan.recipe
        if (model := recipe.baseline_models().get(system)) is not None:
            return self._inputs.baseline(model, precision)
        final = self._folder.final(recipe.chain.index(system), system)
        return Scorer.load(str(final), self._context.device, precision)

    def rerank(self, system: str, precision: str) -> None:
        """Re-rank every test dataset with one system; its model is loaded only if something is left to score.

        Candidates that several first stages share are scored once.

        Raises:
            PausedError: the worker was asked to stop; it is raised between two chunks of queries.
        """
        data = self._plan.recipe.data
        scorer: Scorer | None = None
        for test in data.test:
            if all(self._folder.measures(system, test, first).exists() for first in data.first_stages):
                continue
            if scorer is None and self._plan.recipe.passages_of(system).aggregation == "choose":
                scorer = self.load(system, precision)
                self._choose_aggregation(system, scorer)
            self._context.ranks.tell(orders.encode(orders.RerankOrder(system, test, precision)))
            scorer = scorer or self.load(system, precision)
            self._read_texts_of(test, system, scorer)
            self._log_truncation(system, test, scorer)
            scores = self._scores(system, test, scorer)
            rankings = self._all_candidates(test)
            for first, before in zip(data.first_stages, rankings, strict=True):
                self._write_ranking(system, test, first, _reranked(before, rankings, scores, self._plan.recipe))
            disk.remove_tree(self._folder.scores(system, test, "all"))

    def share(self, order: orders.RerankOrder) -> None:
        """Score a share of the candidates of a test dataset, and leave the scores for the first process."""
        if self._shared is None or self._shared[0] != order.system:
            self._shared = order.system, self.load(order.system, order.precision)
        scorer = self._shared[1]
        self._read_texts_of(order.test, order.system, scorer)
        self._score_share(order.system, order.test, scorer, self._score_cache(scorer, order.system, order.test))

    def _read_texts_of(self, dataset: str, system: str, scorer: Scorer) -> None:
        """Let the scorer read a dataset from now on: each has its own texts, and its id "1" may be another text."""
        spec = self._plan.recipe.passages_of(system)
        choice = json_records.load_if_there(self._folder.aggregation(system), AggregationChoice)
        scorer.use_token_store(self._inputs.token_store(system, dataset, scorer.tokenizer))
        in_use = self._inputs.windows_in_use(system, dataset)
        scorer.use_passages(in_use, choice.chosen if choice is not None else spec.first_aggregation, spec.top)

    def _choose_aggregation(self, system: str, scorer: Scorer) -> None:
        """Score the passages of the validation candidates, and record which aggregation is best there.

        Raises:
            PausedError: the worker was asked to stop.
        """
        context, recipe, path = self._context, self._plan.recipe, self._folder.aggregation(system)
        if json_records.load_if_there(path, AggregationChoice) is not None:
            return
        stage = recipe.stages.get(system) or recipe.chained()[-1][1]
        name = planned_inputs.validation_dataset(recipe, stage)
        self._read_texts_of(name, system, scorer)
        queries = list(self._inputs.datasets[name].queries)[: stage.validation_queries or None]
        first = planned_inputs.validation_first_stage(recipe)
        candidates = self._inputs.candidates(name, first).only(queries).top(stage.validation_depth)
        context.heartbeat.enter("validate", system, total=len(candidates))
        cache = self._score_cache(scorer, system, name)
        passages: dict[str, dict[str, float]] = {}
        texts = partial(self._inputs.queries, name), self._inputs.read_by(system, name).documents.texts
        for chunk in rerank(scorer, list(candidates), candidates.__getitem__, *texts, cache=cache):
            passages |= chunk.passages
            context.heartbeat.advance(len(chunk.candidates), chunk.pairs)
            context.raise_if_stopped()
        by_loss = stage.validation_measure == VALIDATION_LOSS
        measure = recipe.evaluate.measures[0] if by_loss else stage.validation_measure
        qrels = {query: self._inputs.datasets[name].qrels.get(query, {}) for query in queries}
        choice = choose_aggregation(passages, candidates, qrels, measure, recipe.passages_of(system).top)
        disk.make_folder(path.parent)
        checksums.save(self._folder, path, choice)
        context.log.event("aggregation chosen", f"{system}: {choice}")

    def _log_truncation(self, system: str, test: str, scorer: Scorer) -> None:
        """Log how many of the candidates are longer than what the model reads; counted once for all stages alike."""
        recipe, inputs = self._plan.recipe, self._inputs
        stage = recipe.stages.get(system)
        lengths = TokenLimits.of_stage(stage) if stage is not None else system  # stages share the tokenizer of the base
        key = (test, lengths, recipe.passages_of(system))
        if key not in self._truncations:
            texts = partial(inputs.queries, test), inputs.read_by(system, test).documents.texts
            first = self._candidates(test, recipe.data.first_stages[0])
            store = inputs.token_store(system, test, scorer.tokenizer)
            self._truncations[key] = candidate_truncation(scorer.tokens, first, *texts, store)
        self._context.log.event(DOCUMENTS_CUT, f"{system} on {test}: {self._truncations[key]}")

    def _stored(self, system: str, test: str) -> StoredChunks:
        """Return the scores of finished chunks in the run's folder, until their ranking is written."""
        return StoredChunks(partial(self._folder.scores_part, system, test, "all"))

    def rank_by_teacher(self, system: str, rank: Callable[[str, str], Ranking]) -> None:
        """Rank every test dataset by a teacher, as a system beside those that learn from it.

        What the teacher does not rank (candidates below its depth, queries whose calls failed) keeps the first stage's
        order, as it would in use; how many queries that were is an event of the run.

        Args:
            system: name of the teacher.
            rank: returns the teacher's ranking of a test dataset's candidates by a first stage.
        """
        data = self._plan.recipe.data
        for test in data.test:
            for first in data.first_stages:
                if self._folder.measures(system, test, first).exists():
                    continue
                before = self._candidates(test, first)
                ranked = rank(test, first)
                unranked = [query for query in before if query not in ranked]
                if unranked:
                    what = f"{len(unranked)} of {len(before)} queries of {test} keep the order of {first}"
                    self._context.log.event("teacher failed", f"{system}: {what}")
                full_orders = {query: dict.fromkeys((*ranked.get(query, ()), *docs)) for query, docs in before.items()}
                ranking = Ranking(
                    {query: tuple(order) for query, order in full_orders.items()},
                    {query: tuple(map(float, range(len(order), 0, -1))) for query, order in full_orders.items()},
                )
                self._write_ranking(system, test, first, ranking)

    def _candidates(self, test: str, first: str) -> Ranking:
        return self._inputs.candidates(test, first).top(self._plan.recipe.data.depth)

    def _all_candidates(self, test: str) -> list[Ranking]:
        return [self._candidates(test, first) for first in self._plan.recipe.data.first_stages]

    def _scores(self, system: str, test: str, scorer: Scorer) -> dict[str, array[float]]:
        """Return query -> the scores of its `candidate_union`, in order.

        Of millions of candidates only the scores are held, 8 bytes each, and the documents of a chunk or two.
        """
        context, inputs, rankings = self._context, self._inputs, self._all_candidates(test)
        query_ids = dict.fromkeys(query for ranking in rankings for query in ranking)
        cache = self._score_cache(scorer, system, test)
        context.heartbeat.enter("re-rank", f"{system} on {test}", total=len(query_ids))
        if context.ranks.count > 1:
            self._score_share(system, test, scorer, cache)  # and the others; what follows reads what all of them stored
        context.raise_if_stopped()
        scores: dict[str, array[float]] = {}
        for chunk in rerank(
            scorer,
            query_ids,
            partial(candidate_union, rankings),
            partial(inputs.queries, test),
            inputs.read_by(system, test).documents.texts,
            cache=cache,
            store=self._stored(system, test),
        ):
            for query, docs in chunk.candidates.items():
                scores[query] = array("d", [chunk.scores[query][doc] for doc in docs])
            if chunk.pairs:
                context.log.write_scoring(Scoring(system, test, chunk.pairs, chunk.seconds))
            if context.ranks.count == 1:  # else they were counted when they were scored
                scored = chunk.passages or chunk.candidates
                context.heartbeat.advance(len(chunk.candidates), sum(map(len, scored.values())))
            context.raise_if_stopped()
        cache.trim()
        return scores

    def _score_share(self, system: str, test: str, scorer: Scorer, cache: ScoreCache) -> None:
        """Score chunks of queries until the processes of the run have stored all of them, or are asked to stop.

        Whoever is free takes the next chunk, so that devices with long documents do not keep the others waiting.
        """
        context, inputs, rankings = self._context, self._inputs, self._all_candidates(test)
        query_ids = dict.fromkeys(query for ranking in rankings for query in ranking)
        limit, share = chunk_count(query_ids), f"{system} on {test}"
        is_stopped, last = False, -1
        scorings: list[Scoring] = []

        def claimed() -> Iterator[int]:
            nonlocal is_stopped, last
            for number in context.ranks.claim(share, limit):
                if context.ranks.is_first:
                    context.heartbeat.advance((number - last) * CHUNK)
                last = number
                yield number
                if context.ranks.is_first and context.stop.reason:
                    is_stopped = True
                    break
            if is_stopped:
                for _ in context.ranks.claim(share, limit):  # the others find nothing left to do
                    continue

        began = time.perf_counter()
        for chunk in rerank(
            scorer,
            query_ids,
            partial(candidate_union, rankings),
            partial(inputs.queries, test),
            inputs.read_by(system, test).documents.texts,
            cache=cache,
            store=self._stored(system, test),
            numbers=claimed(),
        ):
            scorings.append(Scoring(system, test, chunk.pairs, chunk.seconds))
            context.heartbeat.advance(0, chunk.pairs * context.ranks.count)
        seconds = time.perf_counter() - began
        pairs = sum(scoring.pairs for scoring in scorings)
        every = context.ranks.gather((pairs, seconds, [scoring for scoring in scorings if scoring.pairs]))
        for _, _, of_rank in every:
            for scoring in of_rank:  # the processes work at the same time
                shared = msgspec.structs.replace(scoring, seconds=scoring.seconds / context.ranks.count)
                context.log.write_scoring(shared)
        shares = "; ".join(
            f"rank {number} {count:,} pairs in {took:.1f} s" for number, (count, took, _) in enumerate(every)
        )
        context.log.event("ranks shared", f"{system} on {test}: {shares}")

    def _score_cache(self, scorer: Scorer, system: str, test: str) -> ScoreCache:
        """Return the cache of scores that this checkpoint gave on this dataset, in this run or another."""
        plan = self._plan
        documents = self._inputs.read_by(system, test).documents.fingerprint()
        model = scorer.checkpoint + scorer.scored_text
        facts = score_cache_key(
            model, documents, device=self._context.device, threads=plan.threads, precision=scorer.precision
        )
        return ScoreCache(Path(plan.cache), facts, has_passages=bool(scorer.scored_text))

    def _write_ranking(self, system: str, test: str, first: str, ranking: Ranking) -> None:
        """Write a ranking, then its measures: if the measures exist, so does the ranking."""
        ranking_path, measures_path = (
            self._folder.ranking(system, test, first),
            self._folder.measures(system, test, first),
        )
        if measures_path.exists():
            return
        self._context.heartbeat.enter("measure", f"{system} on {test}", total=1)
        disk.make_folder(ranking_path.parent)
        checksums.write(self._folder, ranking_path, write_run(ranking, system))
        checksums.save(self._folder, self._folder.ranking_stats_file(system, test, first), ranking_stats(ranking))
        qrels = self._inputs.datasets[test].qrels
        names = check(self._plan.measures_on(test), qrels, "evaluate.measures")
        values = per_query(names, qrels, ranking)
        disk.make_folder(measures_path.parent)
        checksums.write(self._folder, measures_path, encode_measures(values))
        means = {name: math.fsum(row.values()) / len(row) for name, row in values.items() if row}
        figures = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        self._context.log.event("measured", f"{system} on {test} over {first}: {figures}")


def _reranked(
    before: Ranking, rankings: Sequence[Ranking], scores: Mapping[str, Sequence[float]], recipe: Recipe
) -> Ranking:
    """Return one first stage's candidates by their scores, query by query.

    Millions of scores by name would take gigabytes.
    """
    documents: dict[str, tuple[str, ...]] = {}
    values: dict[str, tuple[float, ...]] = {}
    for query, docs in before.items():
        known = dict(zip(candidate_union(rankings, query), scores[query], strict=True))
        of_query = {doc: known[doc] for doc in docs}
        order = docs
        if recipe.evaluate.score_precision == "bf16":
            of_query = {doc: bfloat16(score) for doc, score in of_query.items()}
            order = tuple(sorted(docs, reverse=True))
        ordered_query = ordered({query: of_query}, {query: order})
        documents[query], values[query] = ordered_query[query], ordered_query.scores(query)
    return Ranking(documents, values)
