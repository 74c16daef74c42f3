"""Mixtures of training sets of which one is large: queries, judgments and rankings that are read set by set.

Invariant: ids, texts, grades, lists and their order equal those that `mixtures` gives for sets in memory. An id is that
of its set with the set's number before it: "2:q7".
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Self

from cerank.core.rankings import LazyRanking, Ranking
from cerank.core.row_sets import ItemsByPlace, KnownItems, RowSet
from cerank.datasets.dataset import StoredQrels, StoredQueries
from cerank.files.hashing import sha256_json

Grades = Mapping[str, int]


class _JoinedIds(ItemsByPlace):
    """The ids of all sets, one set after the other."""

    def __init__(self, parts: Mapping[str, Sequence[str]]) -> None:
        self.parts, self._numbers = parts, list(parts)
        self._ends = list(itertools.accumulate(map(len, parts.values())))

    def bounds(self) -> dict[str, range]:
        """Return number of a set -> the places of its ids."""
        starts = [0, *self._ends[:-1]]
        return {
            number: range(*pair) for number, pair in zip(self.parts, zip(starts, self._ends, strict=True), strict=True)
        }

    def __len__(self) -> int:
        return self._ends[-1]

    def item(self, place: int) -> str:
        """Return the id at a place of all sets together."""
        which = bisect_right(self._ends, place)
        number = self._numbers[which]
        return f"{number}:{self.parts[number][place - (self._ends[which - 1] if which else 0)]}"

    def __iter__(self) -> Iterator[str]:
        return (f"{number}:{own}" for number, ids in self.parts.items() for own in ids)


class MixedIds(KnownItems):
    """The ids of a mixture's queries, and where those of each set are."""

    def __init__(self, queries: MixedQueries) -> None:
        parts = {
            number: of_set.ids if isinstance(of_set, StoredQueries) else tuple(of_set)
            for number, of_set in queries.sets.items()
        }
        joined = _JoinedIds(parts)
        super().__init__(joined, None, queries.__contains__)
        self.bounds = joined.bounds()


class MixedQueries(StoredQueries):
    """Query id -> text.

    Args:
        sets: number of each set -> its queries; at least one set.
    """

    def __init__(self, sets: Mapping[str, Mapping[str, str]]) -> None:
        self.sets = sets

    def __getitem__(self, query_id: str) -> str:
        number, colon, own = query_id.partition(":")
        if not colon or number not in self.sets:
            raise KeyError(query_id)
        return self.sets[number][own]

    def __contains__(self, query_id: object) -> bool:
        if not isinstance(query_id, str):
            return False
        number, colon, own = query_id.partition(":")
        return bool(colon) and number in self.sets and own in self.sets[number]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return sum(map(len, self.sets.values()))

    @cached_property
    def ids(self) -> MixedIds:
        """Return the ids of all sets, those of a large one looked up when they are asked for."""
        return MixedIds(self)

    def at_places(self, places: RowSet) -> MixedQueries:
        """Return the queries at some places of `ids`."""
        chosen: dict[str, Mapping[str, str]] = {}
        for number, bounds in self.ids.bounds.items():
            rows = RowSet(len(bounds))
            for place in itertools.takewhile(lambda at: at < bounds.stop, _from(places, bounds.start)):  # noqa: B023
                rows.add(place - bounds.start)
            of_set = self.sets[number]
            if isinstance(of_set, StoredQueries):
                chosen[number] = of_set.at_places(rows)
            else:
                chosen[number] = {query: text for row, (query, text) in enumerate(of_set.items()) if row in rows}
        return MixedQueries(chosen)


def _from(places: RowSet, start: int) -> Iterator[int]:
    """Yield the rows of a set from one on."""
    return (places[at] for at in range(places.count_before(start), len(places)))


