"""Drop candidates that may be relevant although nobody judged them so, by a re-ranker's scores and by their texts.

Margins are those of sentence-transformers' `mine_hard_negatives`: with several positives, the lowest score of them
counts unless the recipe says otherwise, and a relative margin is a share of that score's size.

Invariant: pure; a dropped candidate names the first filter, in the order of the recipe reference, that drops it.
"""

from __future__ import annotations

import gzip
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.datasets.query_text import normalized
from cerank.errors import FormatError
from cerank.files.line_reader import at
from cerank.recipes.sections.negative_specs import FalseNegativeFilters
from cerank.text.safe_text import counted

UNSCORED, UNSCORED_POSITIVE = "unscored", "unscored-positive"


class DroppedNegative(msgspec.Struct, frozen=True):
    """A candidate that a filter dropped."""

    query: str
    document: str
    source: str
    rank: int  # in its source, from 1
    filter: str  # "absolute-margin", "relative-margin", "max-score", "top-p", "near-duplicate", "unscored", ...
    score: float | None  # by the scorer; for a near-duplicate the share of words
    positive: float | None  # the positive's score that it was compared with


class FilterCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the filters of a stage did, counted."""

    queries: int = 0  # that were looked at: those that the stage samples
    candidates: int = 0  # of them, from rankings
    dropped: dict[str, int] = {}  # filter -> candidates
    unscored: int = 0  # candidates without a score
    unscored_positives: int = 0  # queries none of whose positives has a score, so that no margin applies
    emptied: int = 0  # queries without a candidate left

    def __str__(self) -> str:
        by = ", ".join(f"{number:,} by {name}" for name, number in self.dropped.items()) or "none"
        share = 100 * sum(self.dropped.values()) / max(1, self.candidates)
        text = (
            f"of {self.candidates:,} candidates of {counted(self.queries, 'query')} "
            f"{sum(self.dropped.values()):,} were dropped ({share:.2g} %): {by}; "
            f"{counted(self.emptied, 'query')} have no candidate left"
        )
        if self.unscored:
            text += f"; {self.unscored:,} candidates have no score"
        if self.unscored_positives:
            text += f"; of {counted(self.unscored_positives, 'query')} no positive has a score, so no margin applies"
        return text


def filter_query(
    filters: FalseNegativeFilters,
    query: str,
    positives: Sequence[str],
    candidates: Mapping[str, tuple[str, int]],
    *,
    scores: Mapping[str, float],
    texts: Mapping[str, str],
) -> list[DroppedNegative]:
    """Return the candidates of a query that a filter drops, in the order of the candidates.

    Args:
        filters: the filters and their limits.
        query: id of the query.
        positives: its positives.
        candidates: document -> (source, rank), for its possible negatives.
        scores: document -> the scorer's score, of positives and candidates; {} where no filter needs scores.
        texts: document -> text, of positives and candidates; {} where near-duplicates are kept.
    """
    scored_positives = [scores[doc] for doc in positives if doc in scores]
    compared: float | None = None
    if scored_positives:
        compared = min(scored_positives) if filters.positive == "lowest" else max(scored_positives)
    nucleus = _best_of_share(filters.top_p, [*positives, *candidates], scores) if filters.top_p else frozenset[str]()
    words = [_words(texts[doc]) for doc in positives if doc in texts]
    dropped = []
    for doc, (source, rank) in candidates.items():
        score = scores.get(doc)
        name = _filter_by_score(filters, score, compared) if filters.needs_scores else ""
        if not name and doc in nucleus:
            name = "top-p"
        if not name and filters.near_duplicates is not None and doc in texts:
            shared = max((_jaccard(_words(texts[doc]), of_positive) for of_positive in words), default=0.0)
            if shared >= filters.near_duplicates:
                name, score = "near-duplicate", shared
        if name:
            positive = compared if name.endswith("margin") else None
            dropped.append(DroppedNegative(query, doc, source, rank, name, score, positive))
    return dropped


def _filter_by_score(filters: FalseNegativeFilters, score: float | None, positive: float | None) -> str:
    """Return the filter that drops a candidate of this score; "" if none does."""
    has_margin = filters.absolute_margin is not None or filters.relative_margin is not None
    if score is None:
        return UNSCORED if filters.unscored == "drop" else ""
    if positive is None and has_margin and filters.unscored == "drop":
        return UNSCORED_POSITIVE
    if positive is not None:
        if filters.absolute_margin is not None and score + filters.absolute_margin > positive:
            return "absolute-margin"
        if filters.relative_margin is not None and score > positive - abs(positive) * filters.relative_margin:
            return "relative-margin"
    return "max-score" if filters.max_score is not None and score > filters.max_score else ""


def _best_of_share(share: float, docs: Sequence[str], scores: Mapping[str, float]) -> frozenset[str]:
    """Return the fewest documents, best first, that hold a share of the softmax over all scores."""
    ranked = sorted((doc for doc in dict.fromkeys(docs) if doc in scores), key=lambda doc: (-scores[doc], doc))
    if not ranked:
        return frozenset()
    weights = [math.exp(scores[doc] - scores[ranked[0]]) for doc in ranked]
    total, held, best = math.fsum(weights), 0.0, list[str]()
    for doc, weight in zip(ranked, weights, strict=True):
        if held >= share * total:
            break
        best.append(doc)
        held += weight
    return frozenset(best)


def _words(text: str) -> frozenset[str]:
    return frozenset(normalized(text).split())


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the share of words that two texts have in common, of all words in either."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def count_dropped(dropped: Iterable[DroppedNegative]) -> dict[str, int]:
    """Return filter -> number of candidates that it dropped, the most first."""
    return dict(Counter(entry.filter for entry in dropped).most_common())


_HEADER = "query\tdocument\tsource\trank\tfilter\tscore\tpositive"


def list_bytes(dropped: Sequence[DroppedNegative]) -> bytes:
    """Return dropped candidates as a packed table of tab-separated columns; equal lists give equal bytes."""
    lines = [_HEADER]
    for entry in dropped:
        numbers = ["" if value is None else repr(value) for value in (entry.score, entry.positive)]
        source = " ".join(entry.source.split())
        lines.append("\t".join((entry.query, entry.document, source, str(entry.rank), entry.filter, *numbers)))
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return out.getvalue()


def read_list(path: Path) -> list[DroppedNegative]:
    """Return the dropped candidates in a file that `list_bytes` made.

    Raises:
        FormatError: it is no such file.
    """
    dropped = []
    for number, line in enumerate(gzip.decompress(path.read_bytes()).decode().split("\n")[:-1], 1):
        if number == 1:
            continue
        try:
            query, document, source, rank, name, score, positive = line.split("\t")
            values = [float(value) if value else None for value in (score, positive)]
            dropped.append(DroppedNegative(query, document, source, int(rank), name, values[0], values[1]))
        except ValueError:
            hint = "remove the file; the run makes it again"
            raise FormatError("the line is no dropped candidate", where=at(path, number), hint=hint) from None
    return dropped


def by_query(dropped: Iterable[DroppedNegative]) -> dict[str, frozenset[str]]:
    """Return query -> the documents that were dropped."""
    documents: dict[str, set[str]] = {}
    for entry in dropped:
        documents.setdefault(entry.query, set()).add(entry.document)
    return {query: frozenset(docs) for query, docs in documents.items()}
