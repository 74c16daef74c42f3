"""Tokenize each text once, and join queries and documents as the tokenizer itself would.

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
from cerank.recipes.schema import Stage
from cerank.tokenization.passage_windows import WindowsInUse, best_passage
from cerank.tokenization.token_store import TokenStore

MAX_REMEMBERED_TEXTS = 2_000_000  # tokenized texts in memory, about a gigabyte; then they are forgotten and read again
LEAST_QUERY = 16  # tokens that a query must keep beside a passage, where a model's own limit of queries is higher
_MIN_BATCHES = 4  # least number of batches of a chunk that is large enough
_MIN_BATCH_TOKENS = 512  # for smaller batches, an even load is not worth one batch more


class PaddedBatch(msgspec.Struct, frozen=True):
    """Padded pairs as tensors (pairs, longest); `segments` is 0 on the query and padding, 1 on the document."""

    ids: Tensor
    mask: Tensor
    segments: Tensor
    has_types: bool  # whether the base takes the segments as token types


class Pair(msgspec.Struct, frozen=True):
    """Token ids of one query-document pair with special tokens; `split` is where the document's segment starts."""

    ids: tuple[int, ...]
    split: int


class PairTemplate(msgspec.Struct, frozen=True):
    """The special tokens around a query and a document, found from an example."""

    head: tuple[int, ...]
    middle: tuple[int, ...]
    tail: tuple[int, ...]
    split: int  # how many of `middle` belong to the first segment
    has_types: bool
    pad: int

    @property
    def length(self) -> int:
        """Return the number of special tokens of a pair."""
        return len(self.head) + len(self.middle) + len(self.tail)


def read_template(tokenizer: Any) -> PairTemplate:
    """Return what `tokenizer(query, document)` puts around the two, found from one pair.

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
        raise UsageError("the base's tokenizer does not join query and document as a pair", where="base")
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


class TokenLimits(msgspec.Struct, frozen=True):
    """How many tokens of a query-document pair the model reads, and which of them are cut off.

    Args:
        max_length: tokens of a pair, special tokens included.
        max_query_length: tokens that a query keeps; the document keeps what is left.
        max_document_length: tokens that a document keeps; 0 sets no limit beside `max_length`.
        truncation: what a pair that is still too long loses: the end of the "document", or with "longest_first" the end
            of the longer of the two, as in transformers' tokenizers.
    """

    max_length: int
    max_query_length: int
    max_document_length: int = 0
    truncation: str = "document"

    @classmethod
    def of_stage(cls, stage: Stage) -> TokenLimits:
        """Return the limits that a stage's settings name."""
        return cls(stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation)