class MixedQrels(StoredQrels):
    """Query id -> document id -> grade.

    Args:
        sets: number of each set -> its judgments.
        within: queries that are taken, each of which has some; None takes all.
    """

    def __init__(self, sets: Mapping[str, Mapping[str, Grades]], within: StoredQueries | None = None) -> None:
        self._sets, self._within = sets, within
        self._newest: tuple[str, dict[str, int]] | None = None  # a sampler asks for one query several times in a row

    def __getitem__(self, query_id: str) -> dict[str, int]:
        newest = self._newest
        if newest is None or newest[0] != query_id:
            number, colon, own = query_id.partition(":")
            if not colon or number not in self._sets or (self._within is not None and query_id not in self._within):
                raise KeyError(query_id)
            row = {f"{number}:{doc}": grade for doc, grade in self._sets[number][own].items()}
            newest = self._newest = query_id, row
        return newest[1]

    def __iter__(self) -> Iterator[str]:
        ids = (f"{number}:{own}" for number, of_set in self._sets.items() for own in of_set)
        return ids if self._within is None else (query for query in ids if query in self._within)

    def __len__(self) -> int:
        return sum(map(len, self._sets.values())) if self._within is None else len(self._within)

    def within(self, queries: StoredQueries) -> MixedQrels:
        """Return the judgments of some queries, each of which has some."""
        return MixedQrels(self._sets, queries)


class _MixedPlaces(Mapping[str, int]):
    """The queries of all sets' rankings, with the place of each one's set."""

    def __init__(self, sets: Mapping[str, Ranking]) -> None:
        self._sets = sets
        self._at = {number: at for at, number in enumerate(sets)}

    def __getitem__(self, query_id: str) -> int:
        number, colon, own = query_id.partition(":")
        if not colon or number not in self._sets or own not in self._sets[number]:
            raise KeyError(query_id)
        return self._at[number]

    def __iter__(self) -> Iterator[str]:
        return (f"{number}:{own}" for number, ranking in self._sets.items() for own in ranking)

    def __len__(self) -> int:
        return sum(map(len, self._sets.values()))


class MixedRanking(LazyRanking):
    """The rankings of all sets as one.

    Args:
        sets: number of each set -> its ranking.
        places: query id -> place of its set, in the order of iteration; None takes all queries.
        depth: the number of documents to read for each query; None reads all.
    """

    def __init__(
        self, sets: Mapping[str, Ranking], places: Mapping[str, int] | None = None, depth: int | None = None
    ) -> None:
        super().__init__(_MixedPlaces(sets) if places is None else places, depth)
        self._sets = sets
        self._newest: tuple[str, tuple[str, ...]] | None = None  # a sampler asks for one query several times in a row

    @property
    def sha256(self) -> str:
        """Return the hash over those of all sets' runs; "" where the ranking of one has none."""
        runs = [[number, of.sha256, of.depth] for number, of in self._sets.items() if isinstance(of, LazyRanking)]
        return sha256_json(runs) if len(runs) == len(self._sets) and all(run[1] for run in runs) else ""

    @property
    def source(self) -> str:
        """Return the files of all sets' runs, for display."""
        return ", ".join(of.source for of in self._sets.values() if isinstance(of, LazyRanking))

    def __getitem__(self, query_id: str) -> tuple[str, ...]:
        newest = self._newest
        if newest is None or newest[0] != query_id:
            self._places[query_id]  # one that is taken; else a KeyError
            number, _, own = query_id.partition(":")
            documents = tuple(f"{number}:{doc}" for doc in self._sets[number][own][: self.depth])
            newest = self._newest = query_id, documents
        return newest[1]

    def scores(self, query_id: str) -> tuple[float, ...]:
        """Return the scores of `self[query_id]`, strictly decreasing."""
        self._places[query_id]
        number, _, own = query_id.partition(":")
        return self._sets[number].scores(own)[: self.depth]

    def _view(self, places: Mapping[str, int], depth: int | None) -> Self:
        return type(self)(self._sets, places, depth)
