"""Training sets that are mixed by weight: one dataset of several, each id with the number of its set before it.

Each set keeps its own collection, and its queries meet its own documents only: query "2:q7" is q7 of the second set.
`recipes/sections/set_mixtures` says how a mixture is written.

Invariant: opening and sampling follow from the name alone, so that equal names are one mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cerank.core.rankings import LazyRanking, Ranking
from cerank.datasets.dataset import Dataset, Documents, StoredQrels, StoredQueries, no_document
from cerank.datasets.mapped.mixed_sets import MixedQrels, MixedQueries, MixedRanking
from cerank.files.hashing import sha256_json
from cerank.recipes.sections.set_mixtures import sets_of
from cerank.text.safe_text import counted
from cerank.trec.rows import RunFile


def set_number(query: str) -> str:
    """Return the number of a query's or document's set in a mixture, from 1."""
    return query.partition(":")[0]


class MixedDocuments:
    """The documents of all sets; implements `cerank.datasets.dataset.Documents`."""

    def __init__(self, members: Mapping[str, Documents], name: str) -> None:
        self._members, self._name = members, name

    def _place(self, doc_id: str) -> tuple[Documents, str]:
        number, colon, own = doc_id.partition(":")
        if not colon or number not in self._members:
            raise no_document(doc_id, self._name)
        return self._members[number], own

    def text(self, doc_id: str) -> str:
        """Return the text of one document; MissingError where there is none."""
        return self.texts([doc_id])[0]

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of `doc_ids`, in their order."""
        texts: dict[str, str] = {}
        for number, documents in self._members.items():
            own = [doc_id.partition(":")[2] for doc_id in doc_ids if set_number(doc_id) == number]
            texts |= {f"{number}:{doc}": text for doc, text in zip(own, documents.texts(own), strict=True)}
        for doc_id in doc_ids:
            if doc_id not in texts:
                raise no_document(doc_id, self._name)
        return [texts[doc_id] for doc_id in doc_ids]

    def __contains__(self, doc_id: object) -> bool:
        if not isinstance(doc_id, str):
            return False
        number, _, own = doc_id.partition(":")
        return number in self._members and own in self._members[number]

    def __len__(self) -> int:
        return sum(map(len, self._members.values()))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for number, documents in self._members.items():
            yield from ((f"{number}:{doc}", text) for doc, text in documents)

    def fingerprint(self) -> str:
        """Return the SHA-256 over the fingerprints of all sets' documents, in order."""
        return sha256_json([documents.fingerprint() for documents in self._members.values()])


def mixed(name: str, open_set: Callable[[str], Dataset]) -> Dataset:
    """Return the mixture of the sets that a name names.

    Args:
        name: such as "ours * 2 + theirs".
        open_set: opens a set by its own name.

    Raises:
        UsageError: as `sets_of`; and all that opening a set raises.
    """
    sets = sets_of(name)
    members = {str(number): open_set(entry.name) for number, entry in enumerate(sets, 1)}
    return mixture_of(name, members, {str(number): entry.weight for number, entry in enumerate(sets, 1)})


def mixture_of(name: str, members: Mapping[str, Dataset], weights: Mapping[str, float]) -> Dataset:
    """Return the mixture of open datasets, by the number of each."""
    runs = [run for run in next(iter(members.values())).runs if all(run in other.runs for other in members.values())]

    def read(run: str) -> RunFile:
        files = {number: member.run(run) for number, member in members.items()}
        ranking = joined({number: file.ranking for number, file in files.items()})
        return RunFile(ranking, run, sha256=sha256_json([file.sha256 for file in files.values()]))

    return Dataset(
        name=name,
        location=", ".join(member.location for member in members.values()),
        description=f"a mixture of {counted(len(members), 'set')}",
        queries=_joined_queries({number: member.queries for number, member in members.items()}),
        qrels=_joined_qrels({number: member.qrels for number, member in members.items()}),
        documents=MixedDocuments({number: member.documents for number, member in members.items()}, name),
        runs=tuple(runs),
        identity=sha256_json([(member.fingerprint(), weights[number]) for number, member in members.items()]),
        reader=read,
        notes=tuple(note for member in members.values() for note in member.decisions()),
        members=members,
        weights=weights,
    )


def _joined_queries(sets: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    if any(isinstance(queries, StoredQueries) for queries in sets.values()):
        return MixedQueries(sets)
    return {f"{number}:{query}": text for number, queries in sets.items() for query, text in queries.items()}


def _joined_qrels(sets: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Mapping[str, Mapping[str, int]]:
    if any(isinstance(qrels, StoredQrels) for qrels in sets.values()):
        return MixedQrels(sets)
    return {
        f"{number}:{query}": {f"{number}:{doc}": grade for doc, grade in row.items()}
        for number, qrels in sets.items()
        for query, row in qrels.items()
    }


def joined(rankings: Mapping[str, Ranking]) -> Ranking:
    """Return the rankings of all sets as one, each id with its set's number before it; large ones are not copied."""
    if any(isinstance(ranking, LazyRanking) and ranking.sha256 for ranking in rankings.values()):
        return MixedRanking(rankings)
    documents: dict[str, list[str]] = {}
    scores: dict[str, Sequence[float]] = {}
    for number, ranking in rankings.items():
        for query in ranking:
            documents[f"{number}:{query}"] = [f"{number}:{doc}" for doc in ranking[query]]
            scores[f"{number}:{query}"] = ranking.scores(query)
    return Ranking(documents, scores)
