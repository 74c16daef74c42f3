"""What recipes read and is not here yet, all of it at once, with how to get each piece; nothing is fetched or built.

Invariant: a missing piece never hides another one, and no network is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from cerank.app.test_collections.collection_groups import group_of, is_group, with_tests
from cerank.datasets import aliases, folds, irds
from cerank.datasets.dataset import CATALOG, Dataset, part_size
from cerank.datasets.document_fields import check_template
from cerank.datasets.document_templates import WHERE
from cerank.datasets.open_datasets import dataset_runs, open_dataset, whole_and_part
from cerank.datasets.query_splits import without_key
from cerank.errors import CerankError, MissingError
from cerank.evaluation.verdicts.declared_measures import measures_checked
from cerank.models import bases
from cerank.planning.inputs import (
    BASE_TEMPLATE,
    EMBEDDING,
    EMBEDDING_BASE,
    cuts_lists,
    dataset_names,
    negative_runs,
    ranks_candidates,
    training_dataset,
    training_first_stage,
    validation_dataset,
    validation_first_stage,
)
from cerank.recipes.schema import Recipe
from cerank.retrieval import first_stage, known_candidates
from cerank.text.safe_text import counted
from cerank.trec.open_run import is_large

LARGE = 1_000_000  # documents; the index is made in memory


_FETCHED = {
    "base": "with a network connection, it is downloaded from Hugging Face when the run is planned",
    "dataset": "with a network connection, ir_datasets downloads it when the run is planned",
    "documents": "with a network connection, ir_datasets downloads them when they are first read",
}


class MissingInput(msgspec.Struct, frozen=True):
    """A missing input: a dataset, ranking or model, with the way to get it; also a ranking of another dataset."""

    kind: str  # "base", "dataset", "documents", "document fields", "first stage", "teacher", "scores of negatives", ...
    name: str  # as the recipe has it; with the dataset, where it is of one
    text: str  # what is wrong
    how: str  # what to do about it


class InputCheck(msgspec.Struct, frozen=True):
    """The result of looking for inputs: the number of queries of each dataset, and what is missing."""

    queries: dict[str, int]  # dataset -> its queries; what the catalog says of those that are not here, 0 for unknown
    needs: tuple[MissingInput, ...]
    documents: dict[str, int] = {}  # dataset -> its documents, of those that are here


def check_inputs(recipes: Sequence[Recipe], cache: Path) -> InputCheck:
    """Check everything that the recipes read, each input once.

    Args:
        recipes: recipes in which every path is absolute.
        cache: folder of caches, where datasets are built and published runs are expected.
    """
    return _InputChecker(recipes, cache).all()


def with_single_tests(recipe: Recipe, cache: Path) -> Recipe:
    """Return a recipe with single test sets; as it is where a name for several stands for none that is here."""
    try:
        return with_tests(recipe, cache)[0]
    except CerankError:
        return recipe


class _InputChecker:
    """Collects the inputs that recipes need and that are missing, in one pass."""

    def __init__(self, recipes: Sequence[Recipe], cache: Path) -> None:
        self._recipes, self._cache = [with_single_tests(recipe, cache) for recipe in recipes], cache
        self._queries: dict[str, int] = {}
        self._needs: dict[tuple[str, str], MissingInput] = {}
        self._open: dict[str, Dataset] = {}

    def all(self) -> InputCheck:
        for base, pooling in dict.fromkeys((recipe.base, recipe.pooling) for recipe in self._recipes):
            self._try("base", base, partial(bases.locate, base, fetch=False, pooling=pooling))
        for model in dict.fromkeys(model for recipe in self._recipes for model in recipe.baselines):
            self._try("base", model, partial(bases.locate, model, fetch=False))
        for name in dict.fromkeys(name for recipe in self._recipes for name in dataset_names(recipe)):
            self._dataset(name)
        for dataset, first in dict.fromkeys(pair for recipe in self._recipes for pair in _first_stages(recipe)):
            self._try("first stage", f"{first} on {whole_and_part(dataset)[0]}", partial(self._ranking, dataset, first))
        for dataset, teacher in dict.fromkeys(pair for recipe in self._recipes for pair in _teachers(recipe)):
            self._try("teacher", f"{teacher} on {whole_and_part(dataset)[0]}", partial(self._teacher, dataset, teacher))
        for dataset, scores in dict.fromkeys(pair for recipe in self._recipes for pair in _scorers(recipe)):
            name = f"{scores} on {whole_and_part(dataset)[0]}"
            self._try("scores of negatives", name, partial(self._scores, dataset, scores))
        for recipe in self._recipes:
            self._measures(recipe)
            self._templates(recipe)
        documents = {name: len(data.documents) for name, data in self._open.items() if not data.reads_catalog}
        return InputCheck(self._queries, tuple(self._needs.values()), documents)

    def _try(self, kind: str, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except CerankError as error:
            self._note(kind, name, error)

    def _note(self, kind: str, name: str, error: CerankError) -> None:
        is_fetched = isinstance(error, MissingError) and kind in _FETCHED and name not in aliases.IMPORTED_DATASETS
        how = "; or ".join(part for part in (_FETCHED[kind] if is_fetched else "", error.hint) if part)
        self._needs.setdefault((kind, name), MissingInput(kind, name, error.what, how))

    def _dataset(self, name: str) -> None:
        if is_group(name):  # none of its collections is here, or it names none: see `with_single_tests`
            self._try("test collections", name, partial(group_of, name, self._cache))
            self._queries[name] = 0
            return
        base_name, part = whole_and_part(name)
        try:
            with irds.offline():
                dataset = self._open[name] = open_dataset(name, self._cache)
        except CerankError as error:
            self._note("dataset", base_name, error)
            fold, known = folds.parse_fold(part), _known_queries(base_name)
            size = part_size(without_key(part), known) if fold is None else folds.size_of(fold, known)
            self._queries[name] = size
            return
        self._queries[name] = len(dataset.queries)
        if dataset.location == CATALOG:
            self._try("documents", base_name, partial(irds.check_documents_are_local, aliases.id_of(base_name)))

    def _ranking(self, dataset: str, first: str) -> None:
        """Return if the first stage's run is on this machine and of this dataset, or can be computed from what is.

        Whether a large run that was never read is of this dataset is found out when the run is planned.
        """
        opened = self._open.get(dataset)
        if opened is not None:
            first_stage.check_exists(opened, first)
            if first == first_stage.BM25 and first not in opened.runs and len(opened.documents) > LARGE:
                what = f"the index would cover {len(opened.documents):,} documents, which takes much memory and time"
                raise MissingError(what, hint=f"or place a TREC run at {Path(opened.place) / 'bm25.run'}")
            path = dataset_runs(dataset, self._cache).get(first, Path(first).expanduser())
            if path.is_file() and not is_large(path):
                with irds.offline():
                    first_stage.check_given_run(opened, first, known_candidates.FIRST)
            return
        if is_group(dataset):
            return  # what it names is not here, and is said to be missing
        base_name, _ = whole_and_part(dataset)
        if base_name in aliases.IMPORTED_DATASETS:
            return  # the import that makes the dataset brings its runs
        if first in aliases.placed_runs(base_name, self._cache) or Path(first).is_file() or first == "scoreddocs":
            return
        place = str(aliases.run_folders(base_name, self._cache)[0])
        missing = aliases.missing_run(dataset, place, first)
        if missing is not None:
            raise missing
        raise MissingError(f"no first stage '{first}' is known for {dataset}", hint=f"place a TREC run in {place}")

    def _templates(self, recipe: Recipe) -> None:
        """Check that the documents of the datasets that are here have the fields that templates name."""
        for key, text in ((WHERE, recipe.data.document_template), (BASE_TEMPLATE, recipe.base_template)):
            for name in dataset_names(recipe) if text else ():
                if name in self._open:
                    check = partial(check_template, self._open[name], text, key)
                    self._try("document fields", f"{text} of {whole_and_part(name)[0]}", check)

    def _measures(self, recipe: Recipe) -> None:
        """Check the measures on the test datasets that are here, where the validation dataset is, too."""
        data = recipe.data
        here = tuple(test for test in data.test if test in self._open)
        validation = {validation_dataset(recipe, stage) for _, stage in recipe.chained()}
        if here and validation <= self._open.keys():
            looked_at = msgspec.structs.replace(recipe, data=msgspec.structs.replace(data, test=here))
            try:
                measures_checked(looked_at, self._open)
            except CerankError as error:
                self._note("measures", error.where, error)

    def _teacher(self, dataset: str, teacher: str) -> None:
        """Return if the teacher's file exists; its content is not read."""
        if teacher == EMBEDDING:
            bases.locate(EMBEDDING_BASE, fetch=False)
        elif not Path(teacher).is_file():
            self._ranking(dataset, teacher)

    def _scores(self, dataset: str, scores: str) -> None:
        """Return if the run that scores a stage's negatives exists: a file, or one that comes with the dataset."""
        opened = self._open.get(dataset)
        if Path(scores).expanduser().is_file() or (opened is not None and scores in opened.runs):
            return
        base_name, _ = whole_and_part(dataset)
        if opened is None and scores in aliases.placed_runs(base_name, self._cache):
            return
        what = f"no scored run '{scores}' is known for {dataset}"
        raise MissingError(what, hint="name a scored TREC run, a run of the dataset, or a cross-encoder in [teachers]")


