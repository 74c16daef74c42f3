"""A run whose ids are not those of the collection is refused before anything is scored with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from cerank.app.missing_inputs import check_inputs
from cerank.core.rankings import Ranking
from cerank.datasets.dataset import CATALOG
from cerank.datasets.irds import CatalogDocuments
from cerank.datasets.mixtures import mixture_of
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import MissingError, UsageError
from cerank.recipes.plan import Plan
from cerank.retrieval.first_stage import candidates, check_given_run
from cerank.retrieval.known_candidates import look_up
from cerank.trec.open_run import open_run_file
from tests.refusals import refused
from tests.worker.small import STAGE, small_plan, write_dataset


@pytest.mark.parametrize(
    ("query", "document", "code"), [("q1", "msmarco_7", "no-known-candidate"), ("topic-9", "d1", "no-ranked-query")]
)
def test_a_run_of_another_collection_is_refused_with_ids_of_both_sides(tmp_path, query, document, code):
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "other.run"
    run.write_text(f"{query} Q0 {document} 1 2.0 t\n{query} Q0 {document}x 2 1.0 t\n")
    dataset = open_dataset(str(folder), tmp_path / "cache")
    with refused(UsageError, code) as caught:
        candidates(dataset, str(run), 10, tmp_path / "cache")
    assert (query if code == "no-ranked-query" else document) in caught.value.hint
    assert "q0" in caught.value.hint or code != "no-ranked-query"


def test_a_run_that_knows_some_of_the_documents_is_taken(tmp_path):
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "other.run"
    run.write_text("q1 Q0 elsewhere 1 2.0 t\nq1 Q0 d1 2 1.0 t\n")
    dataset = open_dataset(str(folder), tmp_path / "cache")
    assert candidates(dataset, str(run), 10, tmp_path / "cache")["q1"] == ("elsewhere", "d1")


def test_a_run_of_another_collection_is_refused_when_a_recipe_is_planned(tmp_path):
    plan, _ = small_plan(tmp_path / "fits")
    other = tmp_path / "other.run"
    other.write_text("topic-9 Q0 d1 1 2.0 t\n")
    given = plan.recipe.data
    data = {"train": given.train, "validation": given.validation, "test": list(given.test), "depth": 8}
    with refused(UsageError, "no-ranked-query") as caught:
        small_plan(tmp_path / "foreign", data=data | {"first_stages": ["bm25", str(other)]})
    assert "topic-9" in caught.value.hint
    first = open_dataset(given.test[0], tmp_path / "cache").query_ids[0]  # which those of a part are follows its path
    assert f"called {first}," in caught.value.hint
    assert not (tmp_path / "foreign" / "lab").exists()


def _planned(folder: Path, *, first: str = "bm25", **stage: object) -> Plan:
    """A plan whose test reads `first`, or whose stage reads what its own settings name."""
    given = small_plan(folder / "fits")[0].recipe.data
    data = {"train": given.train, "validation": given.validation, "test": list(given.test), "depth": 8}
    stages = {"contrastive": STAGE | stage}
    changes = {"data": data | {"first_stages": [first]}, "stages": stages, "chain": ["contrastive"]}
    return small_plan(folder / "planned", **changes)[0]


def _other_documents(folder: Path, *, every: int = 1) -> str:
    """The run of the small dataset, each `every`th of whose documents gets the id of another collection."""
    path = write_dataset(folder / "copied") / "runs" / "oracle.run"
    lines = path.read_text().splitlines()
    foreign = [line.replace(" Q0 d", " Q0 msmarco-") if n % every == 0 else line for n, line in enumerate(lines)]
    path.write_text("\n".join(foreign) + "\n")
    return str(path)


FILES = {
    "first stage of a test": {"first": "FILE"},
    "first stage of a stage": {"first_stage": "FILE"},
    "negatives": {"negative_sources": [{"source": "mined", "run": "FILE"}]},
    "teacher": {"source": "teacher", "loss": "ranknet", "teacher": "FILE"},
    "scores of negatives": {"false_negatives": {"scores": "FILE", "max_score": 100.0}},
}


@pytest.mark.parametrize("use", FILES)
def test_a_file_that_ranks_the_queries_with_other_documents_is_refused_when_a_recipe_is_planned(tmp_path, use):
    run = _other_documents(tmp_path)
    with refused(UsageError, "no-known-candidate", "msmarco") as caught:
        _planned(tmp_path, **_with_file(FILES[use], run))
    assert "d0" in caught.value.hint
    assert not (tmp_path / "planned" / "lab").exists()


@pytest.mark.parametrize("use", ["first stage of a test", "negatives", "teacher"])
def test_an_empty_file_is_refused_as_empty_when_a_recipe_is_planned(tmp_path, use):
    (tmp_path / "empty.run").touch()
    with refused(UsageError, "run-empty", "empty.run"):
        _planned(tmp_path, **_with_file(FILES[use], str(tmp_path / "empty.run")))


@pytest.mark.parametrize(("every", "needs"), [(1, 1), (5, 0)])
def test_the_dry_run_of_a_matrix_lists_a_run_of_another_collection_among_what_it_lacks(tmp_path, every, needs):
    run = _other_documents(tmp_path, every=every)
    plan, settings = small_plan(tmp_path / "fits", chain=["contrastive"])
    changed = msgspec.structs.replace(plan.recipe.data, first_stages=("bm25", run))
    found = check_inputs([msgspec.structs.replace(plan.recipe, data=changed)], settings.cache)
    assert len(found.needs) == needs
    assert all("msmarco-" in need.how for need in found.needs)


def _with_file(settings: Mapping[str, object], run: str) -> dict[str, object]:
    return dict(json.loads(json.dumps(settings).replace("FILE", run)))


def test_a_test_whose_candidates_lack_some_texts_is_refused_and_a_stage_that_samples_from_them_notes_it(tmp_path):
    run = _other_documents(tmp_path, every=5)
    with refused(MissingError, "document-not-found", "msmarco"):
        _planned(tmp_path / "tested", first=run)
    for use in ("first stage of a stage", "teacher"):
        plan = _planned(tmp_path / use, **_with_file(FILES[use], run))
        notes = [note for entry in plan.inputs for note in entry.notes if "msmarco-" in note]
        assert len(notes) == 1, use


class _CountingDocuments:
    """Documents of another collection, which count how often one is looked up."""

    looked_up = 0

    def __contains__(self, doc_id: object) -> bool:
        self.looked_up += 1
        return doc_id == "d0"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield "d0", ""


class _CountingRanking(Ranking):
    """A ranking that counts how often it is asked whether it has a query."""

    asked = 0

    def __contains__(self, query_id: object) -> bool:
        self.asked += 1
        return super().__contains__(query_id)


@pytest.mark.parametrize("queries", [10_000, 100_000])
def test_of_a_run_of_a_few_queries_no_more_queries_are_asked_in_a_large_dataset_than_in_a_small_one(tmp_path, queries):
    dataset = open_dataset(str(write_dataset(tmp_path / "data")), tmp_path / "cache")
    ids = [f"q{number}" for number in range(queries)]
    large = dataclasses.replace(dataset, queries=dict.fromkeys(ids, "a"), qrels={})
    few = ("q7", "elsewhere", "q9000")
    ranking = _CountingRanking(dict.fromkeys(few, ("d0", "gone")), dict.fromkeys(few, (2.0, 1.0)))
    lookup = look_up(large, "a run", ranking, 20)
    assert (lookup.looked_up, lookup.unknown) == (2, ("gone",))
    assert ranking.asked <= 2_010


@pytest.mark.parametrize("queries", [3_000, 30_000])
def test_no_more_candidates_are_looked_up_of_a_large_run_than_of_a_small_one(tmp_path, queries):
    dataset = open_dataset(str(write_dataset(tmp_path / "data")), tmp_path / "cache")
    ids = [f"q{number}" for number in range(queries)]
    documents = _CountingDocuments()
    large = dataclasses.replace(dataset, queries=dict.fromkeys(ids, "a"), qrels={}, documents=documents)
    listed = ["d0", *(f"x{rank}" for rank in range(19))]
    scores = dict.fromkeys(ids, tuple(float(-rank) for rank in range(20)))
    ranking = Ranking(dict.fromkeys(ids, tuple(listed)), scores)
    lookup = look_up(large, "a run", ranking, 20)
    assert set(lookup.unknown) <= set(listed) - {"d0"}
    assert documents.looked_up <= 2_001
    apart = {query: [f"{query}-{rank}" for rank in range(20)] for query in ids}
    with refused(UsageError, "no-known-candidate", "q0-0", "d0"):
        look_up(large, "a run", Ranking(apart, scores), 20)
    assert documents.looked_up <= 3_002


def test_candidates_far_down_a_run_are_looked_up_too(tmp_path):
    dataset = open_dataset(str(write_dataset(tmp_path / "data")), tmp_path / "cache")
    ids = [f"q{number}" for number in range(5_000)]
    large = dataclasses.replace(dataset, queries=dict.fromkeys(ids, "a"), qrels={})
    lists = {query: ["d1"] if number < 2_500 else [f"other{number}"] for number, query in enumerate(ids)}
    lookup = look_up(large, "a run", Ranking(lists, dict.fromkeys(ids, (1.0,))), 20)
    assert len(lookup.unknown) > 300


class _Catalog:
    """What ir_datasets has of a collection, whose docstore is built or not."""

    def __init__(self, *, is_built: bool) -> None:
        self.is_built = is_built

    def docs_store(self) -> _Catalog:
        return self

    def built(self) -> bool:
        return self.is_built

    def get_many(self, _doc_ids: Sequence[str]) -> dict[str, object]:
        return {}

    def docs_iter(self) -> Iterator[object]:
        raise OSError


def test_a_collection_of_the_catalog_is_asked_only_where_its_store_is_there(tmp_path):
    dataset = open_dataset(str(write_dataset(tmp_path / "data")), tmp_path / "cache")
    run = str(tmp_path / "other.run")
    Path(run).write_text("q1 Q0 msmarco_7 1 2.0 t\n")
    for is_built in (False, True):
        documents = CatalogDocuments(_Catalog(is_built=is_built), "beir/x", "0" * 64)
        of_catalog = dataclasses.replace(dataset, location=CATALOG, documents=documents)
        if not is_built:
            lookup = check_given_run(of_catalog, run, 10)
            assert (lookup.looked_up, len(lookup.notes)) == (0, 1)
            assert of_catalog.name in lookup.notes[0]
            own = dataclasses.replace(of_catalog, runs=("other",), reader=lambda _: open_run_file(Path(run), None))
            assert check_given_run(own, "other", 10).notes == ()
            continue
        with refused(UsageError, "no-known-candidate", "msmarco_7"):
            check_given_run(of_catalog, run, 10)


@pytest.mark.parametrize("is_built", [False, True])
def test_a_mixture_is_asked_once_all_its_sets_can_be(tmp_path, is_built):
    dataset = open_dataset(str(write_dataset(tmp_path / "data")), tmp_path / "cache")
    documents = CatalogDocuments(_Catalog(is_built=is_built), "beir/x", "0" * 64)
    of_catalog = dataclasses.replace(dataset, location=CATALOG, documents=documents)
    mixture = mixture_of("both", {"1": dataset, "2": of_catalog}, {"1": 1.0, "2": 1.0})
    run = tmp_path / "both.run"
    run.write_text("1:q1 Q0 1:d1 1 2.0 t\n1:q1 Q0 1:gone 2 1.0 t\n")
    lookup = check_given_run(dataclasses.replace(mixture, cache=tmp_path / "cache"), str(run), 10)
    assert (lookup.looked_up, lookup.unknown) == ((2, ("1:gone",)) if is_built else (0, ()))
    assert len(lookup.notes) == (not is_built)
