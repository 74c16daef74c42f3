"""Finds queries that two parts of a recipe share: training, validation and test sets.

Invariant: nothing is taken out here; what is shared is counted and named, and training on test queries is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cerank.datasets.dataset import Dataset
from cerank.datasets.query_text import near_copies, normalized
from cerank.errors import RecipeError
from cerank.recipes.schema import Recipe
from cerank.text.safe_text import counted, shown

TRAINING, VALIDATION, TEST, TUNING = "training", "validation", "test", "tuning"
_NAMED = 3  # shared queries that are written out
MANY_QUERIES = 200_000  # queries; of more, the texts as they are compared are not kept in memory

# Two collections of short texts share a few by chance ("args: address: a string"): up to this share of a test set is
# reported, not rejected. The same query id in the same collection is always rejected.
BY_CHANCE = 0.01


class QuerySet(msgspec.Struct, frozen=True):
    """One use of a dataset's queries."""

    role: str  # TRAINING, VALIDATION or TEST; TUNING of queries by which a sweep chose settings
    dataset: str
    stages: tuple[str, ...] = ()  # that learn from it

    def __str__(self) -> str:
        return f"{self.role} of {', '.join(self.stages)}" if self.stages else f"{self.role} on {self.dataset}"


class Overlap(msgspec.Struct, frozen=True):
    """Two parts of a recipe that share queries."""

    left: QuerySet
    right: QuerySet
    shared: int  # queries of the right part that the left part has, by either way
    of: int  # queries of the right part
    by_id: int  # the same id in the same collection of documents
    by_text: int  # the same text but for case, punctuation, and white space
    examples: tuple[str, ...]

    @property
    def is_refused(self) -> bool:
        """Return whether more than a few test queries are used for training or for choosing checkpoints."""
        is_chance = self.by_id == 0 and self.shared <= BY_CHANCE * self.of
        return self.right.role == TEST and self.left.role != TEST and not is_chance

    def __str__(self) -> str:
        return (
            f"{self.shared} of the {self.of} queries of {self.right} are in {self.left}, too: "
            f"{self.by_id} by id, {self.by_text} by text, such as "
            + ", ".join(f"'{shown(text, 60)}'" for text in self.examples)
        )


def query_sets(recipe: Recipe) -> tuple[QuerySet, ...]:
    """Return the sets of queries that a recipe uses; stages that train on one dataset share one set."""
    training: dict[str, list[str]] = {}
    for name, stage in recipe.chained():
        training.setdefault(stage.dataset or recipe.data.train, []).append(name)
    validation = [recipe.data.validation, *(stage.validation for _, stage in recipe.chained() if stage.validation)]
    training_sets = [QuerySet(TRAINING, dataset, tuple(stages)) for dataset, stages in training.items()]
    return (
        *training_sets,
        *(QuerySet(VALIDATION, dataset) for dataset in dict.fromkeys(validation)),
        *(QuerySet(TEST, test) for test in recipe.data.test),
    )


def overlaps(recipe: Recipe, datasets: Mapping[str, Dataset]) -> tuple[Overlap, ...]:
    """Return every pair of query sets that share queries, in the order of the recipe.

    Overlaps of two test sets, and of stages that train on one dataset, are intended and not reported.

    Args:
        recipe: recipe with every default filled in.
        datasets: name -> dataset, for all datasets that the recipe names.
    """
    sets = [single for part in query_sets(recipe) for single in _single_sets(part, datasets)]
    opened = {**datasets, **{member.name: member for data in datasets.values() for member in data.members.values()}}
    queries = {part.dataset: _Queries(opened[part.dataset]) for part in sets}
    pairs = []
    for at, left in enumerate(sets):
        for right in sets[at + 1 :]:
            if left.role == right.role != TRAINING:
                continue
            overlap = _overlap(left, right, queries[left.dataset], queries[right.dataset])
            pairs += [overlap] if overlap else []
    return tuple(pairs)


def with_tuning(recipe: Recipe, datasets: Mapping[str, Dataset], tuned_on: Dataset) -> tuple[Overlap, ...]:
    """Return what each test set of a recipe shares with the queries by which a sweep chose settings of the recipe.

    Args:
        recipe: recipe with every default filled in.
        datasets: name -> dataset, for its test sets at least.
        tuned_on: the dataset that the sweep validated on.
    """
    left, ours = QuerySet(TUNING, recipe.tuned.validation), _Queries(tuned_on)
    each = (_overlap(left, QuerySet(TEST, test), ours, _Queries(datasets[test])) for test in recipe.data.test)
    return tuple(overlap for overlap in each if overlap)


