"""Count the documents that are longer than what a model reads of them.

Lengths come from the token store where there is one, else from tokenizing a sample: a share of 30 % of 500 documents is
known within 4 points.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cerank.datasets.dataset import Documents
from cerank.tokenization.token_store import MAX_STORED_TOKENS, TokenStore
from cerank.tokenization.tokens import PairTokenizer

SAMPLE = 500  # documents that are tokenized at most
MOST_LISTED = 50_000  # documents of a collection whose stored lengths are looked up
_READ = 5_000  # documents at the beginning of a collection among which the sample is taken
_SAMPLED_QUERIES = 200
_CHARACTERS = 24  # a token: of a longer text only the beginning is tokenized, unless that has too few tokens

TextLookup = Callable[[Sequence[str]], Sequence[str]]


class Truncation(msgspec.Struct, frozen=True):
    """How many documents were looked at, and how many of them are longer than what is read."""

    documents: int
    cut: int
    is_sample: bool  # whether there are more documents than were looked at

    def __str__(self) -> str:
        return f"{self._share} of documents were cut ({self._counts})"

    def expected(self) -> str:
        """Return the same as a sentence about what will be."""
        return f"{self._share} of documents will be cut ({self._counts})"

    @property
    def _share(self) -> str:
        share = 100 * self.cut / max(1, self.documents)
        if 0 < share < 1:
            return "less than 1 %"
        return "more than 99 %" if 99 < share < 100 else f"{share:.0f} %"

    @property
    def _counts(self) -> str:
        return f"{self.cut:,} of {'a sample of ' if self.is_sample else ''}{self.documents:,}"


def candidate_truncation(
    tokens: PairTokenizer,
    candidates: Mapping[str, Sequence[str]],
    queries: TextLookup,
    documents: TextLookup,
    store: TokenStore | None = None,
) -> Truncation:
    """Return how many candidates are cut, each beside the first query that has it.

    Args:
        tokens: joins query and document, or cuts documents into passages.
        candidates: query -> ids of its candidates; of many queries 200 are looked at.
        queries: returns the texts of query ids, in order.
        documents: returns the texts of document ids, in order.
        store: stored lengths of the documents, if there are any.
    """
    sampled = _sample(list(candidates), _SAMPLED_QUERIES)
    query_of: dict[str, str] = {}
    for query in sampled:
        for doc in candidates[query]:
            query_of.setdefault(doc, query)
    is_sample = len(sampled) < len(candidates)
    return _count(
        tokens, query_of, dict(zip(sampled, queries(sampled), strict=True)), documents, store, is_sample=is_sample
    )


def collection_truncation(
    tokens: PairTokenizer, collection: Documents, query_texts: Sequence[str], store: TokenStore | None = None
) -> Truncation:
    """Return how many documents of a collection are cut, each beside one of the queries in turn.

    Args:
        tokens: joins query and document, or cuts documents into passages.
        collection: the documents, read from their beginning: the first 50,000 with stored lengths, else every so many
            of the first 5,000. None is looked up by its id, for which a catalog would build an index.
        query_texts: texts of queries.
        store: stored lengths of the documents, if there are any.
    """
    texts = {str(number): text for number, text in enumerate(query_texts[:_SAMPLED_QUERIES])}
    turn = itertools.cycle(texts)
    if store is not None and store.shard("document") is not None:
        query_of = {doc: next(turn) for doc, _ in itertools.islice(collection, MOST_LISTED)}
        is_sample = len(collection) > len(query_of)
        return _count(tokens, query_of, texts, collection.texts, store, is_sample=is_sample)
    total = len(collection)
    step = -(-min(total, _READ) // SAMPLE) or 1
    read = dict(itertools.islice(collection, 0, _READ, step))
    query_of = {doc: next(turn) for doc in read}
    return _count(tokens, query_of, texts, lambda ids: [read[doc] for doc in ids], None, is_sample=total > len(read))


def _count(
    tokens: PairTokenizer,
    query_of: Mapping[str, str],
    query_texts: Mapping[str, str],
    documents: TextLookup,
    store: TokenStore | None,
    *,
    is_sample: bool,
) -> Truncation:
    """Return how many of the documents are cut.

    Args:
        tokens: joins query and document, or cuts documents into passages.
        query_of: document -> the query beside which it is read.
        query_texts: query -> its text.
        documents: returns the texts of document ids, in order.
        store: stored lengths of the documents, if there are any.
        is_sample: whether there are more documents than those.
    """
    lengths = dict(zip(query_texts, _token_counts(tokens, list(query_texts.values())), strict=True))
    room = {query: tokens.document_room(length) for query, length in lengths.items()}
    ids = list(query_of)
    stored = store.lengths("document", ids).tolist() if store is not None else []
    if stored and min(stored) >= 0 and (max(stored) < MAX_STORED_TOKENS or max(room.values()) < MAX_STORED_TOKENS):
        cut = sum(length > room[query_of[doc]] for doc, length in zip(ids, stored, strict=True))
        return Truncation(len(ids), cut, is_sample)
    sampled = _sample(ids, SAMPLE)
    texts = list(documents(sampled))
    limits = [room[query_of[doc]] for doc in sampled]
    starts = [text[: _CHARACTERS * (limit + 1)] for text, limit in zip(texts, limits, strict=True)]
    cut = 0
    for text, start, limit, count in zip(texts, starts, limits, _token_counts(tokens, starts), strict=True):
        whole = count if count > limit or len(start) == len(text) else _token_counts(tokens, [text])[0]
        cut += whole > limit
    return Truncation(len(sampled), cut, is_sample or len(sampled) < len(ids))


def _token_counts(tokens: PairTokenizer, texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text has, without special tokens and before any cut."""
    if not texts:
        return []
    encoded = tokens.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return [len(ids) for ids in encoded]


def _sample(ids: Sequence[str], size: int) -> list[str]:
    """Return `size` of the ids, always the same ones, in their order."""
    if len(ids) <= size:
        return list(ids)
    chosen = set(heapq.nsmallest(size, ids, key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest()))
    return [key for key in ids if key in chosen]
