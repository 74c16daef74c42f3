"""`cerank data check`: the contents of a dataset, what its candidates allow, what it shares with another, and examples.

Invariant: everything is counted from the dataset as a run would open it; nothing is written.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cerank.core.rankings import Ranking
from cerank.datasets.dataset import Dataset
from cerank.datasets.query_text import normalized
from cerank.errors import FormatError, UsageError
from cerank.files.line_reader import local_path
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown

if TYPE_CHECKING:
    from cerank.app.checks.broken_rows import BrokenRows

_SHINGLE = 3  # words that are compared together
NEAR = 0.8  # share of common shingles from which two queries count as nearly the same
_NAMED = 3  # ids that are written out
_LOOKED_AT = 20  # candidates of a query among which copies of its positives are looked for


class DataCheckRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset to check, and with what: candidates, another dataset, a model's tokenizer."""

    dataset: str
    first_stage: str = ""  # whose candidates are measured; "" measures none
    depth: int = 100
    against: str = ""  # a dataset whose queries are compared with these
    base: str = ""  # whose tokenizer shows the examples; "" shows the texts alone
    max_length: int = 512  # tokens of a pair
    examples: int = 5


class Example(msgspec.Struct, frozen=True):
    """A pair as the model will see it."""

    query: str
    document: str
    grade: int
    tokens: int  # length of the pair before it is cut; 0 without a tokenizer
    is_cut: bool


class DataCheck(msgspec.Struct, frozen=True):
    """The result of checking a dataset: counts, warnings, and examples of pairs."""

    counts: tuple[tuple[str, str], ...]  # (what, value), in the order of reading
    warnings: tuple[str, ...]
    examples: tuple[Example, ...]


def check_data(settings: Settings, request: DataCheckRequest) -> DataCheck:
    """Return what is in the dataset.

    Raises:
        FormatError: malformed rows, of which the first ones are named and all are counted.
        UsageError: its qrels are empty, or judge none of its queries or none of its documents.
        CerankError: as opening it does.
    """
    from cerank.datasets.open_datasets import describe, open_dataset

    try:
        dataset = open_dataset(request.dataset, settings.cache)
    except FormatError as error:
        broken = _broken_rows(request.dataset)
        if broken is not None and broken.total > 1:
            raise broken.error() from error
        raise
    _check_judgments(request.dataset, dataset)
    about = describe(request.dataset, settings.cache)
    positives = {query: [doc for doc, grade in row.items() if grade > 0] for query, row in dataset.qrels.items()}
    empty = [query for query, docs in positives.items() if not docs]
    counts: list[tuple[str, str]] = [
        ("documents", f"{about.documents:,}"),
        ("judged queries", f"{about.queries:,}"),
        ("judgments", f"{about.judgments:,}"),
        ("grades", ", ".join(f"{grade}: {count:,}" for grade, count in about.grades)),
        ("positives per query", f"{sum(map(len, positives.values())) / max(1, len(positives)):.2f}"),
        ("queries without a positive", str(len(empty))),
        ("runs", ", ".join(about.runs) or "none"),
    ]
    warnings = list(dataset.decisions())
    if not dataset.qrels:
        warnings.append("no qrels: nothing can be measured on it, and a stage learns from a teacher alone")
    if about.judged_without_text:
        warnings.append(f"no text, so never found: {counted(about.judged_without_text, 'judged document')}")
    if empty:
        warnings.append(f"{counted(len(empty), 'query')} without a positive: {_first_few(empty)}")
    if request.first_stage:
        rows, notes = _candidates(settings, request, dataset, positives)
        counts += rows
        warnings += notes
    if request.against:
        rows, notes = _overlap(dataset, open_dataset(request.against, settings.cache))
        counts += rows
        warnings += notes
    return DataCheck(tuple(counts), tuple(warnings), _examples(request, dataset, positives))


