"""A ranking: for each query, documents in strict order. Ties are broken here, once, before anything is measured.

Why so early: evaluators break ties differently (trec_eval by document id descending, others ascending), so a tie
that reaches them gives measures that contradict each other.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

from cerank.core.row_sets import KnownItems


class Ranking(Mapping[str, tuple[str, ...]]):
    """Query id -> document ids, best first; `scores(query_id)` are strictly decreasing float32 values.

    Queries keep the order they were given in.
    """

    def __init__(self, documents: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]) -> None:
        """Wrap lists that are already in strict order; use `ordered` for raw scores.

        Raises:
            ValueError: lengths differ, a score is not finite, or scores do not strictly decrease.
        """
        self._documents = {query: tuple(ids) for query, ids in documents.items()}
        self._scores = {query: tuple(scores[query]) for query in self._documents}
        for query, values in self._scores.items():
            if len(values) != len(self._documents[query]):
                raise ValueError(f"query {query}: {len(self._documents[query])} documents, {len(values)} scores")
            if not all(map(math.isfinite, values)):
                raise ValueError(f"query {query}: a score is not finite")
            if any(left <= right for left, right in itertools.pairwise(values)):
                raise ValueError(f"query {query}: scores do not strictly decrease")

    def __getitem__(self, query_id: str) -> tuple[str, ...]:
        return self._documents[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    def scores(self, query_id: str) -> tuple[float, ...]:
        """Return the scores of `self[query_id]`, strictly decreasing."""
        return self._scores[query_id]

    def top(self, depth: int) -> Ranking:
        """Return the first `depth` documents of each query."""
        return Ranking(
            {query: ids[:depth] for query, ids in self._documents.items()},
            {query: values[:depth] for query, values in self._scores.items()},
        )

    def only(self, query_ids: Sequence[str]) -> Ranking:
        """Return the given queries in the given order, without those that have no documents here."""
        present = [query for query in query_ids if query in self._documents]
        return Ranking({q: self._documents[q] for q in present}, {q: self._scores[q] for q in present})


class LazyRanking(Ranking):
    """A ranking whose lists are read when they are needed; `top` and `only` copy nothing.

    Args:
        places: query id -> the query's number in the storage, in the order of iteration.
        depth: the number of documents to read for each query; None reads all.
    """

    def __init__(self, places: Mapping[str, int], depth: int | None) -> None:
        self._places, self.depth = places, depth

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the whole run, whatever queries and depth of it are read; "" where it is not known."""
        return ""

    @property
    def source(self) -> str:
        """Return the file of the run, for display; "" where it is not known."""
        return ""

    @abc.abstractmethod
    def _view(self, places: Mapping[str, int], depth: int | None) -> Self:
        """Return a ranking of the same storage with other queries or another depth."""

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def top(self, depth: int) -> Self:
        """Return the first `depth` documents of each query."""
        return self._view(self._places, depth if self.depth is None else min(depth, self.depth))

    def only(self, query_ids: Sequence[str]) -> Self:
        """Return the given queries in the given order, without those that have no documents here."""
        if isinstance(query_ids, KnownItems):
            return self._view(_PlacesOf(self._places, query_ids), self.depth)
        return self._view({query: self._places[query] for query in query_ids if query in self._places}, self.depth)

    def __bool__(self) -> bool:
        return any(True for _ in self)  # counting may take minutes


class _PlacesOf(Mapping[str, int]):
    """The places of queries that are not kept in memory."""

    def __init__(self, places: Mapping[str, int], query_ids: KnownItems) -> None:
        self._places, self._query_ids = places, query_ids
        self._newest: tuple[str, int] | None = None  # a sampler asks for one query several times in a row

    def __getitem__(self, query_id: str) -> int:
        newest = self._newest
        if newest is None or newest[0] != query_id:
            place = self._places[query_id]
            if query_id not in self._query_ids:
                raise KeyError(query_id)
            newest = self._newest = query_id, place
        return newest[1]

    def __iter__(self) -> Iterator[str]:
        return (query for query in self._query_ids if query in self._places)

    @functools.cached_property
    def _count(self) -> int:
        return sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count


class RankingOfKept(LazyRanking):
    """A ranking on disk without some of its documents, and without the queries that keep none of theirs.

    Args:
        ranking: the whole ranking.
        is_kept: returns whether a document is kept.
        places: query id -> 0, for the queries that keep one, in their order; None finds them.
        depth: the number of kept documents to read for each query; None reads all.
    """

    def __init__(
        self,
        ranking: Ranking,
        is_kept: Callable[[str], bool],
        places: Mapping[str, int] | None = None,
        depth: int | None = None,
    ) -> None:
        own = {query: 0 for query in ranking if any(map(is_kept, ranking[query]))} if places is None else places
        super().__init__(own, depth)
        self._whole, self._is_kept = ranking, is_kept

    def __getitem__(self, query_id: str) -> tuple[str, ...]:
        self._places[query_id]  # one that is taken; else a KeyError
        return tuple(filter(self._is_kept, self._whole[query_id]))[: self.depth]

    def scores(self, query_id: str) -> tuple[float, ...]:
        """Return the scores of `self[query_id]`, strictly decreasing."""
        self._places[query_id]
        pairs = zip(self._whole[query_id], self._whole.scores(query_id), strict=True)
        return tuple(score for doc, score in pairs if self._is_kept(doc))[: self.depth]

    def _view(self, places: Mapping[str, int], depth: int | None) -> Self:
        return type(self)(self._whole, self._is_kept, places, depth)


