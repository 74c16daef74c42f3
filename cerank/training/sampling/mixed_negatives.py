"""Sample a group's negatives from several sources by share.

A group's k negatives are divided by systematic sampling: with u uniform in [0, 1) and c the shares summed up to a
source, that source gives floor(k c + u) less what floor gave up to the source before. Each source so gives its share
of k rounded down or up, and exactly its share on average. u depends on the seed, the stage, the step and the query,
and so does all that a source samples, with its place in the recipe beside them.

Invariant: a document is in a group once; what a source lacks the others give, in the order of the recipe.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from cerank.core.seeds import derive
from cerank.datasets.collection_ids import CollectionIds
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import NegativeSource
from cerank.training.sampling import negatives

_MOST_TRIES = 50  # draws from the collection for each negative: of small collections most may be relevant


class SampledNegative(NamedTuple):
    """A negative of a group, and where it comes from."""

    doc_id: str
    source: int  # place of its source in the recipe
    rank: int  # in that source, from 1; 0 where it has no ranks


class GroupQuery(NamedTuple):
    """What decides the negatives of one query in one step."""

    step: int
    query: str
    pools: Sequence[Sequence[tuple[int, str]]]  # of each source: (rank, document)
    is_allowed: Callable[[str], bool]  # whether a document may be a negative of the query at all


def divide(count: int, shares: Sequence[float], offset: float) -> list[int]:
    """Return how many of `count` each source gives, by systematic sampling.

    >>> [divide(7, [2.0, 1.0, 1.0], offset) for offset in (0.0, 0.5, 0.9)]
    [[3, 2, 2], [4, 1, 2], [4, 2, 1]]
    """
    total, cumulated, edges = sum(shares), 0.0, [0]
    for share in shares:
        cumulated += share
        edges.append(min(count, math.floor(count * (cumulated / total) + offset)))
    last = max(place for place, share in enumerate(shares) if share)
    edges[last + 1 :] = [count] * (len(shares) - last)
    return [edge - before for before, edge in itertools.pairwise(edges)]


class MixedNegatives:
    """Samples negatives from a stage's `negative_sources`.

    Args:
        name: name of the stage.
        stage: settings of the stage.
        seed: seed of the run.
        rankings: name of a run, "" for the stage's own first stage -> query -> document ids, best first.
        collections: ids of all documents under "", or of each set of a mixture; for the source "collection".
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        seed: int,
        rankings: Mapping[str, Mapping[str, Sequence[str]]],
        collections: Mapping[str, CollectionIds],
    ) -> None:
        self._name, self._seed, self._rankings, self._collections = name, seed, rankings, collections
        self._sources = stage.negative_sources
        self._stages = [self._with_ranks(stage, source) for source in self._sources]

    @staticmethod
    def _with_ranks(stage: Stage, source: NegativeSource) -> Stage:
        sampler = source.sampler or stage.negatives
        return msgspec.structs.replace(stage, window=source.ranks or stage.window, negatives=sampler)

    def pools(
        self,
        query: str,
        grades: negatives.Grades,
        *,
        positives: Sequence[str],
        needed: int,
        has_text: Callable[[str], bool],
        dropped: frozenset[str] | set[str] = frozenset(),
        unranked: frozenset[str] = frozenset(),
    ) -> list[list[tuple[int, str]]]:
        """Return each source's possible negatives of a query, as (rank, document); [] for sources without ranks.

        Those that are `dropped` are of no source, and those that are `unranked` not of the stage's own first stage.
        """
        pools: list[list[tuple[int, str]]] = []
        for source, stage in zip(self._sources, self._stages, strict=True):
            ranked = self._rankings[source.run].get(query, ()) if source.is_ranked else ()
            pool = negatives.possible_negatives(
                stage, grades, ranked, positives=positives, needed=needed, has_text=has_text
            )
            left_out = dropped | unranked if source.is_ranked and not source.run else dropped
            pools.append([entry for entry in pool if entry[1] not in left_out])
        return pools

    @property
    def has_in_batch(self) -> bool:
        """Return whether documents of the step's other queries are a source."""
        return any(source.source == "in-batch" for source in self._sources)

    @property
    def has_collection(self) -> bool:
        """Return whether any document of the collection may be a negative."""
        return any(source.source == "collection" for source in self._sources)

    def has_any(self, pools: Sequence[Sequence[tuple[int, str]]]) -> bool:
        """Return whether a query with these pools has a negative besides those of the step's other queries."""
        return any(pools) or self.has_collection

    def sample(self, of: GroupQuery, count: int, others: Sequence[str] | None = None) -> list[SampledNegative]:
        """Return `count` negatives of a query in a step, or as many as there are.

        Args:
            of: the step, the query and its pools.
            count: number of negatives.
            others: documents of the step's other queries; None leaves out the source "in-batch" and what it would give.
        """
        offset = random.Random(self._derived("sources", of)).random()
        counts = divide(count, [source.share for source in self._sources], offset)
        sampled: dict[str, SampledNegative] = {}
        for place, number in enumerate(counts):
            if self._sources[place].source != "in-batch":
                self._add(sampled, of, place, number, "negatives")
        if others is None:
            return list(sampled.values())
        for place, number in enumerate(counts):
            if self._sources[place].source == "in-batch":
                pool = [doc for doc in others if doc not in sampled and of.is_allowed(doc)]
                generator = random.Random(self._derived("in-batch", of, place))
                for doc in generator.sample(pool, min(number, len(pool))):
                    sampled[doc] = SampledNegative(doc, place, 0)
        for place in range(len(counts)):  # what a source lacked
            if len(sampled) < count and self._sources[place].source != "in-batch":
                self._add(sampled, of, place, count - len(sampled), "filling")
        return list(sampled.values())

    def _add(self, sampled: dict[str, SampledNegative], of: GroupQuery, place: int, count: int, purpose: str) -> None:
        """Add up to `count` documents of a source that are not sampled yet."""
        if not count:
            return
        generator = random.Random(self._derived(purpose, of, place))
        if self._sources[place].source == "collection":
            for doc in self._any_documents(sampled, of, count, generator):
                sampled[doc] = SampledNegative(doc, place, 0)
            return
        pool = [(rank, doc) for rank, doc in of.pools[place] if doc not in sampled]
        size = min(count, len(pool))
        ranks = {doc: rank for rank, doc in pool}
        docs = negatives.sample_candidates(self._stages[place], list(ranks), list(ranks.values()), size, generator)
        for doc in docs:
            sampled[doc] = SampledNegative(doc, place, ranks[doc])

    def _any_documents(
        self, sampled: Mapping[str, SampledNegative], of: GroupQuery, count: int, generator: random.Random
    ) -> list[str]:
        """Return up to `count` documents of the collection that may be negatives and are not sampled yet."""
        ids = self._collections.get("") or self._collections[of.query.partition(":")[0]]
        documents: dict[str, None] = {}
        for _ in range(_MOST_TRIES * count):
            doc = ids[generator.randrange(len(ids))]
            if doc not in sampled and of.is_allowed(doc):
                documents[doc] = None
                if len(documents) == count:
                    break
        return list(documents)

    def _derived(self, purpose: str, of: GroupQuery, *place: int) -> int:
        return derive(self._seed, purpose, self._name, of.step, of.query, *place)