def _check_judgments(name: str, dataset: Dataset) -> None:
    """Check that qrels which are there judge a query and a document of the dataset; it may do without any.

    Raises:
        UsageError: they are empty, or their ids are those of another collection.
    """
    from cerank.app.plans import unknown_judged
    from cerank.datasets.local_folders import files_with_rows

    folder, split = _folder_of(name)
    of_kind = dict(files_with_rows(folder, split)) if folder is not None else {}
    if not dataset.qrels and "judgment" in of_kind:
        raise _judges_nothing(of_kind["judgment"], dataset)
    unknown_judged(name, dataset)


def _judges_nothing(path: Path, dataset: Dataset) -> UsageError:
    """Return the error for a file of judgments of which nothing was taken."""
    from cerank.trec.text_io import qrels_rows

    judged = dict.fromkeys(query for _, query, _, _ in itertools.islice(qrels_rows(path), _LOOKED_AT))
    if not judged:
        hint = "did what wrote it fail? A dataset without judgments has no such file"
        return UsageError("the file judges no document", where=str(path), hint=hint, code="no-judgments")
    own = ", ".join(shown(query, 40) for query in dataset.query_ids[:_NAMED])
    hint = f"its queries are called {_first_few(list(judged))}, those of the dataset {own}"
    what = f"the file judges no query of {dataset.name} that has a text"
    return UsageError(what, where=str(path), hint=hint, code="no-judged-query")


def _broken_rows(name: str) -> BrokenRows | None:
    """Return the malformed rows of a dataset in a folder; None for other datasets."""
    from cerank.app.checks.broken_rows import broken_rows

    folder, split = _folder_of(name)
    return broken_rows(folder, split) if folder is not None else None


def _folder_of(name: str) -> tuple[Path | None, str]:
    """Return the folder that a dataset's name stands for, None where it is no folder, and the split that it names."""
    from cerank.datasets.open_datasets import whole_and_part

    path, _, split = whole_and_part(name)[0].partition("#")
    folder = local_path(path)
    return (folder if folder.is_dir() else None), split


def _candidates(
    settings: Settings, request: DataCheckRequest, dataset: Dataset, positives: Mapping[str, Sequence[str]]
) -> tuple[list[tuple[str, str]], list[str]]:
    from cerank.evaluation.diagnostics import ceiling
    from cerank.retrieval.first_stage import candidates, check_given_run

    ranking = candidates(dataset, request.first_stage, request.depth, settings.cache)
    lookup = check_given_run(dataset, request.first_stage, request.depth)
    answerable = {query: set(docs) for query, docs in positives.items() if docs}
    retrieved = sum(len(docs & set(ranking.get(query, ()))) for query, docs in answerable.items())
    without = [query for query, docs in answerable.items() if not docs & set(ranking.get(query, ()))]
    values = ceiling(ranking, dataset.qrels) if answerable else {}
    best = sum(values.values()) / len(values) if values else 0.0
    of = f"{request.first_stage}, first {request.depth}"
    rows = [
        (f"positives among the candidates ({of})", f"{retrieved:,} of {sum(map(len, answerable.values())):,}"),
        ("queries without a positive candidate", f"{len(without)} of {len(answerable)}"),
        ("best possible nDCG@10 on these candidates", f"{best:.4f}"),
    ]
    notes = [f"no re-ranker can help {counted(len(without), 'query')}: {_first_few(without)}"] if without else []
    notes += [f"{request.first_stage}: {note}" for note in (*lookup.notes, lookup.sentence) if note]
    copies = _copies(dataset, ranking, answerable)
    if copies:
        notes.append(
            f"{counted(len(copies), 'candidate')} have the text of a positive and are not judged relevant, such as "
            + ", ".join(f"{shown(doc, 40)} for {shown(query, 40)}" for query, doc in copies[:_NAMED])
        )
    return rows, notes


