"""Retrieve by a cross-encoder alone, with few calls a query: ANNCUR and ADACUR (arXiv 2210.12579, 2305.02996).

The scores of some training queries with all documents, a matrix R, are known. A query is scored with a few anchor
documents A; its scores with all others are approximated as c pinv(R[:, A]) R, where c are its scores with the anchors.

- ANNCUR: the anchors are drawn at random, the same for all queries; the best others by approximation are scored then.
- ADACUR: the anchors grow by rounds, for each query its own: in each round the best by the approximation so far.

Invariant: a query costs exactly `budget` calls, and every document of the result was scored by the cross-encoder
itself. All is computed in float64; the same matrix, seed and scores give the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.core.rankings import Ranking, ordered
from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.retrieval.score_matrix import ScoreMatrix
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ANNCUR, ADACUR = "anncur", "adacur"
METHODS = (ANNCUR, ADACUR)
CHUNK = 32  # queries whose calls are made together

# query id -> places of documents -> query id -> their scores, in order
ScorePlaces = Callable[[Mapping[str, Sequence[int]]], Mapping[str, Sequence[float]]]


class CurSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls a query may cost, and how they are spent."""

    method: str  # "anncur" or "adacur"
    budget: int  # calls of the cross-encoder for a query
    anchors: int  # of them those on random documents
    rounds: int = 5  # of ADACUR, the first one on random documents
    rcond: float = 1e-3  # singular values below this share of the largest count as 0; see the guide for why
    seed: int = 42

    def check(self, documents: int, train_queries: int) -> None:
        """Refuse settings that cannot be carried out on so many documents.

        Raises:
            UsageError: an unknown method; a budget that leaves nothing beside the anchors, or exceeds the collection;
                more rounds than calls.
        """
        if self.method not in METHODS:
            hint = f"there are {' and '.join(METHODS)}"
            raise UsageError(f"no method is called '{self.method}'", where="--method", hint=hint, code="method-unknown")
        if train_queries < 1:
            raise UsageError("there are no training queries to index with", where="--train", code="no-train-query")
        if self.anchors < 1:
            raise UsageError("there must be an anchor", where="--anchors", hint="give 1 or more", code="no-anchor")
        if self.budget <= self.anchors:
            what = f"a budget of {counted(self.budget, 'call')} leaves none beside {counted(self.anchors, 'anchor')}"
            raise UsageError(
                what, where="--budget", hint="give more calls, or fewer --anchors", code="budget-too-small"
            )
        if self.budget > documents:
            what = f"a budget of {counted(self.budget, 'call')} for {counted(documents, 'document')}"
            hint = "score them all, with `cerank rerank`, or give fewer"
            raise UsageError(what, where="--budget", hint=hint, code="budget-too-large")
        if not 0 < self.rcond < 1:
            raise UsageError(f"{self.rcond:g} is not between 0 and 1", where="--rcond", code="rcond-out-of-range")
        if self.method == ADACUR and not 2 <= self.rounds <= 1 + self.budget - self.anchors:
            what = (
                f"{counted(self.rounds, 'round')} for {counted(self.budget - self.anchors, 'call')} beside the anchors"
            )
            raise UsageError(what, where="--rounds", hint="from 2 to one more than these", code="rounds-out-of-range")


def random_anchors(documents: int, count: int, seed: int) -> list[int]:
    """Return the places of `count` documents, uniformly without replacement, ascending."""
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(derive(seed, "anchors", documents)))
    return sorted(int(place) for place in generator.choice(documents, size=count, replace=False))


def weights_of(
    anchor_scores: NDArray[np.float64], query_scores: NDArray[np.float64], rcond: float
) -> NDArray[np.float64]:
    """Return by how much each training query's row counts in the approximation: c pinv(R[:, A]).

    Args:
        anchor_scores: R[:, A], the training queries' scores with the anchors (queries, anchors).
        query_scores: c, scores of some queries with the anchors (n, anchors).
        rcond: singular values below this share of the largest count as 0.
    """
    import numpy as np

    inverse = np.linalg.pinv(anchor_scores, rcond=rcond)
    return np.asarray(query_scores @ inverse, dtype=np.float64)


def retrieve(
    matrix: ScoreMatrix,
    queries: Sequence[str],
    score: ScorePlaces,
    settings: CurSettings,
    on_query: Callable[[int, int], None] = lambda _done, _total: None,
) -> Ranking:
    """Return the documents that each query was scored with, by those scores; ties fall to the smaller document id.

    Args:
        matrix: the index: scores of training queries with all documents.
        queries: ids of the queries to retrieve for.
        score: scores queries with documents, by the documents' places in the matrix.
        settings: method and budget; checked here.
        on_query: called with the number of finished queries and of all.

    Raises:
        UsageError: the settings cannot be carried out.
    """
    settings.check(len(matrix.documents), len(matrix.queries))
    scores: dict[str, dict[str, float]] = {}
    anchors = random_anchors(len(matrix.documents), settings.anchors, settings.seed)
    for start in range(0, len(queries), CHUNK):
        chunk = list(queries[start : start + CHUNK])
        exact: dict[str, dict[int, float]] = {query: {} for query in chunk}
        _add(exact, score, dict.fromkeys(chunk, anchors))
        for take in _takes(settings):
            approximated = _approximate(matrix, exact, settings)
            _add(exact, score, {query: _best(approximated[query], exact[query], take) for query in chunk})
        for query in chunk:
            scores[query] = {matrix.documents[place]: value for place, value in exact[query].items()}
        on_query(len(scores), len(queries))
    return ordered(scores)


def _takes(settings: CurSettings) -> list[int]:
    """Return how many documents are scored in each round after the anchors; they sum to the rest of the budget."""
    rest = settings.budget - settings.anchors
    rounds = settings.rounds - 1 if settings.method == ADACUR else 1
    return [rest // rounds + (place < rest % rounds) for place in range(rounds)]


def _add(exact: dict[str, dict[int, float]], score: ScorePlaces, places_of: Mapping[str, Sequence[int]]) -> None:
    scores = score(places_of)
    for query, places in places_of.items():
        exact[query] |= zip(places, map(float, scores[query]), strict=True)


def _approximate(
    matrix: ScoreMatrix, exact: Mapping[str, Mapping[int, float]], settings: CurSettings
) -> dict[str, NDArray[np.float64]]:
    """Return each query's approximated scores with all documents, from those that were computed."""
    import numpy as np

    queries = list(exact)
    places = [list(exact[query]) for query in queries]
    given = [np.array([list(exact[query].values())], dtype=np.float64) for query in queries]
    if all(each == places[0] for each in places):  # the same anchors: one inverse for all
        weights = weights_of(matrix.columns(places[0]), np.concatenate(given), settings.rcond)
    else:
        parts = [
            weights_of(matrix.columns(each), scores, settings.rcond) for each, scores in zip(places, given, strict=True)
        ]
        weights = np.concatenate(parts)
    return dict(zip(queries, matrix.combined(weights), strict=True))


def _best(approximated: NDArray[np.float64], scored: Mapping[int, float], count: int) -> list[int]:
    """Return the places of the best documents that were not scored yet; of equals the first."""
    import numpy as np

    order = np.argsort(-approximated, kind="stable")
    return [int(place) for place in order[: count + len(scored)] if int(place) not in scored][:count]
