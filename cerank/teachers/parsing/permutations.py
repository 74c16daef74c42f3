"""Permutations in a model's words: prose, thinking, JSON, code fences, ranges, numbers that are no identifiers.

Invariant: a text in which no identifier can be told from ordinary numbers is no answer, never the identity.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import msgspec

from cerank.retrieval.teachers import Repairs, repair

_FOREIGN_DIGITS = str.maketrans(  # as rank_llm reads them
    "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉①②③④⑤⑥⑦⑧⑨❶❷❸❹❺❻❼❽❾０１２３４５６７８９🄀🄁🄂🄃🄄🄅🄆🄇🄈🄉",
    "0123456789012345678912345678912345678901234567890123456789",
)
_SPLIT_NUMBER = re.compile(r"\[(\d)\](\d)(?!\d)")  # "[1]4" is how RankGPT's outputs write [14] now and then
_FENCE = re.compile(r"```[a-zA-Z]*")
_WORD = r"(?:passages?|documents?|docs?|no\.?|nr\.?|number|id|#)"
_PLURAL = r"(?:passages|documents|docs)"
_INSIDE = rf"\s*(?:{_WORD}[\s_:#-]*)?(\d+)\s*"
_BRACKETED = re.compile(rf"\[{_INSIDE}\]", re.IGNORECASE)
_BRACKETED_RANGE = re.compile(rf"\[{_INSIDE}\]?\s*(?:-|–|—|\.\.\.?|to|through)\s*\[?{_INSIDE}\]", re.IGNORECASE)
_LIST_INSIDE = re.compile(rf"\[({_INSIDE}(?:[,;>\s]+{_INSIDE})+)\]", re.IGNORECASE)
# "passages 1-14" are spoken of together, and not ranked; behind "Passage 3 - " stands a score or a reason
_NAMED = re.compile(
    rf"\b(?:(?P<plural>{_PLURAL})|(?!{_PLURAL}){_WORD})[\s_:#\[-]*(?P<number>\d+)"
    r"(?!\d|[-–—]\d|\s*(?:to|through)\s*\d)(?(plural)(?!\s*[-–—]\s*\d))",
    re.IGNORECASE,
)
_BARE_CHAIN = re.compile(r"(?<![\w.])\d+(?:\s*[>,;]\s*\d+)+(?![\w])")
_ONLY_NUMBERS = re.compile(r"[\s\d,;>.\[\]()]*")
_LINK = re.compile(r"[\s>,;=.|→\-*'\"]*(?:and|then)?[\s>,;=.|→*'\"]*")  # what may stand between two of a chain
_JSON_KEYS = ("id", "passage", "passage_id", "identifier", "rank")
_LONGEST_NUMBER = 9  # digits


class Permutation(msgspec.Struct, frozen=True, kw_only=True):
    """An order that was read from an answer, and what had to be repaired."""

    order: tuple[int, ...]  # places from 0, best first; every place once
    named: int  # different passages that the answer names
    repairs: Repairs = Repairs()
    is_reworded: bool = False  # it was found in other words than "[2] > [1]": prose, JSON, bare numbers, a range

    @property
    def is_unchanged(self) -> bool:
        """Return whether the order is the one that was shown."""
        return self.order == tuple(range(len(self.order)))


class _Found(msgspec.Struct, frozen=True):
    """An identifier in a text, and where it stands."""

    number: int
    start: int
    end: int


def read_permutation(text: str, size: int) -> Permutation | None:
    """Return the order of `size` passages that an answer means; None if it names none of them.

    Numbers that are no identifiers ("20 passages", "2024") are not read: an identifier stands in brackets, behind a
    word such as "Passage", in JSON, or in a chain such as "3 > 1 > 2". Where prose names passages before or after the
    ranking itself, the longest chain comes first. RankGPT's rules hold for what is read (`retrieval.teachers.repair`):
    the first mention counts, and passages that were not named follow in the order that was given.

    Args:
        text: answer of the model, complete.
        size: the number of passages that were shown.
    """
    body = answer_of(text)
    if body is None:
        return None
    clean = _SPLIT_NUMBER.sub(r"[\1\2]", _FENCE.sub(" ", body).translate(_FOREIGN_DIGITS)).strip()
    numbers, plain = _numbers_in(clean)
    if not any(1 <= number <= size for number in numbers):
        return None
    order, repairs = repair(" ".join(map(str, numbers)), size)
    named = len({number for number in numbers if 1 <= number <= size})
    return Permutation(order=order, named=named, repairs=repairs, is_reworded=not plain or clean != text.strip())


def answer_of(text: str) -> str | None:
    """Return an answer without the thinking before it; None if the thinking never ended."""
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif "<think>" in text:
        return None
    tagged = re.search(r"<answer>(.*?)(?:</answer>|\Z)", text, re.DOTALL | re.IGNORECASE)
    return tagged[1] if tagged else text


def _numbers_in(text: str) -> tuple[list[int], bool]:
    """Return the identifiers in a text, and whether they stand alone in it as "[2] > [1]"."""
    from_json = _json_numbers(text)
    if from_json:
        return from_json, False
    identifiers = list(_bracketed(text))
    if identifiers:
        return _chain_first(text, identifiers), _is_plain(text, identifiers)
    named = [_Found(_number(match["number"]), *match.span()) for match in _NAMED.finditer(text)]
    if named:
        return _chain_first(text, named), False
    chains = [[_number(digits) for digits in re.findall(r"\d+", match[0])] for match in _BARE_CHAIN.finditer(text)]
    if chains:
        return max(chains, key=lambda chain: len(set(chain))), False
    if re.search(r"\d", text) and _ONLY_NUMBERS.fullmatch(text):
        return [_number(digits) for digits in re.findall(r"\d+", text)], False
    return [], False


def _bracketed(text: str) -> Iterator[_Found]:
    """Yield identifiers in brackets in the order of the text: [3], [Passage 3], [1, 2, 3], [5]-[8], [5-8]."""
    spans: list[tuple[int, int, list[int]]] = []
    for match in _BRACKETED_RANGE.finditer(text):
        first, last = _number(match[1]), _number(match[2])
        step = 1 if last >= first else -1
        if abs(last - first) < 1000:
            spans.append((*match.span(), list(range(first, last + step, step))))
    for pattern in (_LIST_INSIDE, _BRACKETED):
        for match in pattern.finditer(text):
            if not any(start < match.end() and match.start() < end for start, end, _ in spans):
                spans.append((*match.span(), [_number(digits) for digits in re.findall(r"\d+", match[0])]))
    for start, end, numbers in sorted(spans):
        yield from (_Found(number, start, end) for number in numbers)


def _chain_first(text: str, identifiers: list[_Found]) -> list[int]:
    """Return the numbers of the longest chain (the last of equals), then others, each in the text's order."""
    chains: list[list[_Found]] = [[identifiers[0]]]
    for before, other in itertools.pairwise(identifiers):
        if other.start < before.end or _LINK.fullmatch(text, before.end, other.start):
            chains[-1].append(other)
        else:
            chains.append([other])
    longest = max(reversed(chains), key=lambda chain: len({entry.number for entry in chain}))
    if len({entry.number for entry in longest}) < 2:  # prose about one passage after another
        return [entry.number for entry in identifiers]
    inside = {entry.number for entry in longest}
    rest = dict.fromkeys(entry.number for chain in chains if chain is not longest for entry in chain)
    if inside.isdisjoint(rest):  # a ranking with something in between
        return [entry.number for entry in identifiers]
    # what prose says beside the ranking is no part of it, unless the ranking lacks that passage
    return [entry.number for entry in longest] + [number for number in rest if number not in inside]


