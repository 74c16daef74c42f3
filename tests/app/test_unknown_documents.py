"""Judged documents that the collection does not have: counted in the plan, or refused where it has none of them."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from cerank.app.plans import plan_of, with_unknown_documents
from cerank.datasets.dataset import CATALOG
from cerank.datasets.mixtures import mixed
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from cerank.recipes.plan import Input
from tests.refusals import refused
from tests.worker.small import small_plan


def replanned(tmp_path, change):
    """The plan of the small run, made again after `change` edited the qrels of its test dataset's folder."""
    from datetime import UTC, datetime

    plan, settings = small_plan(tmp_path, chain=["contrastive"])
    qrels = tmp_path / "data" / "qrels"
    qrels.write_text("".join(change(number, line) for number, line in enumerate(qrels.read_text().splitlines())))
    return plan_of(plan.recipe, settings, now=datetime(2026, 1, 3, tzinfo=UTC))


def test_a_collection_that_has_none_of_the_judged_documents_is_refused_before_a_run(tmp_path):
    with refused(UsageError, "judged-unknown", 12) as error:
        replanned(tmp_path, lambda number, line: f"q{number} 0 MSMARCO_{number} 1\n")
    assert "MSMARCO_" in error.value.hint
    assert error.value.where.startswith(str(tmp_path / "data"))


def test_some_unknown_documents_are_counted_in_the_plan(tmp_path):
    plan = replanned(tmp_path, lambda number, line: line + "\n" + f"q{number} 0 MSMARCO_{number} 1\n")
    (test,) = plan.recipe.data.test
    notes = plan.input("dataset", test).notes
    assert any(
        note.startswith("12 of the 24 relevant documents in its qrels are not in the collection") for note in notes
    )


def test_the_notes_do_not_change_the_identity_of_a_plan(tmp_path):
    plan = replanned(tmp_path, lambda number, line: line + "\n" + f"q{number} 0 MSMARCO_{number} 1\n")
    without = tuple(msgspec.structs.replace(entry, notes=()) for entry in plan.inputs)
    assert msgspec.structs.replace(plan, inputs=without).fingerprint == plan.fingerprint


class _Fetched:
    """A collection of the catalog, not one document of which may be looked up."""

    def __contains__(self, doc_id):
        raise AssertionError(f"{doc_id} was looked up")


def test_no_document_of_a_set_of_the_catalog_is_looked_up(tmp_path):
    def opened(name):
        dataset = open_dataset(name, tmp_path / "cache")
        return replace(dataset, location=CATALOG, documents=_Fetched()) if name.endswith("apart") else dataset

    plan, _ = small_plan(tmp_path, chain=["contrastive"])
    mixture = mixed(f"{tmp_path}/apart + {tmp_path}/data", opened)
    data = msgspec.structs.replace(plan.recipe.data, train=mixture.name)
    recipe = msgspec.structs.replace(plan.recipe, data=data)
    datasets = {name: opened(name) for name in (data.validation, *data.test)} | {mixture.name: mixture}
    entry = Input("dataset", mixture.name, "0" * 64, "")
    assert with_unknown_documents(recipe, (entry,), datasets) == (entry,)
    mixture.qrels["2:q0"] = {"2:gone": 1}
    (noted,) = with_unknown_documents(recipe, (entry,), datasets)
    assert "2:gone" in noted.notes[0]
