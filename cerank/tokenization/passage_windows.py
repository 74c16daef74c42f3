"""Cut the tokens of a document into passages: windows of equal length, each a stride behind the one before.

The windows are those of transformers' tokenizers with `return_overflowing_tokens`, whose own `stride` is the overlap:
length - stride of here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from cerank.recipes.sections.passage_specs import PassageSpec

_K1, _B = 0.9, 0.4  # as the built-in BM25 and Anserini's


class PassageWindows(msgspec.Struct, frozen=True):
    """How a document is cut into passages; lengths are in tokens."""

    max_passages: int
    length: int
    stride: int
    title: int = 0  # of the title, in front of each passage after the first

    @classmethod
    def of_spec(cls, spec: PassageSpec) -> PassageWindows | None:
        """Return the windows of a table of a recipe; None where it asks for none."""
        if not spec.has_passages:
            return None
        return cls(spec.max_passages, spec.length, spec.stride, spec.title)

    @property
    def reach(self) -> int:
        """Return how many tokens of a document the passages hold at most."""
        return (self.max_passages - 1) * self.stride + self.length

    @property
    def longest(self) -> int:
        """Return how many tokens of the document and its title a pair holds at most."""
        return self.length + self.title

    def starts(self, tokens: int) -> range:
        """Return where each passage of a document of so many tokens starts; an empty document has one, empty, too.

        >>> list(PassageWindows(max_passages=8, length=4, stride=2).starts(7))
        [0, 2, 4]
        """
        beyond_first = max(0, tokens - self.length)
        count = min(self.max_passages, 1 + -(-beyond_first // self.stride))
        return range(0, count * self.stride, self.stride)


def best_passage(query: Sequence[int], passages: Sequence[Sequence[int]]) -> int:
    """Return the number of the passage that matches the query best by BM25, the first of those that are equal.

    Terms are tokens, and the collection is the passages of the one document: a token that is in all of them tells none
    apart. So the result depends on query and document alone, whatever else is in the step or the collection.
    """
    if len(passages) < 2:
        return 0
    counts = [Counter(passage) for passage in passages]
    mean = sum(map(len, passages)) / len(passages)
    scores = [0.0] * len(passages)
    for term in dict.fromkeys(query):
        frequency = sum(term in count for count in counts)
        if not frequency:
            continue
        weight = math.log(1.0 + (len(passages) - frequency + 0.5) / (frequency + 0.5))
        for number, count in enumerate(counts):
            times = count[term]
            norm = _K1 * (1.0 - _B + _B * len(passages[number]) / mean)
            scores[number] += weight * times / (times + norm) if times else 0.0
    return max(range(len(scores)), key=lambda number: (scores[number], -number))


class WindowsInUse(msgspec.Struct, frozen=True):
    """The windows of the documents that are tokenized, and where the titles come from."""

    windows: PassageWindows
    titles: Callable[[Sequence[str]], Sequence[str]] | None = None  # titles of document ids; None repeats none
