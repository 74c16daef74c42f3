"""A mixture of large sets is read set by set, and is the mixture of the same sets in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.core.rankings import LazyRanking
from cerank.core.row_sets import KnownItems, RowSet
from cerank.datasets import local_folders
from cerank.datasets.dataset import Dataset, StoredQrels, StoredQueries
from cerank.datasets.open_datasets import open_dataset
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import NegativeSource
from cerank.retrieval import first_stage
from cerank.training.sampling.negative_rankings import set_shares, source_collections, usable_record
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.trec import open_run, query_places
from tests.datasets.mapped.test_mapped_queries import folder_of

LARGE = ((local_folders, "LARGE_QUERIES"), (open_run, "LARGE"), (query_places, "MANY_QUERIES"))


@pytest.fixture(params=[1, 1200], ids=["both sets large", "one set large"])
def both(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Dataset]:
    """Return a mixture in memory, and one that is read from the disk."""
    name = f"{folder_of(tmp_path / 'one', 60)} * 3 + {folder_of(tmp_path / 'other', 17)}"
    small = open_dataset(name, tmp_path / "small-cache")
    for module, key in LARGE:
        monkeypatch.setattr(module, key, request.param)
    return small, open_dataset(name, tmp_path / "cache")


def test_queries_and_judgments_are_those_of_sets_in_memory(both: tuple[Dataset, Dataset]) -> None:
    small, large = both
    assert isinstance(small.queries, dict)
    assert isinstance(large.queries, StoredQueries)
    assert isinstance(large.qrels, StoredQrels)
    assert list(large.queries.items()) == list(small.queries.items())
    assert [(query, list(row.items())) for query, row in large.qrels.items()] == [
        (query, list(row.items())) for query, row in small.qrels.items()
    ]
    assert (len(large.queries), len(large.qrels)) == (len(small.queries), len(small.qrels))
    assert large.fingerprint() == small.fingerprint()
    ids = large.query_ids
    assert isinstance(ids, KnownItems)
    assert (list(ids), ids[3:5], ids[len(ids) - 1]) == (
        list(small.query_ids),
        list(small.query_ids)[3:5],
        small.query_ids[-1],
    )
    for absent in ("nowhere", "1:nowhere", "3:q1", "", next(iter(small.queries)).partition(":")[2], 7):
        assert absent not in large.queries
        assert absent not in ids
        assert large.qrels.get(str(absent)) is None


def test_some_of_the_queries_are_those_at_their_places(both: tuple[Dataset, Dataset]) -> None:
    small, large = both
    assert isinstance(large.queries, StoredQueries)
    assert isinstance(large.qrels, StoredQrels)
    places = RowSet(len(large.queries))
    for place in range(2, len(large.queries), 3):
        places.add(place)
    some = large.queries.at_places(places)
    assert list(some.items()) == [list(small.queries.items())[place] for place in places]
    assert list(large.qrels.within(some)) == list(some)
    assert len(large.qrels.within(some)) == len(some)
    assert next(iter(small.queries)) not in large.qrels.within(some)


@pytest.mark.parametrize("depth", [2, 6])
def test_candidates_are_those_of_sets_in_memory(both: tuple[Dataset, Dataset], tmp_path: Path, depth: int) -> None:
    small, large = both
    here = first_stage.candidates(small, "first", depth, tmp_path / "small-cache")
    there = first_stage.candidates(large, "first", depth, tmp_path / "cache")
    assert isinstance(there, LazyRanking)
    lists = [(query, ids, here.scores(query)) for query, ids in here.items()]
    assert [(query, ids, there.scores(query)) for query, ids in there.items()] == lists
    assert len(there) == len(here)
    assert [there.top(1)[query] for query in here] == [ids[:1] for _, ids, _ in lists]
    some = list(here)[::-4]
    assert list(there.only(some).items()) == list(here.only(some).items())
    asked = first_stage.candidates(large, "first", depth, tmp_path / "cache", some)
    assert list(asked.items()) == list(here.only(some).items())
    assert "nowhere" not in there
    assert large.run("first").sha256 == small.run("first").sha256
    assert first_stage.fingerprint(large, "first") == first_stage.fingerprint(small, "first")


@pytest.mark.parametrize("sources", [(), ("first-stage", "collection", "in-batch")], ids=len)
@pytest.mark.parametrize("order", ["shuffled", "computed"])
def test_groups_are_those_of_sets_in_memory_at_every_start(
    both: tuple[Dataset, Dataset], tmp_path: Path, order: str, sources: tuple[str, ...]
) -> None:
    stage = Stage(
        epochs=2.0,
        group_size=4,
        groups_per_step=3,
        window=(1, 5),
        relevance=2,
        query_order=order,  # type: ignore[arg-type]
        negative_sources=tuple(NegativeSource(source=source) for source in sources),  # type: ignore[arg-type]
    )
    found = []
    for dataset in (both[0], both[1], both[1]):
        cache = tmp_path / ("small-cache" if dataset is both[0] else "cache")
        ranking = first_stage.candidates(dataset, "first", 5, cache)
        pool = TrainingPool(
            query_ids=dataset.query_ids,
            qrels=dataset.qrels,
            ranking=ranking,
            has_text=dataset.documents.__contains__,
            sources={"": ranking},
            collections=source_collections(stage, dataset),
            shares=set_shares(dataset, 0.0),
            usable=usable_record(stage, dataset, ranking, {"": ranking} if sources else {}, cache),
        )
        sampler = Sampler("s", stage, 1, pool)
        groups = [sampler.groups(step) for step in range(1, sampler.steps + 1)]
        found.append((sampler.sampling, sampler.steps, list(sampler.sampled_queries), groups))
        assert 0 < sampler.sampling.usable < sampler.sampling.queries
    assert found[0] == found[1] == found[2]
