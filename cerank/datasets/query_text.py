"""The text of a query as it is compared with others."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

NEAR = 0.8  # of the words of two queries together, the share that both have: from there on they count as one


def normalized(text: str) -> str:
    """Return the text in lower case without punctuation, words separated by one space; equal results mean one query."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def near_copies(queries: Mapping[str, str], others: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return those of the queries that others have in nearly the same words -> the first such other.

    The others are read once and not kept, so that there may be millions of them.

    >>> near_copies({"v1": "Who wrote Hamlet?", "v2": "?"}, [("t1", "who wrote hamlet"), ("t2", "!")])
    {'v1': 't1'}
    """
    words = {query: frozenset(normalized(text).split()) for query, text in queries.items()}
    frequency = Counter(word for each in words.values() for word in each)

    def rarest(own: frozenset[str]) -> list[str]:
        """Return as many of the rarest words as two sets that overlap so much cannot both do without."""
        count = len(own) - math.ceil(NEAR * len(own)) + 1
        return sorted(own, key=lambda word: (frequency[word], word))[:count]

    holders: dict[str, list[str]] = defaultdict(list)
    for query, own in words.items():
        for word in rarest(own) if own else ():
            holders[word].append(query)
    copies: dict[str, str] = {}
    for other, text in others:
        theirs = frozenset(normalized(text).split())
        candidates = {query for word in rarest(theirs) if word in holders for query in holders[word]} if theirs else ()
        for query in candidates:
            if query not in copies and len(words[query] & theirs) >= NEAR * len(words[query] | theirs):
                copies[query] = other
    return copies