def cut_lists(lists: Ranking, queries: Iterable[str], candidates: Ranking | None, depth: int, count: int) -> Ranking:
    """Return a teacher's lists of fewer queries or of fewer documents; what is left keeps its order and its scores.

    Args:
        lists: the teacher's.
        queries: ids of the queries that may be taken; of more than `count` those whose ids have the smallest SHA-256,
            so that fewer queries are a part of more.
        candidates: first stage's ranking of these queries; documents beyond its first `depth` leave the lists. None
            leaves the lists whole.
        depth: see above.
        count: number of queries; 0 takes all.

    Example:
        >>> lists = Ranking({"q": ["a", "b", "c"]}, {"q": [3.0, 2.0, 1.0]})
        >>> cut_lists(lists, ["q"], Ranking({"q": ["c", "a"]}, {"q": [2.0, 1.0]}), 2, 0)["q"]
        ('a', 'c')
    """
    known = [query for query in queries if query in lists]
    if count:
        known = sorted(known, key=lambda query: hashlib.sha256(query.encode()).digest())[:count]
    if candidates is None:
        return lists.only(known)
    documents: dict[str, list[str]] = {}
    scores: dict[str, list[float]] = {}
    for query in known:
        within = set(candidates[query][:depth]) if query in candidates else set[str]()
        pairs = [pair for pair in zip(lists[query], lists.scores(query), strict=True) if pair[0] in within]
        if pairs:
            documents[query], scores[query] = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Ranking(documents, scores)


def float32(value: float) -> float:
    """Return `value` rounded to float32, the precision in which trec_eval compares scores.

    Raises:
        ValueError: it lies beyond the largest float32, some 3.4e38.
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise ValueError(f"score {value} is not finite as a float32") from None


def bfloat16(value: float) -> float:
    """Return `value` rounded to bfloat16, to even where two are as near; three digits or so are left.

    Raises:
        ValueError: it lies beyond the largest float32, some 3.4e38.

    Example:
        >>> bfloat16(1.001), bfloat16(1.01)
        (1.0, 1.0078125)
    """
    (bits,) = struct.unpack("<I", struct.pack("<f", float32(value)))
    return float(struct.unpack("<f", struct.pack("<I", (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000))[0])


def tie_starts(scores: Sequence[float]) -> list[int]:
    """Return for each place of a list the first place of those that tie with it: its own where none before it does.

    Args:
        scores: as a ranking holds them: equal ones were set apart by the smallest step of float32, by which they are
            told here.
    """
    starts = list(range(len(scores)))
    for place in range(1, len(scores)):
        if scores[place] == float32_below(scores[place - 1]):
            starts[place] = starts[place - 1]
    return starts


def float32_below(value: float) -> float:
    """Return the next float32 below the float32 `value`; below the lowest one it is -inf."""
    if value == 0.0:
        return -float(struct.unpack("<f", struct.pack("<i", 1))[0])
    if value == -math.inf:
        return value
    bits = int(struct.unpack("<i", struct.pack("<f", value))[0])
    return float(struct.unpack("<f", struct.pack("<i", bits - 1 if value > 0 else bits + 1))[0])


def tied_share(ranking: Mapping[str, Sequence[str]], scores: Callable[[str], Sequence[float]]) -> float:
    """Return the fraction of documents whose score is one float32 from a neighbor's, as moving ties apart leaves them.

    Scores that are so close without having been moved count, too: they are one rounding away from a tie.
    """
    tied = count = 0
    for query in ranking:
        values = scores(query)
        near = [False, *(low == float32_below(high) for high, low in itertools.pairwise(values)), False]
        tied += sum(left or right for left, right in itertools.pairwise(near))
        count += len(values)
    return tied / count if count else 0.0


def strictly_decreasing(scores: Sequence[float]) -> list[float]:
    """Return non-increasing scores as float32, each moved just below the one before where they tie.

    Ties at the lowest float32 run into -inf, which `Ranking` refuses.

    Raises:
        ValueError: a score is not finite as a float32.
    """
    out: list[float] = []
    for score in scores:
        if not math.isfinite(score):
            raise ValueError(f"score {score} is not finite")
        value = float32(score)
        out.append(value if not out or value < out[-1] else float32_below(out[-1]))
    return out


def ordered(scores: Mapping[str, Mapping[str, float]], before: Mapping[str, Sequence[str]] | None = None) -> Ranking:
    """Return the ranking by score descending; ties keep the order of `before` (the first stage's), then document id.

    Args:
        scores: query id -> document id -> score, all finite.
        before: query id -> document ids, the order that decides ties.

    Raises:
        ValueError: a score is not finite as a float32.

    Example:
        >>> ranking = ordered({"q1": {"d1": 0.5, "d2": 2.0, "d3": 0.5}}, before={"q1": ["d3", "d1", "d2"]})
        >>> ranking["q1"], ranking.scores("q1")
        (('d2', 'd3', 'd1'), (2.0, 0.5, 0.4999999701976776))
    """
    documents: dict[str, list[str]] = {}
    values: dict[str, list[float]] = {}
    for query, row in scores.items():
        place = {doc: rank for rank, doc in enumerate((before or {}).get(query, ()))}
        order = sorted(row, key=lambda doc: (-float32(row[doc]), place.get(doc, len(place)), doc))
        documents[query] = order
        values[query] = strictly_decreasing([row[doc] for doc in order])
    return Ranking(documents, values)
