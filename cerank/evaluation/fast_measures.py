"""The field's everyday measures for all queries at once, in arrays; ir_measures stays the reference for them.

Invariant: each value is the one that trec_eval computes, summed in its order; a test holds them to ir_measures' own.
Sources: trec_eval 9 (m_ndcg_cut.c, m_map_cut.c, m_recip_rank.c, m_P.c, m_recall.c, m_success.c, m_Rprec.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, repeat

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Grades = NDArray[np.int64]

UNJUDGED = -(2**40)  # below every grade, so that no threshold counts it
MAX_CELLS = 1 << 22  # of a block's matrix of grades: 32 MiB


class MeasureSpec(msgspec.Struct, frozen=True):
    """A measure that can be computed here."""

    kind: str  # one of KINDS
    cutoff: int | None  # None: the whole list
    rel: int = 1  # smallest grade that counts as relevant


class Block(msgspec.Struct, frozen=True):
    """Some queries' rankings as grades, padded at the end by UNJUDGED."""

    grades: Grades  # (queries, deepest): of the document at each rank
    judged: Grades  # (judgments,): grades in the qrels, query by query, descending within one
    rows: Grades  # (judgments,): the query's row in `grades`


def per_query(
    measures: Mapping[str, MeasureSpec], qrels: Mapping[str, Mapping[str, int]], ranking: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Return values by measure and query for every query of the qrels, in their order; 0 for one without a ranking.

    Args:
        measures: measures by the name they are to have.
        qrels: query -> document -> grade.
        ranking: query -> documents in strict order.
    """
    cutoffs = [measure.cutoff for measure in measures.values()]
    deepest = None if None in cutoffs else max((cutoff for cutoff in cutoffs if cutoff is not None), default=0)
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    for queries, block in _blocks(qrels, ranking, deepest):
        for name, measure in measures.items():
            values[name].update(zip(queries, KINDS[measure.kind](block, measure).tolist(), strict=True))
    return values


def _blocks(
    qrels: Mapping[str, Mapping[str, int]], ranking: Mapping[str, Sequence[str]], deepest: int | None
) -> Iterator[tuple[list[str], Block]]:
    """Return ranked queries with their block, cut so that no matrix grows beyond `MAX_CELLS`, or holds one query."""
    queries: list[str] = []
    lists: list[Sequence[str]] = []
    width = 1
    for query in qrels:
        ids = ranking.get(query, ())
        ids = ids if deepest is None else ids[:deepest]
        if queries and (len(queries) + 1) * max(width, len(ids)) > MAX_CELLS:
            yield queries, _block([qrels[each] for each in queries], lists, width)
            queries, lists, width = [], [], 1
        if ids:
            queries.append(query)
            lists.append(ids)
            width = max(width, len(ids))
    if queries:
        yield queries, _block([qrels[each] for each in queries], lists, width)


def _block(judged: Sequence[Mapping[str, int]], lists: Sequence[Sequence[str]], width: int) -> Block:
    looked_up = (map(row.get, ids, repeat(UNJUDGED)) for row, ids in zip(judged, lists, strict=True))
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    flat = np.fromiter(chain.from_iterable(looked_up), dtype=np.int64, count=int(lengths.sum()))
    grades = np.full((len(lists), width), UNJUDGED, dtype=np.int64)
    grades[np.arange(width) < lengths[:, None]] = flat
    known = np.fromiter(chain.from_iterable(row.values() for row in judged), dtype=np.int64)
    rows = np.repeat(np.arange(len(judged)), [len(row) for row in judged])
    return Block(grades, known[np.lexsort((-known, rows))], rows)


def _summed(values: Floats) -> Floats:
    """Return each row's sum from left to right, as trec_eval adds up: another order moves the last bit."""
    return np.cumsum(values, axis=1)[:, -1]


def _cut(block: Block, measure: MeasureSpec) -> Grades:
    return block.grades if measure.cutoff is None else block.grades[:, : measure.cutoff]


def _relevant(block: Block, measure: MeasureSpec) -> Floats:
    """Return the number of relevant documents in the qrels, (queries,)."""
    return np.bincount(block.rows[block.judged >= measure.rel], minlength=len(block.grades)).astype(np.float64)


def _share(part: Floats, total: Floats) -> Floats:
    """Return `part / whole`, 0 where the whole is 0."""
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def _ndcg(block: Block, measure: MeasureSpec) -> Floats:
    """Compute nDCG: the gain is the grade (0 below 0), the discount log2(rank + 1), the ideal the qrels' best order."""
    gains = np.maximum(_cut(block, measure), 0).astype(np.float64)
    sizes = np.bincount(block.rows, minlength=len(gains))
    ranks = np.arange(len(block.rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    width = max(1, int(sizes.max())) if measure.cutoff is None else measure.cutoff
    counts = (ranks < width) & (block.judged > 0)
    ideal = np.zeros((len(gains), width))
    ideal[block.rows[counts], ranks[counts]] = block.judged[counts]
    return _share(_discounted(gains), _discounted(ideal))


def _discounted(gains: Floats) -> Floats:
    return _summed(gains / np.log2(np.arange(2, gains.shape[1] + 2)))


def _rr(block: Block, measure: MeasureSpec) -> Floats:
    hits = _cut(block, measure) >= measure.rel
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def _ap(block: Block, measure: MeasureSpec) -> Floats:
    hits = _cut(block, measure) >= measure.rel
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _share(_summed(np.where(hits, precisions, 0.0)), _relevant(block, measure))


def _relevant_retrieved(block: Block, measure: MeasureSpec) -> Floats:
    hits: Floats = (_cut(block, measure) >= measure.rel).sum(axis=1).astype(np.float64)
    return hits


def _precision(block: Block, measure: MeasureSpec) -> Floats:
    return _relevant_retrieved(block, measure) / float(measure.cutoff or 1)


def _recall(block: Block, measure: MeasureSpec) -> Floats:
    return _share(_relevant_retrieved(block, measure), _relevant(block, measure))


def _success(block: Block, measure: MeasureSpec) -> Floats:
    return (_relevant_retrieved(block, measure) > 0).astype(np.float64)


def _r_precision(block: Block, measure: MeasureSpec) -> Floats:
    """Compute precision at as many documents as are relevant."""
    relevant = _relevant(block, measure)
    hits = (block.grades >= measure.rel) & (np.arange(block.grades.shape[1]) < relevant[:, None])
    return _share(hits.sum(axis=1).astype(np.float64), relevant)


KINDS: dict[str, Callable[[Block, MeasureSpec], Floats]] = {
    "nDCG": _ndcg,
    "RR": _rr,
    "AP": _ap,
    "P": _precision,
    "R": _recall,
    "Success": _success,
    "Rprec": _r_precision,
}
