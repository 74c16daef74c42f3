"""Whether the document with a query's own id is the query itself, or only has the same number.

ArguAna and Quora search for a document among its like, and the document itself is no result. In most collections
queries and documents are numbered apart, so that query 12 and document 12 have nothing to do with each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cerank.app.comparison.measuring.named_judgments import Qrels
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset

_COMPARED = 200  # queries whose texts are compared with those of their own documents


def note_on_own_documents(
    own: Sequence[str], ranking: Mapping[str, Sequence[str]], judged: Iterable[Qrels], dataset: Dataset | None
) -> list[str]:
    """Return a sentence on queries that rank their own document; none where the ids are the same only by chance.

    Where the dataset leaves them out, all of them are counted; else those whose own document is not judged relevant,
    for that is an answer. Where the texts can be read, most of these queries must be within the texts of their
    documents. Without texts ids that are numbers count only if at least half of all queries rank their own document
    first, as they would a copy of the query.

    Args:
        own: queries whose lists have the document with their own id.
        ranking: query -> documents, best first.
        judged: judgments that the ranking is measured by.
        dataset: dataset that the judgments are of; None for a file of judgments.
    """
    if dataset is not None and dataset.ignores_identical_ids:
        return [f"{_in_words(own, ranking)}, which is left out (ignore_identical_ids)"]
    warranted = _warranted(own, ranking, judged, dataset)
    if not warranted:
        return []
    advice = "BEIR leaves it out where queries are documents (ignore_identical_ids in collection.toml)"
    return [f"{_in_words(warranted, ranking)}; {advice}"]


def _in_words(own: Sequence[str], ranking: Mapping[str, object]) -> str:
    return f"{len(own)} of {counted(len(ranking), 'query')} rank the document with their own id"


def _warranted(
    own: Sequence[str], ranking: Mapping[str, Sequence[str]], judged: Iterable[Qrels], dataset: Dataset | None
) -> list[str]:
    """Return those of the queries that rank their own document of which it may be the text, and not an answer."""
    relevant = {query for qrels in judged for query in own if qrels.get(query, {}).get(query, 0) > 0}
    others = [query for query in own if query not in relevant]
    if dataset is not None and _has_texts_at_hand(dataset):
        return others if _have_their_texts(others, dataset) else []
    numbered = [query for query in others if query.isdecimal()]
    first = [query for query in numbered if ranking[query][0] == query]
    if 2 * len(first) >= len(ranking):
        return others
    return [query for query in others if not query.isdecimal()]


def _has_texts_at_hand(dataset: Dataset) -> bool:
    from cerank.retrieval.known_candidates import finds_at_once

    return finds_at_once(dataset)


def _have_their_texts(own: Sequence[str], dataset: Dataset) -> bool:
    """Return whether the texts of most queries are within those of their own documents."""
    from cerank.datasets.query_text import normalized

    known = (query for query in own if query in dataset.queries and query in dataset.documents)
    compared = list(itertools.islice(known, _COMPARED))
    queries = [normalized(dataset.queries[query]) for query in compared]
    texts = map(normalized, dataset.documents.texts(compared))
    same = sum(bool(query) and query in text for query, text in zip(queries, texts, strict=True))
    return 2 * same > len(compared)
