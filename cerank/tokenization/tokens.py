"""Texts as token ids, once each, and pairs assembled from them as the tokenizer itself would.

Invariant: the ids of a pair do not depend on which other pairs are scored with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor

from cerank.errors import UsageError
from cerank.tokenization.token_store import TokenStore

REMEMBERED = 2_000_000  # texts kept tokenized, some gigabyte of passages; beyond, they are forgotten and read again


class Batch(msgspec.Struct, frozen=True):
    """Padded pairs, each tensor (pairs, longest): `segments` is 0 on the query and padding, 1 on the document."""

    ids: Tensor
    mask: Tensor
    segments: Tensor
    has_types: bool  # whether the base takes the segments as token types


class Pair(msgspec.Struct, frozen=True):
    """One query-document pair: ids with special tokens; `split` is where the document's segment starts."""

    ids: tuple[int, ...]
    split: int


class PairTemplate(msgspec.Struct, frozen=True):
    """The special tokens around a query and a document, read off the tokenizer by example."""

    head: tuple[int, ...]
    middle: tuple[int, ...]
    tail: tuple[int, ...]
    split: int  # how many of `middle` belong to the first segment
    has_types: bool
    pad: int

    @property
    def length(self) -> int:
        """Special tokens of a pair."""
        return len(self.head) + len(self.middle) + len(self.tail)


def template(tokenizer: Any) -> PairTemplate:
    """What `tokenizer(query, document)` puts around the two, found by looking at one pair.

    Raises:
        UsageError: the tokenizer does not simply join the two.
    """
    left = tokenizer("one", add_special_tokens=False)["input_ids"]
    right = tokenizer("two three", add_special_tokens=False)["input_ids"]
    encoded = tokenizer("one", "two three")
    ids = encoded["input_ids"]
    types = encoded.get("token_type_ids")
    start = next((at for at in range(len(ids)) if ids[at : at + len(left)] == left), None)
    end = len(ids) - next((at for at in range(len(ids)) if ids[::-1][at : at + len(right)] == right[::-1]), 0)
    if start is None or ids[end - len(right) : end] != right or tokenizer.pad_token_id is None:
        raise UsageError("its tokenizer does not join query and document as a pair", where="base")
    middle = ids[start + len(left) : end - len(right)]
    has_types = types is not None and any(types)
    first_segment = (types.index(1) if has_types else len(ids)) - start - len(left)
    return PairTemplate(
        head=tuple(ids[:start]),
        middle=tuple(middle),
        tail=tuple(ids[end:]),
        split=min(first_segment, len(middle)),
        has_types=has_types,
        pad=tokenizer.pad_token_id,
    )


