"""Re-ranks the test datasets and measures the rankings; an interrupted run produces the same bytes."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from cerank.core.metrics import Scoring
from cerank.core.rankings import Ranking, ordered
from cerank.evaluation.measures import check, per_query
from cerank.files import disk, manifests
from cerank.inference.rerank import Scorer, rerank
from cerank.inference.score_cache import ScoreCache, Scores, score_cache_key
from cerank.runs import checksums
from cerank.runs.layout import RunFolder
from cerank.runs.records import encode_measures
from cerank.training.stage_summary import ranking_stats
from cerank.trec.text_io import write_qrels, write_run
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs

FIRST_STAGE = "first-stage"  # the system that every other is compared with


def candidate_union(rankings: Sequence[Ranking], query: str) -> list[str]:
    """Return the query's candidates over all rankings, each once, in order of appearance."""
    return list(dict.fromkeys(doc for ranking in rankings for doc in ranking.get(query, ())))


class _StoredChunks:
    """The scores of finished chunks in the run's folder, until their ranking is written."""

    def __init__(self, folder: RunFolder, system: str, test: str) -> None:
        self._path = partial(folder.scores_part, system, test, "all")

    def load(self, number: int) -> Scores | None:
        """Return the scores of a chunk that an earlier attempt finished; a damaged one is quarantined."""
        path = self._path(number)
        if not path.is_dir():
            return None
        try:
            manifests.verify_folder(path)
        except disk.DamagedError:
            disk.quarantine(path)
            return None
        return msgspec.json.decode((path / "scores.json").read_bytes(), type=dict[str, dict[str, float]])

    def save(self, number: int, scores: Scores) -> None:
        """Write the scores of a finished chunk, whole or not at all."""
        with manifests.checksummed_folder(self._path(number)) as inside:
            disk.write(inside / "scores.json", msgspec.json.encode(scores))


class StageEvaluation:
    """Re-ranks and measures the systems of one run on its test datasets."""

    def __init__(self, context: RunContext, inputs: RunInputs) -> None:
        self._context, self._inputs = context, inputs
        self._plan, self._folder = context.plan, context.folder

    def prepare(self) -> None:
        """Store each test dataset's qrels, and measure the first stages at the depth that is re-ranked."""
        for test in self._plan.recipe.data.test:
            path = self._folder.qrels(test)
            if not path.exists():
                disk.make_folder(path.parent)
                checksums.write(self._folder, path, write_qrels(self._inputs.datasets[test].qrels))
            for first in self._plan.recipe.data.first_stages:
                self._write_ranking(FIRST_STAGE, test, first, self._candidates(test, first))

    def rerank(self, system: str, load: Callable[[], Scorer]) -> None:
        """Re-rank every test dataset with one system; `load` is called only if something is left to score.

        Candidates that several first stages share are scored once.

        Raises:
            PausedError: the worker was asked to stop; it is raised between two chunks of queries.
        """
        data = self._plan.recipe.data
        scorer: Scorer | None = None
        for test in data.test:
            if all(self._folder.measures(system, test, first).exists() for first in data.first_stages):
                continue
            scorer = scorer or load()
            # each dataset has its own texts: in the next one the id "1" may be another text
            scorer.use_token_store(self._inputs.token_store(test, scorer.tokenizer))
            scores = self._scores(system, test, scorer)
            rankings = self._all_candidates(test)
            for first, before in zip(data.first_stages, rankings, strict=True):
                self._write_ranking(system, test, first, _reranked(before, rankings, scores))
            disk.remove_tree(self._folder.scores(system, test, "all"))

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
        cache = self._score_cache(scorer, test)
        context.heartbeat.enter("re-rank", f"{system} on {test}", total=len(query_ids))
        context.raise_if_stopped()
        scores: dict[str, array[float]] = {}
        for chunk in rerank(
            scorer,
            query_ids,
            partial(candidate_union, rankings),
            partial(inputs.queries, test),
            partial(inputs.documents, test),
            cache=cache,
            store=_StoredChunks(self._folder, system, test),
        ):
            for query, docs in chunk.candidates.items():
                scores[query] = array("d", [chunk.scores[query][doc] for doc in docs])
            if chunk.pairs:
                context.log.write_scoring(Scoring(system, test, chunk.pairs, chunk.seconds))
            context.heartbeat.advance(len(chunk.candidates), sum(map(len, chunk.candidates.values())))
            context.raise_if_stopped()
        cache.trim()
        return scores

    def _score_cache(self, scorer: Scorer, test: str) -> ScoreCache:
        """Return the cache of scores that this checkpoint gave on this dataset, in this run or another."""
        plan = self._plan
        documents = self._inputs.datasets[test].documents.fingerprint()
        facts = score_cache_key(
            scorer.checkpoint, documents, device=plan.device, threads=plan.threads, precision=scorer.precision
        )
        return ScoreCache(Path(plan.cache), facts)

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


def _reranked(before: Ranking, rankings: Sequence[Ranking], scores: Mapping[str, Sequence[float]]) -> Ranking:
    """Return one first stage's candidates by their scores, query by query.

    Millions of scores by name would take gigabytes.
    """
    documents: dict[str, tuple[str, ...]] = {}
    values: dict[str, tuple[float, ...]] = {}
    for query, docs in before.items():
        known = dict(zip(candidate_union(rankings, query), scores[query], strict=True))
        ordered_query = ordered({query: {doc: known[doc] for doc in docs}}, {query: docs})
        documents[query], values[query] = ordered_query[query], ordered_query.scores(query)
    return Ranking(documents, values)
