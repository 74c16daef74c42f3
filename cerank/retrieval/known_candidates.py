"""Whether a run's candidates are documents of a collection, as some of them tell.

Invariant: nothing is fetched and no index is built, and no more candidates are looked up than there are here, however
large the run is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import msgspec

from cerank.core.rankings import Ranking
from cerank.datasets import irds
from cerank.datasets.dataset import Dataset
from cerank.errors import CerankError, UsageError
from cerank.text.safe_text import shown

FIRST = 1_000  # candidates of the first queries that are looked up at most
SPREAD = 1_000  # candidates that are looked up beyond these, of queries spread over all
_OF_ONE_QUERY = 10  # of these
_ASKED_QUERIES = 2_000  # queries, spread over all, that are asked whether the run ranks them


class Lookup(msgspec.Struct, frozen=True):
    """How many candidates of a run were looked up in a collection, and those that it lacks."""

    looked_up: int = 0
    unknown: tuple[str, ...] = ()  # document ids, each once
    notes: tuple[str, ...] = ()  # what its file says of itself when it is read, such as scores that rise with the ranks

    @property
    def sentence(self) -> str:
        """Return how many the collection lacks, for the user; "" where it has all of them."""
        if not self.unknown:
            return ""
        some = ", ".join(shown(doc, 40) for doc in self.unknown[:3])
        of = f"{self.looked_up:,} candidates that were looked up"
        return f"{len(self.unknown):,} of the {of} are not in the collection, such as {some}"


def finds_at_once(dataset: Dataset) -> bool:
    """Return whether documents of a dataset can be looked up without a download, and without an index to be built.

    Those of a mixture, where those of all its sets can.
    """
    if dataset.members:
        return all(map(finds_at_once, dataset.members.values()))
    documents = dataset.documents
    if not dataset.reads_catalog:
        return True
    return isinstance(documents, irds.CatalogDocuments) and documents.is_indexed()


def check_candidates(dataset: Dataset, what: str, documents: Iterable[str], where: str = "") -> None:
    """Check that the collection has any of the first candidates.

    Args:
        dataset: whose collection is asked.
        what: what ranks the candidates, for the error: "first stage 'my.run'".
        documents: ids of the candidates, of which the first `FIRST` are read.
        where: key of a recipe that names the run; "" for none.

    Raises:
        UsageError: it has none, as where the run is of another collection whose queries are called the same.
    """
    first = list(itertools.islice(documents, FIRST))
    if not first or any(doc in dataset.documents for doc in first):
        return
    own = ", ".join(shown(doc, 40) for doc in _own_ids(dataset))
    those = ", ".join(shown(doc, 40) for doc in dict.fromkeys(first[:3]))
    hint = f"is the run from this dataset? Its documents are called {own}, the candidates {those}"
    none = f"no candidate of {what} is a document of {dataset.name}"
    raise UsageError(none, where=where, hint=hint, code="no-known-candidate")


def look_up(dataset: Dataset, what: str, ranking: Ranking, depth: int, where: str = "") -> Lookup:
    """Look up candidates of the first queries that are ranked, and some of queries spread over all.

    Args:
        dataset: whose queries are ranked and whose collection is asked.
        what: as in `check_candidates`.
        ranking: a run of any size, of which only the lists of these queries are read.
        depth: documents of a query that count; where the dataset ignores identical ids, one with its query's own id
            does not.
        where: as in `check_candidates`.

    Raises:
        UsageError: the collection has none of the first ones.
    """
    if not finds_at_once(dataset):
        return Lookup()
    queries = dataset.query_ids
    if len(ranking) < len(queries):  # as where it ranks a few of millions of queries
        ranked = (query for query in ranking if query in dataset.queries)
    else:
        ranked = (query for query in queries if query in ranking)
    first = list(itertools.islice((doc for query in ranked for doc in _listed(dataset, ranking, query, depth)), FIRST))
    check_candidates(dataset, what, first, where)
    step = -(-len(queries) // _ASKED_QUERIES) if queries else 1
    spaced = (queries[place] for place in range(0, len(queries), step))
    spread = (doc for query in spaced for doc in _listed(dataset, ranking, query, min(depth, _OF_ONE_QUERY)))
    all_of_them = dict.fromkeys((*first, *_some(spread)))
    return Lookup(len(all_of_them), tuple(doc for doc in all_of_them if doc not in dataset.documents))


def _some(documents: Iterator[str]) -> list[str]:
    """Return `SPREAD` of the documents at most, evenly from all of them."""
    every = list(documents)
    return every[:: -(-len(every) // SPREAD)] if every else every


def _listed(dataset: Dataset, ranking: Ranking, query: str, depth: int) -> list[str]:
    """Return the first candidates of a query as a run of the dataset counts them; none where it is not ranked."""
    if query not in ranking:
        return []
    ignores = dataset.ignores_identical_ids
    return [doc for doc in ranking[query][: depth + ignores] if not (ignores and doc == query)][:depth]


def _own_ids(dataset: Dataset) -> list[str]:
    """Return the ids of three documents; none where the collection would have to be fetched for that."""
    try:
        with irds.offline():
            return [doc for doc, _ in itertools.islice(dataset.documents, 3)]
    except CerankError:
        return []
