"""Make texts to measure speed on: queries with candidates, from a dataset or generated, the same at every call.

Invariant: nothing random but by a fixed seed, so that two measurements of one machine read the same tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.datasets.dataset import Dataset
from cerank.errors import UsageError
from cerank.retrieval.first_stage import candidates

GENERATED = "generated"  # name of a sample of generated texts
_SHORTEST, _LONGEST = 8, 220  # least and largest number of words of a passage
_MU, _SIGMA = 3.7, 0.45  # log-normal number of words of a passage; with a query about 100 tokens, as in MS MARCO


class TextSample(msgspec.Struct, frozen=True):
    """Texts by id, and each query's candidates, best first."""

    name: str
    queries: dict[str, str]
    documents: dict[str, str]
    lists: dict[str, tuple[str, ...]]

    @property
    def pairs(self) -> int:
        """Return the number of query-document pairs."""
        return sum(map(len, self.lists.values()))

    def texts(self) -> list[tuple[str, str]]:
        """Return (query text, document text) of each pair, in order."""
        return [(self.queries[query], self.documents[doc]) for query, docs in self.lists.items() for doc in docs]


def generated_sample(pairs: int, depth: int = 100) -> TextSample:
    """Return pieces of Python's own help texts, as long as MS MARCO's passages and queries.

    Args:
        pairs: number of pairs; at least one.
        depth: number of candidates a query, each another passage.
    """
    from pydoc_data.topics import topics

    words = [word for name in sorted(topics) for word in topics[name].split() if word.isascii()]
    rng = random.Random(0)

    def piece(length: int) -> str:
        start = rng.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    lists: dict[str, tuple[str, ...]] = {}
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    for number in range(max(1, -(-pairs // depth))):
        query = f"q{number}"
        queries[query] = piece(rng.randint(3, 9))
        size = min(depth, pairs - number * depth) if pairs > number * depth else 1
        doc_ids = tuple(f"{query}-{place}" for place in range(size))
        for doc in doc_ids:
            documents[doc] = piece(round(min(_LONGEST, max(_SHORTEST, rng.lognormvariate(_MU, _SIGMA)))))
        lists[query] = doc_ids
    return TextSample(GENERATED, queries, documents, lists)


def dataset_sample(dataset: Dataset, first_stage: str, *, pairs: int, depth: int, cache: Path) -> TextSample:
    """Return queries from all over the dataset with the candidates of a first stage, until there are `pairs` pairs.

    Raises:
        UsageError: the first stage gives no candidate with a text.
    """
    ids = list(dataset.queries)
    some = ids[:: max(1, len(ids) // max(1, 2 * -(-pairs // depth)))]  # twice as many as needed if every list is full
    ranking = candidates(dataset, first_stage, depth, cache, some)
    lists: dict[str, tuple[str, ...]] = {}
    left = pairs
    for query in ranking:
        doc_ids = tuple(doc for doc in ranking[query] if doc in dataset.documents)[:left]
        if doc_ids and query in dataset.queries:
            lists[query] = doc_ids
            left -= len(doc_ids)
        if left <= 0:
            break
    if not lists:
        raise UsageError(f"{first_stage} gives no candidates with texts", where=dataset.name)
    ids = sorted({doc for docs in lists.values() for doc in docs})
    documents = dict(zip(ids, dataset.documents.texts(ids), strict=True))
    return TextSample(dataset.name, {query: dataset.queries[query] for query in lists}, documents, lists)


def reshape(sample: TextSample, pairs: int, depth: int) -> TextSample:
    """Return `pairs` pairs in lists of `depth`, from the sample's own texts: to see how cost grows with either.

    Queries are used again under new ids where there are too few; a list's documents are sampled without repetition.
    """
    rng = random.Random(pairs * 1_000_003 + depth)
    texts: Sequence[str] = list(sample.queries.values())
    ids = sorted(sample.documents)
    queries = {f"r{number}": texts[number % len(texts)] for number in range(max(1, pairs // depth))}
    lists = {query: tuple(rng.sample(ids, min(depth, len(ids)))) for query in queries}
    return TextSample(sample.name, queries, sample.documents, lists)
