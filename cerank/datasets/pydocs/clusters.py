"""Docstrings that say nearly the same, brought together, so that no split learns what another is asked.

Invariant: a cluster lies in one split as a whole, and its split is a hash of its own words, stable across versions.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from cerank.datasets.pydocs.docstrings import Docstring, words

SUMMARY_JACCARD = 0.75  # share of common words from which two summaries ask the same
TEXT_JACCARD = 0.5  # share of common word trigrams from which two texts say the same
SPLIT_SHARES = (("test", 0.25), ("validation", 0.11))  # fractions of the clusters; the others are for training


def near_pairs(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield every pair of sets whose Jaccard similarity reaches the threshold (prefix filtering)."""
    frequency = Counter(item for members in sets for item in members)
    index: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(sets)), key=lambda i: (len(sets[i]), i)):
        members = sets[number]
        rarest = sorted(members, key=lambda item: (frequency[item], item))
        candidates: set[int] = set()
        for item in rarest[: len(members) - math.ceil(threshold * len(members)) + 1]:
            candidates.update(index[item])
            index[item].append(number)
        for other in sorted(candidates):
            common = len(members & sets[other])
            if common >= threshold * (len(members) + len(sets[other]) - common):
                yield other, number


def _shingles(text: str) -> frozenset[str]:
    """Return the word trigrams of a text; a shorter text is returned as a whole."""
    tokens = words(text)
    if not tokens:
        return frozenset()
    if len(tokens) < 3:
        return frozenset([" ".join(tokens)])
    return frozenset(" ".join(tokens[i : i + 3]) for i in range(len(tokens) - 2))


def cluster(docstrings: Sequence[Docstring]) -> list[int]:
    """Return the cluster of every docstring; docstrings with near-equal summaries or texts share one."""
    parent = list(range(len(docstrings)))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    views: list[tuple[list[frozenset[str]], float]] = [
        ([frozenset(words(d.summary)) for d in docstrings], SUMMARY_JACCARD),
        ([_shingles(" ".join((d.summary, *d.body))) for d in docstrings], TEXT_JACCARD),
        ([_shingles(" ".join(d.body)) for d in docstrings], TEXT_JACCARD),
    ]
    for sets, threshold in views:
        for left, other in near_pairs(sets, threshold):
            low, high = sorted((find(left), find(other)))
            parent[high] = low
    return [find(item) for item in range(len(docstrings))]


def _split_of(key: str) -> str:
    """Return the split of the cluster that has this canonical summary."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
    for split, share in SPLIT_SHARES:
        if place < share:
            return split
        place -= share
    return "train"


def assign_splits(docstrings: Sequence[Docstring]) -> list[str]:
    """Return the split of every docstring; a hash of a cluster's first summary assigns the whole cluster."""
    clusters = cluster(docstrings)
    canonical: dict[int, str] = {}
    for docstring, number in zip(docstrings, clusters, strict=True):
        key = " ".join(words(docstring.summary))
        canonical[number] = min(key, canonical.get(number, key))
    splits = {number: _split_of(key) for number, key in canonical.items()}
    return [splits[number] for number in clusters]