def _scorers(recipe: Recipe) -> list[tuple[str, str]]:
    """Return (dataset, run) of each run that scores candidates for a stage's filters against false negatives."""
    return [
        (training_dataset(recipe, stage), stage.false_negatives.scores)
        for _, stage in recipe.chained()
        if stage.false_negatives.scores and stage.false_negatives.scores not in recipe.teachers
    ]


def _first_stages(recipe: Recipe) -> list[tuple[str, str]]:
    """Return (dataset, first stage) of each ranking that the recipe reads."""
    data = recipe.data
    rankings = [(test, first) for test in data.test for first in data.first_stages]
    for _, stage in recipe.sources():
        rankings.append((validation_dataset(recipe, stage), validation_first_stage(recipe)))
        if cuts_lists(stage):
            rankings.append((training_dataset(recipe, stage), training_first_stage(recipe, stage)))
        if stage.source == "labels" or ranks_candidates(recipe, stage):
            own, dataset = training_first_stage(recipe, stage), training_dataset(recipe, stage)
            rankings.append((dataset, own))
            rankings += [(dataset, run or own) for run in negative_runs(stage)]
    return rankings


def _teachers(recipe: Recipe) -> list[tuple[str, str]]:
    return [
        (training_dataset(recipe, stage), stage.teacher)
        for _, stage in recipe.sources()
        if stage.source == "teacher" and stage.teacher not in recipe.teachers
    ]


def _known_queries(base_name: str) -> int:
    """Return what the catalog says of a dataset that is not here; 0 where it knows none of that name."""
    try:
        return irds.catalog_metadata(aliases.id_of(base_name)).queries
    except CerankError:
        return 0


def what_is_here(recipe: Recipe) -> str:
    """Return in a sentence what this machine has for a recipe on the embedded dataset: cores, and the base model."""
    cores = counted(os.cpu_count() or 1, "core")
    base = bases.BASES.get(recipe.base)
    if base is None or bases.is_on_this_machine(base):
        return f"On this machine: {cores}, the model {recipe.base}, the data: nothing to download."
    if bases.is_offline():
        return f"On this machine: {cores} and the data; the model {recipe.base} is missing, and HF_HUB_OFFLINE is set."
    return f"On this machine: {cores} and the data; the model {recipe.base} ({base.parameters}) is downloaded first."