def _single_sets(part: QuerySet, datasets: Mapping[str, Dataset]) -> list[QuerySet]:
    """Return the sets of a mixture as parts of their own; any other part as it is."""
    members = datasets[part.dataset].members.values()
    return [msgspec.structs.replace(part, dataset=member.name) for member in members] or [part]


def check_test_queries(shared: tuple[Overlap, ...], recipe: Recipe) -> None:
    """Reject a recipe that trains on test queries, or whose checkpoints or settings they chose, unless it allows that.

    Raises:
        RecipeError: naming each such overlap.
    """
    bad = [str(overlap) for overlap in shared if overlap.is_refused]
    if bad and "shared_queries" not in recipe.force:
        hint = 'use other parts, such as [:80%] and [80%:], or allow it with force = ["shared_queries"]'
        raise RecipeError("\n".join(bad), where=f"recipe {recipe.name}", hint=hint, code="shared-queries")


def check_validation_queries(recipe: Recipe, datasets: Mapping[str, Dataset]) -> None:
    """Reject a recipe that trains on queries by which a sweep would choose, unless it allows that.

    The best setting would be that of which most was learned by heart. Queries count as the same by their id in one
    collection, and by nearly the same words.

    Args:
        recipe: recipe with every default filled in.
        datasets: name -> dataset, for its training and validation sets at least.

    Raises:
        RecipeError: naming each training set that holds such queries.
    """
    trained = [part for part in query_sets(recipe) if part.role == TRAINING]
    opened = {**datasets, **{member.name: member for data in datasets.values() for member in data.members.values()}}
    mistakes = []
    for validation in (part for part in query_sets(recipe) if part.role == VALIDATION):
        theirs = opened[validation.dataset]
        for training in (single for part in trained for single in _single_sets(part, datasets)):
            ours = opened[training.dataset]
            is_same_collection = ours.documents.fingerprint() == theirs.documents.fingerprint()
            by_id = {query for query in theirs.queries if query in ours.queries} if is_same_collection else set()
            by_text = near_copies(theirs.queries, ours.queries.items())
            shared = [query for query in theirs.queries if query in by_id or query in by_text]
            if not by_id and len(shared) <= BY_CHANCE * len(theirs.queries):
                continue
            examples = ", ".join(f"'{shown(theirs.queries[query], 60)}'" for query in shared[:_NAMED])
            mistakes.append(
                f"{training} on {shown(training.dataset, 120)} holds {len(shared)} of the "
                f"{counted(len(theirs.queries), 'query')} of {validation}: {len(by_id)} by id, {len(by_text)} by "
                f"nearly the same words, such as {examples}"
            )
    if mistakes and "shared_queries" not in recipe.force:
        hint = 'use other parts, such as [:80%] and [80%:], or allow it with force = ["shared_queries"]'
        where = f"recipe {recipe.name}"
        raise RecipeError("\n".join(mistakes), where=where, hint=hint, code="validation-queries-trained")


class _Queries:
    """A dataset's queries as they are compared."""

    def __init__(self, dataset: Dataset) -> None:
        self.texts = dataset.queries
        self.collection = dataset.documents.fingerprint()
        self.is_large = len(self.texts) > MANY_QUERIES
        self._plain = {} if self.is_large else {query: normalized(text) for query, text in self.texts.items()}

    def plain(self) -> Iterable[tuple[str, str]]:
        """Return (query, text as it is compared), one after the other where there are many."""
        if not self.is_large:
            return self._plain.items()
        return ((query, normalized(text)) for query, text in self.texts.items())

    def known(self, others: _Queries) -> set[str]:
        """Return the texts, of many queries only those that are among the others' if these are few."""
        if self.is_large and not others.is_large:
            among = set(others._plain.values())
            return {text for _, text in self.plain() if text in among} - {""}
        return {text for _, text in self.plain()} - {""}


def _overlap(left: QuerySet, right: QuerySet, ours: _Queries, theirs: _Queries) -> Overlap | None:
    by_id = {query for query in theirs.texts if query in ours.texts} if ours.collection == theirs.collection else set()
    known = ours.known(theirs)
    by_text = {query for query, text in theirs.plain() if text in known}
    shared = [query for query in theirs.texts if query in by_id or query in by_text]
    if not shared:
        return None
    examples = tuple(theirs.texts[query] for query in shared[:_NAMED])
    return Overlap(left, right, len(shared), len(theirs.texts), len(by_id), len(by_text), examples)


class SharedQueries(msgspec.Struct, frozen=True):
    """The shared queries that a run found when it started, as its record in the run's folder."""

    overlaps: tuple[Overlap, ...]
