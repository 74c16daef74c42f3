"""Mixtures of training sets: how they are written, what they hold, and how their groups are divided."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cerank import recipes
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import MissingError, RecipeError, UsageError
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import NegativeSource
from cerank.recipes.sections.set_mixtures import name_of_tables, sets_of
from cerank.retrieval import first_stage
from cerank.training.sampling.negative_rankings import set_shares, source_collections
from cerank.training.sampling.sampler import Sampler, TrainingPool
from tests.refusals import refused


def write(folder: Path, word: str, queries: int) -> Path:
    folder.mkdir()
    (folder / "queries.tsv").write_text("".join(f"q{n}\t{word} {n}\n" for n in range(queries)))
    (folder / "docs.tsv").write_text("".join(f"d{n}\t{word} {n} text\n" for n in range(20)))
    (folder / "qrels").write_text("".join(f"q{n} 0 d{n} 1\n" for n in range(queries)))
    return folder


@pytest.fixture
def mixture(tmp_path: Path):
    one, other = write(tmp_path / "one", "ship", 12), write(tmp_path / "other", "tree", 3)
    return open_dataset(f"{one} * 3 + {other}", tmp_path / "cache")


def test_a_mixture_holds_the_queries_and_documents_of_all_sets_apart(mixture) -> None:
    assert len(mixture.queries) == 15
    assert mixture.queries["1:q2"] == "ship 2"
    assert mixture.queries["2:q2"] == "tree 2"
    assert mixture.qrels["2:q1"] == {"2:d1": 1}
    assert mixture.documents.texts(["2:d4", "1:d3", "2:d1"]) == ["tree 4 text", "ship 3 text", "tree 1 text"]
    assert ("2:d19" in mixture.documents, "3:d1" in mixture.documents, "d1" in mixture.documents) == (
        True,
        False,
        False,
    )
    assert len(list(mixture.documents)) == len(mixture.documents) == 40
    for unknown in ("d1", "3:d1", "1:d99"):
        with pytest.raises(MissingError):
            mixture.documents.text(unknown)


def test_the_identity_of_a_mixture_is_that_of_its_sets_and_weights(mixture, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    same = open_dataset(f"{one} * 3.0 + {other}", tmp_path / "cache")
    lighter = open_dataset(f"{one} * 2 + {other}", tmp_path / "cache")
    assert same.fingerprint() == mixture.fingerprint() != lighter.fingerprint()
    assert lighter.documents.fingerprint() == mixture.documents.fingerprint()


def test_each_query_has_candidates_of_its_own_set(mixture, tmp_path: Path) -> None:
    ranking = first_stage.candidates(mixture, "bm25", 5, tmp_path / "cache")
    assert set(ranking) == set(mixture.queries)
    assert all(doc.startswith(query[:2]) for query in ranking for doc in ranking[query])
    own = open_dataset(str(tmp_path / "other"), tmp_path / "cache")
    alone = first_stage.candidates(own, "bm25", 5, tmp_path / "cache")
    assert ranking["2:q1"] == tuple(f"2:{doc}" for doc in alone["q1"])


def sampler(mixture, cache: Path, temperature: float = 0.0, seed: int = 1, **stage: Any) -> Sampler:
    values = {"steps": 40, "group_size": 4, "groups_per_step": 4, "window": (1, 5), **stage}
    made = Stage(**values)
    ranking = first_stage.candidates(mixture, "bm25", 5, cache)
    return Sampler(
        "s",
        made,
        seed,
        TrainingPool(
            query_ids=list(mixture.queries),
            qrels=mixture.qrels,
            ranking=ranking,
            has_text=mixture.documents.__contains__,
            sources={"": ranking},
            collections=source_collections(made, mixture),
            shares=set_shares(mixture, temperature),
        ),
    )


def test_groups_come_from_each_set_by_its_weight_and_the_smaller_one_is_seen_again(mixture, tmp_path: Path) -> None:
    drawn = sampler(mixture, tmp_path / "cache")
    seen = Counter(group.query_id for step in range(1, 41) for group in drawn.groups(step))
    of_set = Counter({number: sum(n for query, n in seen.items() if query[0] == number) for number in "12"})
    assert of_set["1"] == pytest.approx(120, abs=3)
    assert of_set["1"] + of_set["2"] == 160
    assert max(seen[f"2:q{n}"] for n in range(3)) - min(seen[f"2:q{n}"] for n in range(3)) <= 1
    counted = Counter[str]()
    for step in range(1, 41):
        counts = drawn.set_counts(step)
        assert counts == Counter(group.query_id[0] for group in drawn.groups(step))
        counted.update(counts)
    assert counted == of_set


def test_a_temperature_counts_the_sizes_of_the_sets(mixture) -> None:
    assert set_shares(mixture, 0.0) == {"1": 3.0, "2": 1.0}
    assert set_shares(mixture, 1.0) == {"1": 36.0, "2": 3.0}
    assert set_shares(mixture, 2.0) == pytest.approx({"1": 3 * 12**0.5, "2": 3**0.5})


def test_a_step_of_a_mixture_depends_on_the_step_alone(mixture, tmp_path: Path) -> None:
    used = sampler(mixture, tmp_path / "cache")
    later = {step: used.groups(step) for step in (31, 2, 17, 5)}
    assert all(sampler(mixture, tmp_path / "cache").groups(step) == groups for step, groups in later.items())


def test_random_documents_are_of_the_querys_own_set(mixture, tmp_path: Path) -> None:
    sources = (NegativeSource(source="collection", share=2), NegativeSource(source="in-batch"))
    drawn = sampler(mixture, tmp_path / "cache", negative_sources=sources)
    for step in range(1, 10):
        for group in drawn.groups(step):
            assert {doc[0] for doc in group.doc_ids} == {group.query_id[0]}
            assert len(group) == 4


def test_a_list_of_tables_is_the_same_mixture_as_its_name() -> None:
    tables = [{"set": "a", "weight": 2}, {"set": "b[:50%]"}]
    assert name_of_tables(tables) == "a * 2 + b[:50%]"
    assert name_of_tables([{"set": "a", "weight": 2}]) == "a"
    values = {"name": "r", "chain": ["s"], "stages": {"s": {"steps": 1}}, "data": {"train": tables}}
    assert recipe_from(values, "r").data.train == "a * 2 + b[:50%]"


@pytest.mark.parametrize("name", ["a * 0 + b", "a * x + b", "a + a", " + b", "a * 2", "a * 1e9 + b"])
def test_a_mixture_that_cannot_be_is_refused(name: str) -> None:
    with refused(UsageError, "mixture-syntax"):
        sets_of(name)
    with pytest.raises(RecipeError) as caught:
        recipe_from({"name": "r", "chain": ["s"], "stages": {"s": {"steps": 1}}, "data": {"train": name}}, "r")
    assert caught.value.what.startswith("data.train: ")


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"train": [{"set": "a", "weight": "much"}, {"set": "b"}]}, "data.train"),
        ({"train": [{"name": "a"}, {"set": "b"}]}, "data.train"),
        ({"validation": "a + b"}, "data.validation"),
        ({"test": ["a + b"]}, "data.test"),
        ({"train_temperature": 2.0}, "data.train_temperature"),
    ],
)
def test_what_no_mixture_can_be_is_refused_by_its_key(data: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from({"name": "r", "chain": ["s"], "stages": {"s": {"steps": 1}}, "data": data}, "r")
    assert caught.value.what.startswith(key)


def test_paths_in_a_mixture_are_from_the_recipes_folder(tmp_path: Path) -> None:
    write(tmp_path / "mine", "ship", 2)
    (tmp_path / "r.toml").write_text(
        'name = "r"\nchain = ["s"]\n[stages.s]\nsteps = 1\n[data]\n'
        'train = [{ set = "./mine[:50%]", weight = 2 }, { set = "pydocs/train" }]\n'
    )
    whole = (tmp_path / "mine").resolve()
    assert recipes.load(str(tmp_path / "r.toml")).recipe.data.train == f"{whole}[:50%] * 2 + pydocs/train"
