"""Plans: complete, absolute, pinned; equal wherever the same thing is asked."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from cerank import recipes
from cerank.app import plans
from cerank.errors import CerankError, UsageError
from cerank.machine import devices
from cerank.recipes.loss_specs import LOSSES as NEEDS
from tests.refusals import refused
from tests.worker.small import small_plan, write_dataset

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_losses_a_plan_may_name_are_those_that_learn_has():
    from cerank.training.losses import LOSSES

    assert set(NEEDS) == set(LOSSES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_plan(tmp_path_factory.mktemp("plan"))


def test_every_path_is_absolute_and_every_input_is_hashed(made):
    plan, _ = made
    data = plan.recipe.data
    assert all(name.startswith("/") for name in (data.train, data.validation, *data.test))
    assert {found.role for found in plan.inputs} == {"base", "dataset", "first_stage", "teacher"}
    assert all(len(found.sha256) == 64 for found in plan.inputs)


def test_the_fingerprint_tells_what_decides_the_numbers_from_what_does_not(made):
    plan, _ = made
    later = msgspec.structs.replace(plan, created="2031-01-01", label="mine", cache="/elsewhere")
    assert later.fingerprint == plan.fingerprint
    other = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, seed=43))
    assert other.fingerprint != plan.fingerprint
    assert msgspec.structs.replace(plan, threads=2).fingerprint != plan.fingerprint


def test_a_plan_made_again_from_its_own_recipe_is_the_same(made):
    plan, settings = made
    again = plans.plan_of(plan.recipe, settings, now=datetime(2030, 1, 1, tzinfo=UTC))
    assert again.fingerprint == plan.fingerprint


def test_a_changed_document_changes_the_plan(tmp_path):
    plan, settings = small_plan(tmp_path)
    with (tmp_path / "data" / "docs.tsv").open("a") as file:
        file.write("d999\tmore\n")
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert plans.plan_of(plan.recipe, settings, now=now).fingerprint != plan.fingerprint


def test_measures_become_canonical_and_those_that_must_be_0_are_refused(made):
    plan, settings = made
    now = datetime(2030, 1, 1, tzinfo=UTC)
    evaluate = msgspec.structs.replace(plan.recipe.evaluate, measures=("MRR@10", "NDCG@10"))
    renamed = plans.plan_of(msgspec.structs.replace(plan.recipe, evaluate=evaluate), settings, now=now)
    assert renamed.recipe.evaluate.measures == ("RR@10", "nDCG@10")
    zero = msgspec.structs.replace(plan.recipe.evaluate, measures=("AP(rel=2)",))
    with pytest.raises(CerankError) as caught:
        plans.plan_of(msgspec.structs.replace(plan.recipe, evaluate=zero), settings, now=now)
    assert caught.value.code == "measure-always-0"


def test_the_work_counts_pairs_exactly(made):
    plan, _ = made
    work = {part.part: part for part in plans.work_of(plan)}
    assert work["train contrastive"].pairs == 30 * 2 * 4
    assert work["validate distill"].units == 1 + 3  # before the first step, and three after it
    (test,) = plan.recipe.data.test
    assert work[f"re-rank {test} by distill"].pairs == 12 * 8 * 2


def test_one_dataset_stands_for_three_disjoint_parts_or_its_own_splits():
    assert plans.parts_of("pydocs") == ("pydocs/train", "pydocs/validation", ("pydocs/test",))
    assert plans.parts_of("vaswani") == ("vaswani[:60%]", "vaswani[60%:80%]", ("vaswani[80%:]",))


@pytest.mark.parametrize(
    ("asked", "expected"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3"), ("mps", "mps")]
)
def test_a_device_that_is_named_is_taken_as_it_is(asked, expected):
    assert devices.resolve_device(asked).startswith(expected.split(":", maxsplit=1)[0])


@pytest.mark.parametrize("measures", [("auto",), ("P@5", "auto"), ("auto", "AP", "P@5"), ("nDCG@10", "RR@10")])
def test_what_a_plan_was_asked_for_plans_to_it_again(tmp_path, measures):
    plan, settings = small_plan(tmp_path)
    graded = write_dataset(tmp_path / "graded", seed=9)
    (graded / "qrels").write_text((graded / "qrels").read_text().replace(" 1\n", " 3\n"))
    data = msgspec.structs.replace(plan.recipe.data, test=(plan.recipe.data.test[0], str(graded)))
    evaluate = msgspec.structs.replace(plan.recipe.evaluate, measures=measures)
    asked = msgspec.structs.replace(plan.recipe, data=data, evaluate=evaluate)
    made = plans.plan_of(asked, settings, now=NOW)
    (tmp_path / "again.toml").write_text(recipes.render(made.requested_recipe))
    again = plans.plan_of(recipes.load(str(tmp_path / "again.toml")).recipe, settings, now=NOW)
    assert again.measures == made.measures
    assert again.fingerprint == made.fingerprint


def test_a_part_of_a_dataset_is_not_divided_again() -> None:
    with refused(UsageError, "part-of-part", "./x"):
        plans.check_whole("./x[20%:]")
    with refused(UsageError, "query-range-too-large", "120%"):
        plans.check_whole("./x[120%:]")
    plans.check_whole("./x")