def _is_plain(text: str, identifiers: list[_Found]) -> bool:
    return re.fullmatch(r"\[\d+\](?: > \[\d+\])*", text) is not None and len(identifiers) == text.count("[")


def _json_numbers(text: str) -> list[int]:
    """Return the identifiers in a text that is JSON: a list of numbers or texts, or an object that holds one."""
    if text[:1] not in {"[", "{"}:
        return []
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return []
    if isinstance(value, dict):
        lists = [entry for entry in value.values() if isinstance(entry, list)]
        value = max(lists, key=len, default=[])
        if not value:
            value = next((entry for entry in (msgspec.json.decode(text)).values() if isinstance(entry, str)), "")
            return [entry.number for entry in _bracketed(value)] if isinstance(value, str) else []
    numbers = []
    for entry in value if isinstance(value, list) and len(value) > 1 else []:
        named = next((entry[key] for key in _JSON_KEYS if key in entry), "") if isinstance(entry, dict) else entry
        digits = re.findall(r"\d+", str(named)) if isinstance(named, int | str) else []
        numbers += [_number(digits[0])] if len(digits) == 1 else []
    return numbers


def _number(digits: str) -> int:
    """Return the number; one of very many digits is none of a passage."""
    return int(digits) if len(digits) <= _LONGEST_NUMBER else 0