class PairTokenizer:
    """Tokenizes each text once, cuts queries and documents to their limits, and joins them as pairs.

    Args:
        tokenizer: the base's tokenizer, as transformers loads it.
        limits: lengths in tokens, and what is cut.
        query_prompt: text that is written before each query.

    Example:
        Given the tokenizer of a base model, which has the ids 2 and 3 for [CLS] and [SEP]:

        >>> tokens = PairTokenizer(tokenizer, TokenLimits(256, 64))
        >>> tokens.add("query", ["q1"], lambda ids: ["alpha beta"])
        >>> tokens.add("document", ["d7"], lambda ids: ["gamma"])
        >>> tokens.pair("q1", "d7").ids
        (2, 5, 6, 3, 7, 3)
    """

    def __init__(self, tokenizer: Any, limits: TokenLimits, query_prompt: str = "") -> None:
        self.tokenizer = tokenizer
        self._template = read_template(tokenizer)
        self._limits, self._query_prompt = limits, query_prompt
        self._known: dict[tuple[str, str], array[int]] = {}  # 4 bytes a token; a tuple of ints takes 36
        self._full_lengths: dict[tuple[str, str], int] = {}  # tokens of texts before any cut, where the cut needs them
        own_limits = (limits.max_query_length, limits.max_document_length or limits.max_length)
        self._may_both_be_cut = limits.truncation == "longest_first" and min(own_limits) >= limits.max_length
        self._store: TokenStore | None = None
        self._in_use: WindowsInUse | None = None  # how documents are cut into passages; None leaves them whole

    def add(self, kind: str, keys: Sequence[str], texts: Callable[[Sequence[str]], Sequence[str]]) -> None:
        """Tokenize what is new among the `keys` of a kind ("query" or "document"); `texts` returns texts in order.

        Add queries before their documents: where too many texts are remembered, all are forgotten before queries.
        """
        if kind == "query" and len(self._known) > MAX_REMEMBERED_TEXTS:
            self.clear()
        keys = list(dict.fromkeys(keys))
        new = [key for key in keys if (kind, key) not in self._known]
        prompt = self._query_prompt if kind == "query" else ""
        if self._store is not None and not prompt:
            stored = self._store.ids_of_many(kind, new, self._limit_of(kind))
            ids_of = {key: ids for key, ids in zip(new, stored, strict=True) if ids is not None}
            self._known.update({(kind, key): array("I", ids.tolist()) for key, ids in ids_of.items()})
            new = [key for key in new if key not in ids_of]
        if new:
            # cut here as well: else a passage of a megabyte costs a second
            rows = self._encode(prompt, texts(new), self._limit_of(kind))
            self._known.update({(kind, key): array("I", ids) for key, ids in zip(new, rows, strict=True)})
        if self._in_use is not None:
            self._add_titles(self._in_use, keys if kind == "document" else [])
            return
        # a query of `max_length` tokens is rare; without one, the cut ids tell which text of a pair is longer
        if self._may_both_be_cut and (kind == "query" or self._full_lengths):
            at_limit = [key for key in keys if len(self._known[kind, key]) >= self._limits.max_length]
            if uncounted := [key for key in at_limit if (kind, key) not in self._full_lengths]:
                rows = self._encode(prompt, texts(uncounted), None)
                self._full_lengths.update({(kind, key): len(ids) for key, ids in zip(uncounted, rows, strict=True)})

    def _add_titles(self, in_use: WindowsInUse, doc_ids: Sequence[str]) -> None:
        """Tokenize the titles that are repeated in front of passages, if any are."""
        new = [key for key in doc_ids if ("title", key) not in self._known]
        if in_use.titles is None or not in_use.windows.title or not new:
            return
        rows = self._encode("", in_use.titles(new), in_use.windows.title)
        self._known.update({("title", key): array("I", ids) for key, ids in zip(new, rows, strict=True)})

    def _limit_of(self, kind: str) -> int:
        """Return how many tokens of a text are of any use."""
        is_cut_into_passages = kind == "document" and self._in_use is not None
        return self._in_use.windows.reach if is_cut_into_passages and self._in_use else self._limits.max_length

    def _encode(self, prompt: str, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Return the ids of texts without special tokens, cut to `limit`; None returns them in full."""
        encoded: list[list[int]] = self.tokenizer(
            [prompt + text for text in texts] if prompt else list(texts),
            add_special_tokens=False,
            truncation=limit is not None,
            max_length=limit,
            verbose=False,
        )["input_ids"]
        return encoded

    @property
    def has_types(self) -> bool:
        """Return whether the base takes the segments as token types."""
        return self._template.has_types

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forget all texts, to bound memory; those needed again are tokenized again, to the same ids."""
        self._known.clear()
        self._full_lengths.clear()

    def use_token_store(self, store: TokenStore | None) -> None:
        """Forget all texts, and read those to come from `store`, which holds the dataset whose ids come from now on."""
        self.clear()
        self._store = store

    def use_windows(self, in_use: WindowsInUse | None) -> None:
        """Forget all texts, and cut the documents to come into passages; None leaves them whole.

        Raises:
            UsageError: a passage and a query do not fit into a pair.
        """
        self.clear()
        self._in_use = in_use
        if in_use is None:
            return
        left = self.room - in_use.windows.longest
        own = self._limits.max_query_length
        needed = own if own < self._limits.max_length else LEAST_QUERY
        if left < needed:
            title = f" with {in_use.windows.title} of the title" if in_use.windows.title else ""
            raise UsageError(
                f"a passage of {in_use.windows.length} tokens{title} leaves {max(0, left)} of {self._limits.max_length}"
                f" for the query, which needs {needed}",
                where="passages.length",
                hint="give shorter passages, or a larger max_length where the model has it",
                code="passage-too-long",
            )

    @property
    def windows_in_use(self) -> WindowsInUse | None:
        """Return how documents are cut into passages; None where they are left whole."""
        return self._in_use

    @property
    def room(self) -> int:
        """Return how many tokens of query and document together a pair holds."""
        return max(0, self._limits.max_length - self._template.length)

    def document_room(self, query_tokens: int) -> int:
        """Return how many tokens of a long document are read beside a query of so many tokens."""
        if self._in_use is not None:
            return self._in_use.windows.reach
        query, room = min(query_tokens, self._limits.max_query_length), self.room
        if self._limits.truncation == "longest_first" and query > room // 2:
            query = room // 2
        return min(self._limits.max_document_length or room, max(0, room - query))

    def passages(self, query_id: str, doc_id: str) -> list[Pair]:
        """Return the ids of the query with each passage of the document, in order; there is at least one."""
        query = self._query_beside_passage(query_id)
        return [self._joined(query, passage) for passage in self._passages_of(doc_id)]

    def best_passage(self, query_id: str, doc_id: str) -> int:
        """Return the number of the document's passage that matches the query best by BM25."""
        return best_passage(self._query_beside_passage(query_id), self._passages_of(doc_id))

    def _query_beside_passage(self, query_id: str) -> array[int]:
        if self._in_use is None:
            raise ValueError("documents are not cut into passages")
        return self._known["query", query_id][
            : min(self._limits.max_query_length, self.room - self._in_use.windows.longest)
        ]

    def _passages_of(self, doc_id: str) -> list[array[int]]:
        if self._in_use is None:
            raise ValueError("documents are not cut into passages")
        ids, windows = self._known["document", doc_id], self._in_use.windows
        title = self._known.get(("title", doc_id), array("I"))
        first, *others = [ids[start : start + windows.length] for start in windows.starts(len(ids))]
        return [first, *(title + passage for passage in others)]

    def pair(self, query_id: str, doc_id: str) -> Pair:
        """Return the pair's ids: each text cut to its own length, then both to the pair's."""
        template, limits = self._template, self._limits
        query = self._known["query", query_id][: limits.max_query_length]
        document = self._known["document", doc_id][: limits.max_document_length or limits.max_length]
        room = max(0, limits.max_length - template.length)
        if limits.truncation == "longest_first":
            whole_query = self._full_lengths.get(("query", query_id), len(query))
            whole_document = self._full_lengths.get(("document", doc_id), len(document))
            is_query_longer = whole_query > whole_document
            query, document = _truncate_longest_first(query, document, room, is_query_longer=is_query_longer)
        else:
            document = document[: max(0, room - len(query))]
        return self._joined(query, document)

    def _joined(self, query: array[int], document: array[int]) -> Pair:
        """Return both with the special tokens around them."""
        template = self._template
        split = len(template.head) + len(query) + template.split
        return Pair((*template.head, *query, *template.middle, *document, *template.tail), split)

    def batch(self, pairs: Sequence[Pair], device: torch.device) -> PaddedBatch:
        """Return pairs padded to the longest of them, on `device`."""
        return pad_pairs(pairs, self._template.pad, device, has_types=self._template.has_types)


def pad_pairs(pairs: Sequence[Pair], pad: int, device: torch.device, *, has_types: bool) -> PaddedBatch:
    """Return pairs padded with the token `pad` to the longest of them, on `device`."""
    width = max(len(pair.ids) for pair in pairs)
    ids = torch.tensor([pair.ids + (pad,) * (width - len(pair.ids)) for pair in pairs])
    lengths = torch.tensor([len(pair.ids) for pair in pairs]).unsqueeze(1)
    places = torch.arange(width).unsqueeze(0)
    mask = (places < lengths).long()
    segments = (places >= torch.tensor([pair.split for pair in pairs]).unsqueeze(1)).long() * mask
    return PaddedBatch(ids.to(device), mask.to(device), segments.to(device), has_types)


def _truncate_longest_first(
    query: array[int], document: array[int], room: int, *, is_query_longer: bool
) -> tuple[array[int], array[int]]:
    """Return both cut to `room` tokens in all: the shorter is kept up to half of it, and the longer gets an odd one.

    Args:
        query: its ids, cut to the pair's length at most.
        document: the same of the document.
        room: tokens for both.
        is_query_longer: whether the query was the longer of the two before either was cut to the pair's length.
    """
    if len(query) + len(document) <= room:
        return query, document
    half = room // 2
    if not is_query_longer:
        return (query, document[: room - len(query)]) if len(query) <= half else (query[:half], document[: room - half])
    return (
        (query[: room - len(document)], document) if len(document) <= half else (query[: room - half], document[:half])
    )


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return batches of indices by length, then position; no batch holds more than `budget` padded tokens.

    The cut depends on the lengths alone, never on what is scored before or after.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def even_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return batches of indices with about equal numbers of tokens, at most `budget` and a pair each; longest first.

    Their number divides evenly among most numbers of threads: at least four if there are enough tokens for them, and a
    multiple of the largest power of two within half their number. The cut depends on the lengths alone, never on the
    number of threads nor on what is scored before or after.
    """
    total = sum(lengths)
    count = max(-(-total // budget), min(_MIN_BATCHES, total // _MIN_BATCH_TOKENS), 1)
    multiple = 1 << max(0, (count // 2).bit_length() - 1)
    count = -(-count // multiple) * multiple
    batches: list[list[int]] = [[] for _ in range(count)]
    tokens_before = 0
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index), reverse=True):
        batches[tokens_before * count // max(1, total)].append(index)
        tokens_before += lengths[index]
    return [batch[::-1] for batch in batches if batch]
