"""A name for several test collections comes to those on disk, and says which it leaves out."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import msgspec
import pytest

from cerank import recipes
from cerank.app import missing_inputs
from cerank.app.matrix import matrix_runs
from cerank.app.matrix.matrix_runs import MatrixOutline
from cerank.app.plans import plan_of
from cerank.app.run_request import RunRequest, load_matrix
from cerank.app.test_collections.collection_groups import BEIR, NANO_BEIR, group_of, is_group, matching
from cerank.datasets import irds
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError, MissingError, UsageError
from tests.refusals import refused
from tests.worker.small import small_plan, write_dataset


@pytest.fixture(autouse=True)
def _no_catalog_files(tmp_path, monkeypatch):
    """An empty home of ir_datasets, and nothing is downloaded."""
    from ir_datasets import util

    monkeypatch.setattr(util, "home_path", lambda: tmp_path / "ir_datasets")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("beir:*", True),
        ("beir:sci*", True),
        ("nanobeir", True),
        ("dl19+dl20", True),
        ("./sets/*", True),
        ("dl19", False),
        ("beir/scifact/test", False),
        ("ours * 2 + ./theirs", False),  # a mixture of training sets
        ("pydocs/test", False),
        ("dl19[fold=1//data/a+b/folds.json]", False),  # the plus is in the path of a file of folds
        ("dl19[:50%]+dl20[50%:]", True),
    ],
)
def test_a_name_stands_for_several_collections_by_its_form(name, expected):
    assert is_group(name) == expected


def test_a_folder_that_is_called_like_several_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "one+two")
    assert not is_group("./one+two")
    assert not is_group(f"{tmp_path}/one+two[80%:]")
    assert not is_group("./one+two#dev[:50%]")


def test_the_parts_of_a_dataset_in_a_folder_with_a_plus_are_planned(tmp_path):
    folder = write_dataset(tmp_path / "c++" / "data")
    plan, settings = small_plan(tmp_path / "lab")
    table = RunRequest(recipes=("distill",), dataset=str(folder)).data()
    data = msgspec.structs.replace(plan.recipe.data, train=table["train"], validation=table["validation"])
    recipe = msgspec.structs.replace(plan.recipe, data=msgspec.structs.replace(data, test=tuple(table["test"])))
    made = plan_of(recipe, settings, now=datetime(2026, 1, 2, tzinfo=UTC))
    assert made.recipe.data.test == (f"{folder}[80%:]",)


def test_the_catalog_knows_every_collection_of_the_groups():
    known = {name for name, _ in irds.search_catalog("beir")}
    assert {*BEIR.values(), *NANO_BEIR.values()} <= known
    assert len(NANO_BEIR) == 13


def test_folders_of_the_cache_are_the_collections_of_a_group_and_the_rest_is_named(tmp_path):
    scifact, scidocs = (write_dataset(tmp_path / "beir" / name, queries=4) for name in ("scifact", "scidocs"))
    group = group_of("beir:*", tmp_path)
    assert set(group.here) == {str(scifact), str(scidocs)}
    assert set(group.left_out) == {id_ for name, id_ in BEIR.items() if name not in {"scifact", "scidocs"}}
    assert group_of("beir:scif*", tmp_path).here == (str(scifact),)
    assert "beir/nfcorpus/test" in group.note()


def test_a_pattern_takes_the_folders_that_are_datasets(tmp_path):
    med, adi = (write_dataset(tmp_path / "sets" / name, queries=4) for name in ("med", "adi"))
    (tmp_path / "sets" / "notes").mkdir()
    group = group_of(f"{tmp_path}/sets/*", tmp_path / "cache")
    assert (group.here, group.left_out) == ((str(adi), str(med)), (str(tmp_path / "sets" / "notes"),))


def test_folders_that_are_not_there_are_named_with_those_that_are_called_nearly_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "mine", queries=4)
    with refused(MissingError, "collections-missing", "./mien", "./other", "./mine") as caught:
        group_of("./mien+./other", tmp_path)
    assert "ir_datasets" not in caught.value.hint
    with refused(MissingError, "missing", "./mine"):
        open_dataset("./mien", tmp_path)
    with refused(UsageError, "usage", "./mine"):
        open_dataset("mine", tmp_path)


def test_a_name_that_is_no_dataset_is_refused_and_one_that_is_not_here_left_out(tmp_path):
    folder = write_dataset(tmp_path / "med", queries=4)
    assert group_of(f"{folder}+vaswani", tmp_path).left_out == ("vaswani",)
    with pytest.raises(UsageError) as caught:
        group_of(f"{folder}+vaswnai", tmp_path)
    assert "vaswani" in caught.value.hint
    with refused(MissingError, "collections-missing", "13"):
        group_of("nanobeir", tmp_path)
    with refused(UsageError, "collections-unknown", "scfact"):
        group_of("beir:scfact", tmp_path)
    with refused(UsageError, "collections-unknown"):
        group_of(f"{tmp_path}/none/*", tmp_path)


def test_a_damaged_collection_that_was_named_is_an_error_and_not_left_out(tmp_path):
    good, bad = (write_dataset(tmp_path / name, queries=4) for name in ("good", "bad"))
    (bad / "qrels").write_text("q1 0 d1 not-a-grade\n")
    with pytest.raises(FormatError):
        group_of(f"{good}+{bad}", tmp_path)


def test_those_of_a_run_are_found_by_short_name_and_id(tmp_path):
    tests = ["dl19", "beir/scifact/test", "/data/med"]
    assert matching("dl19+dl20", tests, tmp_path) == ["dl19"]
    assert matching("beir:*", tests, tmp_path) == ["beir/scifact/test"]
    assert matching("msmarco-passage/trec-dl-2019/judged+/data/med", tests, tmp_path) == ["dl19", "/data/med"]


def test_a_folder_of_a_run_is_found_by_its_path_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tests = ["dl19", str(tmp_path / "med[:50%]")]
    assert matching("dl19+./med[:50%]", tests, tmp_path) == tests


def test_two_test_sets_that_tables_would_call_the_same_are_refused(tmp_path):
    plan, settings = small_plan(tmp_path / "lab")
    for name in ("first", "second"):
        write_dataset(tmp_path / name / "test", queries=6, seed=9)
    data = msgspec.structs.replace(plan.recipe.data, test=(f"{tmp_path}/*/test",), first_stages=("bm25",))
    with refused(UsageError, "collections-same-name"):
        plan_of(msgspec.structs.replace(plan.recipe, data=data), settings, now=datetime(2026, 1, 2, tzinfo=UTC))


def test_a_recipe_is_planned_for_each_collection_that_its_test_names(tmp_path):
    plan, settings = small_plan(tmp_path / "lab")
    first, second = (str(write_dataset(tmp_path / "sets" / name, queries=6, seed=9)) for name in ("first", "second"))
    shutil.rmtree(tmp_path / "sets" / "second" / "runs")
    recipe = plan.recipe
    tests = (f"{tmp_path}/sets/*", recipe.data.test[0])
    data = msgspec.structs.replace(recipe.data, test=tests, first_stages=("bm25",))
    changed = msgspec.structs.replace(recipe, data=data)
    told: list[str] = []
    made = plan_of(changed, settings, now=datetime(2026, 1, 2, tzinfo=UTC), tell=told.append)
    assert made.recipe.data.test == (first, second, recipe.data.test[0])
    assert "2 collections" in made.reasons["data.test"]
    assert any("data.test" in text for text in told)
    found = missing_inputs.check_inputs([changed], settings.cache)
    assert {first, second} <= set(found.queries)
    assert not found.needs


def test_an_outline_of_a_matrix_counts_each_collection_that_its_test_names(tmp_path):
    plan, settings = small_plan(tmp_path / "lab")
    folders = [str(write_dataset(tmp_path / "sets" / name, queries=6, seed=9)) for name in ("first", "second")]
    data = msgspec.structs.replace(plan.recipe.data, first_stages=("bm25",))
    for name in ("a", "b"):
        text = recipes.render(msgspec.structs.replace(plan.recipe, data=data, name=name))
        (tmp_path / f"{name}.toml").write_text(text)
    files = (str(tmp_path / "a.toml"), str(tmp_path / "b.toml"))

    def outlined(*tests: str) -> MatrixOutline:
        return matrix_runs.outline(load_matrix(RunRequest(recipes=files, tests=tests)), settings)

    apart, named = outlined(*folders), outlined(f"{tmp_path}/sets/*")
    assert (named.comparisons, named.work) == (apart.comparisons, apart.work)
    (need,) = outlined("nanobeir").needs
    assert (need.kind, need.name) == ("test collections", "nanobeir")
    assert str(settings.cache / "nanobeir") in need.how


def test_several_collections_are_refused_as_training_data():
    with refused(UsageError, "collections-for-training"):
        RunRequest(recipes=("distill",), dataset="beir:*").data()


def test_a_collection_of_which_only_the_judgments_are_here_is_left_out(shared, tmp_path, monkeypatch):
    from ir_datasets import util

    monkeypatch.setattr(util, "home_path", lambda: shared / "ir-datasets-home")
    group = group_of(f"{shared / 'med'}+{shared / 'adi'}+dl20", tmp_path)
    assert group.here == (str(shared / "med"), str(shared / "adi"))
    assert group.left_out == ("dl20",)
