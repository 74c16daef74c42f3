"""Turn query and document into the tokens of a language model's prompt, each text tokenized once where that is exact.

prefix | body: query, document | suffix. Prefix and suffix are never cut; the body loses its end.

Invariant: the tokens are those of the whole parts tokenized together. Where a part holds query and document, it is cut
between them only at a place where that made no difference for texts that end and begin in every awkward way.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any

import msgspec

from cerank.core.passage_scores import passage_id
from cerank.errors import UsageError
from cerank.models.prompt_templates import DOCUMENT, QUERY, PromptTemplate
from cerank.tokenization.passage_windows import WindowsInUse, best_passage
from cerank.tokenization.token_store import TokenStore
from cerank.tokenization.tokens import MAX_REMEMBERED_TEXTS, Pair, PairTemplate, PairTokenizer, TokenLimits

_PROBES = (
    "", " ", "  ", "\n", "\t", "x", " x", "x ", "x?", "?", "x\n", "\nx", "1", "x.\n\n", "...", "the cat", "naïve é",
    "e\u0301", "\u0301", "日本", "日本。", "😀", "😀\u200d💻", "\u200d", "ß", "'s", "x's", "<", ">", "</s>", ":",
    "a: b", "#!$", "\u00a0", "\u2028", "İ",
)  # fmt: skip


class _Side(msgspec.Struct, frozen=True):
    """The parts of a template on one side of the cut: fixed tokens around the part that holds the text."""

    before: tuple[int, ...]  # tokens of whole parts before the text's own
    start: str  # beginning of the text's own part
    end: str
    after: tuple[int, ...]  # tokens of whole parts behind it


class PromptTokenizer(PairTokenizer):
    """Tokenizes each text once with the words around it, and joins query and document as the template says.

    Args:
        tokenizer: the model's tokenizer, as transformers loads it.
        limits: lengths in tokens; `max_length` counts prefix and suffix, and query and document keep at most their own.
        template: what is written around the two.

    Raises:
        UsageError: the limits leave no room for a document, or ask for a truncation that cuts something else.
    """

    def __init__(self, tokenizer: Any, limits: TokenLimits, template: PromptTemplate) -> None:
        self.tokenizer, self._limits, self._query_prompt = tokenizer, limits, ""
        self._known: dict[tuple[str, str], array[int]] = {}
        self._texts: dict[tuple[str, str], str] = {}  # where parts cannot be tokenized apart
        self._store: TokenStore | None = None
        self._in_use: WindowsInUse | None = None
        self._bare: dict[tuple[str, str], str] = {}  # texts of queries and passages, to match them without the prompt
        self._passage_counts: dict[str, int] = {}  # document -> its passages, each kept under an id of its own
        self._part = next((part for part in template.body if QUERY in part and DOCUMENT in part), "")
        prefix = tuple(self._ids([template.prefix])[0]) if template.prefix else ()
        suffix = tuple(id_ for part in template.suffix for id_ in self._ids([part])[0])
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._template = PairTemplate(prefix, (), suffix, split=0, has_types=False, pad=pad)
        sides = self._sides(template)
        self._query: _Side | None = sides[0] if sides else None
        self._document: _Side | None = sides[1] if sides else None
        if self._query is None:
            at = template.body.index(self._part)
            self._before, self._after = (self._fixed(part) for part in (template.body[:at], template.body[at + 1 :]))
        self._check_limits()

    def _check_limits(self) -> None:
        needed = self._template.length + self._body_length("", "") + 1
        if self._limits.max_length <= needed:
            what = (
                f"max_length = {self._limits.max_length} leaves no room: the model's prompt takes {needed - 1} tokens"
            )
            raise UsageError(what, where="max_length", hint=f"give {needed + 32} or more", code="length-too-small")
        if self._limits.truncation != "document":
            what = f'truncation = "{self._limits.truncation}" is for encoders; a prompt is cut at the end of its body'
            raise UsageError(what, where="truncation", hint='set truncation = "document"', code="option-for-encoders")

    def _body_length(self, query: str, document: str) -> int:
        if self._query is None or self._document is None:
            return len(self._joint_body(query, document))
        left, right = self._side_ids(self._query, [query], 0)[0], self._side_ids(self._document, [document], 0)[0]
        return len(left) + len(right)

    @property
    def is_apart(self) -> bool:
        """Return whether query and document are tokenized apart, which needs each of them only once."""
        return self._query is not None

    def add(self, kind: str, keys: Sequence[str], texts: Callable[[Sequence[str]], Sequence[str]]) -> None:
        """Tokenize what is new among the `keys` of a kind ("query" or "document"); `texts` returns texts in order."""
        if kind == "query" and len(self) > MAX_REMEMBERED_TEXTS:
            self.clear()
        if kind == "document" and self._in_use is not None:
            new = [key for key in dict.fromkeys(keys) if key not in self._passage_counts]
            passages = self._passage_texts(self._in_use, new, list(texts(new)) if new else [])
            # tokenized beside other words a passage may take a token more: only the prompt's own limit cuts it
            self._add_texts("document", list(passages), list(passages.values()), self._limits.max_length)
            return
        known = self._texts if (self._query if kind == "query" else self._document) is None else self._known
        new = [key for key in dict.fromkeys(keys) if (kind, key) not in known]
        limits = self._limits
        limit = limits.max_query_length if kind == "query" else limits.max_document_length or limits.max_length
        if kind == "query" and self._in_use is not None:
            limit = min(limit, self.room - self._in_use.windows.longest)
        self._add_texts(kind, new, list(texts(new)) if new else [], limit)

    def _add_texts(self, kind: str, new: Sequence[str], texts: list[str], limit: int) -> None:
        """Tokenize texts that are not known yet, each cut where its own tokens exceed `limit`."""
        if not new:
            return
        side = self._query if kind == "query" else self._document
        short = self._shortened(texts, limit)
        if self._in_use is not None:
            self._bare.update({(kind, key): text for key, text in zip(new, short, strict=True)})
        if side is None:
            self._texts.update({(kind, key): text for key, text in zip(new, short, strict=True)})
            return
        rows = self._side_ids(side, short, self._limits.max_length)
        self._known.update({(kind, key): array("I", ids) for key, ids in zip(new, rows, strict=True)})

    def pair(self, query_id: str, doc_id: str) -> Pair:
        """Return the pair's ids; `split` is where what depends on the document begins."""
        room = self._limits.max_length - self._template.length
        if self._query is None:
            body = self._joint_body(self._texts["query", query_id], self._texts["document", doc_id])
            shared = 0
        else:
            left = self._known["query", query_id]
            body, shared = [*left, *self._known["document", doc_id]], len(left)
        body = body[:room]
        head = self._template.head
        return Pair((*head, *body, *self._template.tail), len(head) + min(shared, len(body)))

    def _passage_texts(self, in_use: WindowsInUse, doc_ids: Sequence[str], texts: list[str]) -> dict[str, str]:
        """Return the text of each passage by its id: passages begin and end where tokens of the document do."""
        windows, passages = in_use.windows, dict[str, str]()
        titles = list(in_use.titles(doc_ids)) if in_use.titles is not None and windows.title and doc_ids else []
        fronts = [f"{title} " if title else "" for title in self._shortened(titles, windows.title)]
        for place, (doc_id, text) in enumerate(zip(doc_ids, texts, strict=True)):
            offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            edges = offsets["offset_mapping"][: windows.reach]
            starts = windows.starts(len(edges))
            self._passage_counts[doc_id] = len(starts)
            for number, start in enumerate(starts):
                inside = edges[start : start + windows.length]
                front = fronts[place] if fronts and number else ""
                passages[passage_id(doc_id, number)] = front + text[inside[0][0] : inside[-1][1]] if inside else ""
        return passages

    @property
    def room(self) -> int:
        """Return how many tokens of query and document together a prompt holds."""
        return max(0, self._limits.max_length - self._template.length - self._body_length("", ""))

    def passages(self, query_id: str, doc_id: str) -> list[Pair]:
        """Return the prompt of the query with each passage of the document, in order; there is at least one."""
        return [self.pair(query_id, passage_id(doc_id, number)) for number in range(self._passage_counts[doc_id])]

    def best_passage(self, query_id: str, doc_id: str) -> int:
        """Return the number of the document's passage that matches the query best by BM25."""
        numbers = range(self._passage_counts[doc_id])
        texts = [self._bare["document", passage_id(doc_id, number)] for number in numbers]
        query, *passages = self._ids([self._bare["query", query_id], *texts])
        return best_passage(query, passages)

    def __len__(self) -> int:
        return len(self._known) + len(self._texts)

    def clear(self) -> None:
        """Forget all texts, to bound memory."""
        self._known.clear()
        self._texts.clear()
        self._bare.clear()
        self._passage_counts.clear()

    def use_token_store(self, store: TokenStore | None) -> None:  # noqa: ARG002 - what it holds is tokenized without the prompt
        """Forget all texts; the tokens of a store are those of bare texts, which a prompt cannot be made of."""
        self.clear()

    def _ids(self, texts: Sequence[str], limit: int = 0) -> list[list[int]]:
        cut = {"truncation": True, "max_length": limit} if limit else {"truncation": False}
        # left to itself, the tokenizer of a language model may cut at the left
        side, self.tokenizer.truncation_side = self.tokenizer.truncation_side, "right"
        try:
            encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False, **cut)
        finally:
            self.tokenizer.truncation_side = side
        rows: list[list[int]] = encoded["input_ids"]
        return rows

    def _fixed(self, parts: Sequence[str]) -> tuple[int, ...]:
        return tuple(id_ for part in parts for id_ in self._ids([part])[0])

    def _side_ids(self, side: _Side, texts: Sequence[str], limit: int) -> list[list[int]]:
        rows = self._ids([side.start + text + side.end for text in texts], limit)
        return [[*side.before, *row, *side.after] for row in rows]

    def _joint_body(self, query: str, document: str) -> list[int]:
        before, rest = self._part.split(QUERY)
        between, after = rest.split(DOCUMENT)
        limit = self._limits.max_length
        return [*self._before, *self._ids([before + query + between + document + after], limit)[0], *self._after]

    def _shortened(self, texts: list[str], limit: int) -> list[str]:
        """Return the texts, each cut where its own tokens exceed `limit`."""
        if limit >= self._limits.max_length:
            return texts
        out = []
        for text in texts:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            is_long = len(encoded["input_ids"]) > limit
            out.append(text[: encoded["offset_mapping"][limit - 1][1]] if is_long else text)
        return out

    def _sides(self, template: PromptTemplate) -> tuple[_Side, _Side] | None:
        """Return what surrounds the query and the document, tokenized apart; None where that would change tokens."""
        parts = list(template.body)
        if self._part:
            at = parts.index(self._part)
            halves = self._exact_cut(self._part)
            if halves is None:
                return None
            parts[at : at + 1] = halves
        query = next(number for number, part in enumerate(parts) if QUERY in part)
        document = next(number for number, part in enumerate(parts) if DOCUMENT in part)
        left_start, left_end = parts[query].split(QUERY)
        right_start, right_end = parts[document].split(DOCUMENT)
        left = _Side(self._fixed(parts[:query]), left_start, left_end, self._fixed(parts[query + 1 : document]))
        return left, _Side((), right_start, right_end, self._fixed(parts[document + 1 :]))

    def _exact_cut(self, part: str) -> tuple[str, str] | None:
        """Return a part that holds both texts as two that give the same tokens; None where no place is found."""
        before, rest = part.split(QUERY)
        between, after = rest.split(DOCUMENT)
        pairs = [(query, document) for query in _PROBES for document in _PROBES]
        joint = self._ids([before + query + between + document + after for query, document in pairs])
        for at in range(len(between), -1, -1):
            # the tokenizer may take a space for the beginning of a word, which needs none at the start of a text
            for skipped in (0, 1) if between[at : at + 1] == " " else (0,):
                left, right = before + QUERY + between[:at], between[at + skipped :] + DOCUMENT + after
                lefts = self._ids([left.replace(QUERY, probe) for probe in _PROBES])
                rights = self._ids([right.replace(DOCUMENT, probe) for probe in _PROBES])
                apart = (left_ids + right_ids for left_ids in lefts for right_ids in rights)
                if all(starmap(operator.eq, zip(apart, joint, strict=True))):
                    return left, right
        return None
