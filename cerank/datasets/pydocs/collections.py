"""Three datasets from the docstrings: train, validation and test.

Invariant: no document contains its own query, and no document of the training collection contains another's query
verbatim, so that "BM25's candidates without the relevant ones" holds no false negative that was put there by design.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cerank.datasets.pydocs.clusters import SUMMARY_JACCARD, assign_splits, near_pairs
from cerank.datasets.pydocs.docstrings import Docstring, read_standard_library, words

MIN_QUERY_WORDS = 4
MAX_QUERY_WORDS = 40
MIN_BODY_WORDS = 8  # a document must have this much left to be asked for
MIN_CLOZE_WORDS = 6
MAX_CLOZES = 3  # sentences of one docstring that become training queries
MAX_RELEVANT = 3  # a summary that more objects share asks for nothing in particular
FEWEST_TEST_QUERIES = 300


@dataclass(frozen=True)
class Collection:
    """Documents and queries as (id, text) pairs, and the relevant ids of every query."""

    documents: tuple[tuple[str, str], ...]
    queries: tuple[tuple[str, str], ...]
    qrels: dict[str, tuple[str, ...]]


def _is_query(sentence: str, minimum: int = MIN_QUERY_WORDS) -> bool:
    """Return whether a sentence can be a query: long enough, not too long, and mostly words."""
    tokens = words(sentence)
    prose = sum(len(w) > 1 and w.isalpha() for w in tokens)
    return minimum <= prose and len(tokens) <= MAX_QUERY_WORDS and ">>>" not in sentence


def _contains(document: str, sentence: str) -> bool:
    """Return whether a document contains a sentence word for word, even as a part of a longer sentence."""
    return f" {' '.join(words(sentence))} " in f" {' '.join(words(document))} "


def _evaluation(
    split: str, docstrings: Sequence[Docstring], splits: Sequence[str],
    documents: tuple[tuple[str, str], ...],
) -> Collection:  # fmt: skip
    """Summaries as queries; every document whose docstring has that summary is relevant."""
    relevant: defaultdict[str, list[Docstring]] = defaultdict(list)
    for docstring, its_split in zip(docstrings, splits, strict=True):
        if its_split == split:
            relevant[" ".join(words(docstring.summary))].append(docstring)
    queries: list[tuple[str, str]] = []
    qrels: dict[str, tuple[str, ...]] = {}
    for same in relevant.values():
        telling = [d for d in same if len(words(" ".join(d.body))) >= MIN_BODY_WORDS]
        telling = [d for d in telling if not any(_contains(other.text(other.body), d.summary) for other in same)]
        if telling and len(same) <= MAX_RELEVANT and _is_query(telling[0].summary):
            queries.append((f"{telling[0].name}#summary", telling[0].summary))
            qrels[queries[-1][0]] = tuple(d.name for d in same)
    return Collection(documents, tuple(queries), qrels)


def _repeated(docstrings: Sequence[Docstring]) -> set[str]:
    """Return the sentences that have a near-equal sentence in the same docstring or in another."""
    sentences = [s for d in docstrings for s in (d.summary, *d.body)]
    pairs = near_pairs([frozenset(words(s)) for s in sentences], SUMMARY_JACCARD)
    return {sentences[number] for pair in pairs for number in pair}


def _held_out(docstring: Docstring, repeated: set[str]) -> list[int]:
    """Return the body sentences that become queries: at most every second one, and no repeated one."""
    chosen: list[int] = []
    limit = min(MAX_CLOZES, len(docstring.body) // 2)
    for number, sentence in enumerate(docstring.body):
        if len(chosen) == limit:
            break
        if chosen and chosen[-1] == number - 1:
            continue
        if _is_query(sentence, MIN_CLOZE_WORDS) and sentence not in repeated:
            chosen.append(number)
    return chosen


def _training(docstrings: Sequence[Docstring]) -> Collection:
    """Summaries and held-out sentences as queries; a document lacks all of its own queries."""
    repeated = _repeated(docstrings)
    documents: list[tuple[str, str]] = []
    queries: list[tuple[str, str]] = []
    qrels: dict[str, tuple[str, ...]] = {}
    for docstring in docstrings:
        held_out = _held_out(docstring, repeated)
        remaining = [s for i, s in enumerate(docstring.body) if i not in held_out]
        documents.append((docstring.name, docstring.text(remaining)))
        sentences = [("#summary", docstring.summary)] if docstring.summary not in repeated else []
        sentences += [(f"#s{i + 1}", docstring.body[i]) for i in held_out]
        sentences = [(suffix, s) for suffix, s in sentences if _is_query(s) and not _contains(documents[-1][1], s)]
        for suffix, sentence in sentences:
            queries.append((docstring.name + suffix, sentence))
            qrels[docstring.name + suffix] = (docstring.name,)
    return Collection(tuple(documents), tuple(queries), qrels)


def build() -> dict[str, Collection]:
    """Return the train, validation and test datasets; the latter two share their documents."""
    docstrings = read_standard_library()
    splits = assign_splits(docstrings)
    documents = tuple((d.name, d.text(d.body)) for d in docstrings)
    train = [d for d, s in zip(docstrings, splits, strict=True) if s == "train"]
    return {
        "train": _training(train),
        "validation": _evaluation("validation", docstrings, splits, documents),
        "test": _evaluation("test", docstrings, splits, documents),
    }


def write(folder: str) -> None:
    """Writes train/, validation/ and test/ under `folder`, in the layout of `datasets.local_folders`.

    Raises:
        ValueError: there are too few queries to test on.
    """
    built = build()
    if len(built["test"].queries) < FEWEST_TEST_QUERIES:
        raise ValueError(f"{len(built['test'].queries)} test queries are too few")
    for split, collection in built.items():
        part = Path(folder) / split
        part.mkdir(parents=True)
        rows = [json.dumps({"doc_id": doc, "text": text}) for doc, text in collection.documents]
        (part / "docs.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf8")
        queries = [f"{query}\t{' '.join(text.split())}\n" for query, text in collection.queries]
        (part / "queries.tsv").write_text("".join(queries), encoding="utf8")
        judged = [f"{query} 0 {doc} 1\n" for query, docs in collection.qrels.items() for doc in docs]
        (part / "qrels").write_text("".join(judged), encoding="utf8")