class Tokens:
    """Token ids of texts by key, each text tokenized once; pairs cut to length and joined.

    Args:
        tokenizer: of the base.
        max_length: tokens of a pair, special tokens included.
        max_query_length: tokens a query keeps; the document keeps what is left.
        max_document_length: tokens a document keeps; 0 sets no bound of its own.
        truncation: what a pair that is still too long loses: the end of the "document", or "longest_first", the end of
            the longer of the two, as transformers' tokenizers have it.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        max_query_length: int,
        max_document_length: int = 0,
        truncation: str = "document",
    ) -> None:
        self.tokenizer = tokenizer
        self._template = template(tokenizer)
        self._max_length, self._max_query = max_length, max_query_length
        self._max_document, self._truncation = max_document_length or max_length, truncation
        self._known: dict[tuple[str, str], array[int]] = {}  # 4 bytes a token; a tuple of ints takes 36
        self._store: TokenStore | None = None

    def add(self, kind: str, keys: Sequence[str], texts: Callable[[Sequence[str]], Sequence[str]]) -> None:
        """Tokenizes what is new among `keys` of a kind ("query" or "document"); `texts` gives texts in order.

        Queries come before their documents: where too many texts are remembered, those before a query are dropped.
        """
        if kind == "query" and len(self._known) > REMEMBERED:
            self.forget()
        new = [key for key in dict.fromkeys(keys) if (kind, key) not in self._known]
        if self._store is not None:
            stored = self._store.many(kind, new, self._max_length)
            found = {key: ids for key, ids in zip(new, stored, strict=True) if ids is not None}
            self._known.update({(kind, key): array("I", ids.tolist()) for key, ids in found.items()})
            new = [key for key in new if key not in found]
        if not new:
            return
        # a word has at least one character, so this many suffice; it keeps a megabyte passage from costing a second
        encoded = self.tokenizer(
            list(texts(new)), add_special_tokens=False, truncation=True, max_length=self._max_length, verbose=False
        )["input_ids"]
        self._known.update({(kind, key): array("I", ids) for key, ids in zip(new, encoded, strict=True)})

    @property
    def has_types(self) -> bool:
        """Whether the base takes the segments as token types."""
        return self._template.has_types

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Drops all texts, to bound memory; those needed again are tokenized again, to the same ids."""
        self._known.clear()

    def read_from(self, store: TokenStore | None) -> None:
        """Drops all texts, and takes those to come from `store`: of the one dataset whose ids come from here on."""
        self.forget()
        self._store = store

    def pair(self, query_id: str, doc_id: str) -> Pair:
        """The pair's ids, each text cut to its own length, then both to the pair's."""
        form = self._template
        query = self._known["query", query_id][: self._max_query]
        document = self._known["document", doc_id][: self._max_document]
        room = max(0, self._max_length - form.length)
        if self._truncation == "longest_first":
            query, document = _longest_first(query, document, room)
        else:
            document = document[: max(0, room - len(query))]
        split = len(form.head) + len(query) + form.split
        return Pair((*form.head, *query, *form.middle, *document, *form.tail), split)

    def batch(self, pairs: Sequence[Pair], device: torch.device) -> Batch:
        """Pairs padded to the longest of them, on `device`."""
        width = max(len(pair.ids) for pair in pairs)
        pad = self._template.pad
        ids = torch.tensor([pair.ids + (pad,) * (width - len(pair.ids)) for pair in pairs])
        lengths = torch.tensor([len(pair.ids) for pair in pairs]).unsqueeze(1)
        places = torch.arange(width).unsqueeze(0)
        mask = (places < lengths).long()
        segments = (places >= torch.tensor([pair.split for pair in pairs]).unsqueeze(1)).long() * mask
        return Batch(ids.to(device), mask.to(device), segments.to(device), self._template.has_types)


def _longest_first(query: array[int], document: array[int], room: int) -> tuple[array[int], array[int]]:
    """Both cut to `room` tokens in all: the shorter is whole up to half of it, and the longer gets an odd one."""
    if len(query) + len(document) <= room:
        return query, document
    half = room // 2
    if len(query) <= len(document):
        return (query, document[: room - len(query)]) if len(query) <= half else (query[:half], document[: room - half])
    return (
        (query[: room - len(document)], document) if len(document) <= half else (query[: room - half], document[:half])
    )


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of pairs, sorted by length then place, cut so that no batch holds more than `budget` padded tokens.

    The cut depends on the lengths alone, never on what is scored before or after.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    out: list[list[int]] = []
    for index in order:
        if out and (len(out[-1]) + 1) * lengths[index] <= budget:
            out[-1].append(index)
        else:
            out.append([index])
    return out


_FEWEST, _SMALLEST = 4, 512  # batches of a chunk, and tokens below which sharing more evenly is not worth a batch


def even_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of pairs in batches of about the same number of tokens, no more than `budget` and a pair; longest first.

    There are as many as most numbers of threads share evenly: at least four where there is enough for them, and a
    multiple of the largest power of two within half their number. The cut depends on the lengths alone, never on the
    number of threads nor on what is scored before or after.
    """
    total = sum(lengths)
    wanted = max(-(-total // budget), min(_FEWEST, total // _SMALLEST), 1)
    step = 1 << max(0, (wanted // 2).bit_length() - 1)
    wanted = -(-wanted // step) * step
    out: list[list[int]] = [[] for _ in range(wanted)]
    seen = 0
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index), reverse=True):
        out[seen * wanted // max(1, total)].append(index)
        seen += lengths[index]
    return [batch[::-1] for batch in out if batch]