def _copies(dataset: Dataset, ranking: Ranking, positives: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return (query, document) of unjudged candidates whose text equals that of one of the query's positives."""
    copies = []
    for query, docs in positives.items():
        top = [doc for doc in ranking.get(query, ())[:_LOOKED_AT] if doc not in docs]
        known = [doc for doc in docs if doc in dataset.documents]
        if not (top and known):
            continue
        texts = {normalized(text) for text in dataset.documents.texts(known)} - {""}
        for doc, text in zip(top, dataset.documents.texts(top), strict=True):
            if normalized(text) in texts and dataset.qrels[query].get(doc, 0) <= 0:
                copies.append((query, doc))
    return copies


def _overlap(dataset: Dataset, other: Dataset) -> tuple[list[tuple[str, str]], list[str]]:
    """Return how many queries of `dataset` the other one has, by id, by text, and nearly."""
    is_same_collection = dataset.documents.fingerprint() == other.documents.fingerprint()
    by_id = [query for query in dataset.queries if is_same_collection and query in other.queries]
    texts = {normalized(text) for text in other.queries.values()} - {""}
    by_text = [query for query, text in dataset.queries.items() if normalized(text) in texts]
    near = _near(dataset.queries, other.queries, {*by_id, *by_text})
    rows = [
        (f"queries shared with {other.name} by id", str(len(by_id))),
        (f"queries shared with {other.name} by text", str(len(by_text))),
        (f"queries nearly the same as one of {other.name}", str(len(near))),
    ]
    notes = [f"nearly the same: '{shown(left, 60)}' and '{shown(right, 60)}'" for left, right in near[:_NAMED]]
    return rows, notes


def _near(queries: Mapping[str, str], others: Mapping[str, str], known: set[str]) -> list[tuple[str, str]]:
    """Return pairs of texts whose words overlap by `NEAR`, but for queries that are `known` to be shared."""
    by_shingle: dict[str, list[str]] = {}
    sets = {text: _shingles(text) for text in others.values()}
    for text, shingles in sets.items():
        for shingle in shingles:
            by_shingle.setdefault(shingle, []).append(text)
    pairs = []
    for query, text in queries.items():
        mine = _shingles(text)
        if query in known or not mine:
            continue
        candidates = {other for shingle in mine for other in by_shingle.get(shingle, ())}
        best = max(candidates, key=lambda other: (len(mine & sets[other]) / len(mine | sets[other]), other), default="")
        if best and len(mine & sets[best]) >= NEAR * len(mine | sets[best]):
            pairs.append((text, best))
    return pairs


def _shingles(text: str) -> frozenset[str]:
    words = normalized(text).split()
    size = min(_SHINGLE, len(words))
    return frozenset(" ".join(words[at : at + size]) for at in range(len(words) - size + 1)) if size else frozenset()


def _examples(
    request: DataCheckRequest, dataset: Dataset, positives: Mapping[str, Sequence[str]]
) -> tuple[Example, ...]:
    """Return some pairs, the same at every call, with the tokens that the base's tokenizer makes of them."""
    pairs = [(query, doc) for query in sorted(positives) for doc in positives[query] if doc in dataset.documents]
    sampled = random.Random(0).sample(pairs, min(request.examples, len(pairs)))
    tokenizer = _tokenizer(request.base)
    examples = []
    for query, doc in sampled:
        text = dataset.documents.text(doc)
        tokens = len(tokenizer(dataset.queries[query], text)["input_ids"]) if tokenizer else 0
        is_cut = tokens > request.max_length
        examples.append(Example(dataset.queries[query], text, dataset.qrels[query][doc], tokens, is_cut))
    return tuple(examples)


def _tokenizer(base: str) -> Any:
    if not base:
        return None
    from cerank.models.bases import locate
    from cerank.models.cross_encoder import load_tokenizer

    return load_tokenizer(locate(base).folder)


def _first_few(ids: Sequence[str]) -> str:
    return ", ".join(shown(query, 40) for query in ids[:_NAMED]) + (" ..." if len(ids) > _NAMED else "")
