"""A model that a run left reads documents as its run did, whatever the recipe that it teaches says of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.datasets.document_fields import with_template
from cerank.datasets.open_datasets import open_dataset
from cerank.inference.documents_of_run import ModelDocuments, documents_of
from cerank.runs import run_store
from tests.worker.small import small_plan


@pytest.mark.parametrize("of", ["{data}", "{data}[:50%]", "{data} + {apart}"])
def test_a_run_without_a_template_reads_documents_without_that_of_the_recipe_that_it_teaches(
    tmp_path: Path, of: str
) -> None:
    plan, settings = small_plan(tmp_path)
    run = run_store.create(settings.lab, plan, b"", datetime(2026, 1, 2, tzinfo=UTC))
    final = run.final(0, plan.recipe.chain[0])
    final.mkdir(parents=True)
    dataset = open_dataset(of.format(data=tmp_path / "data", apart=tmp_path / "apart"), settings.cache)
    taught = with_template(dataset, "other {text}")
    some = [document for document, _ in dataset.documents][:3]
    assert taught.documents.texts(some) == [f"other {text}" for text in dataset.documents.texts(some)]
    own = documents_of(final)
    assert own.is_plain
    read = own.written(taught, "teachers.own.model").documents
    assert read.texts(some) == dataset.documents.texts(some)
    assert read.fingerprint() == dataset.documents.fingerprint()
    of_no_run = documents_of(tmp_path / "base")  # a base reads what it is given
    assert of_no_run == ModelDocuments()
    assert of_no_run.written(taught, "teachers.own.model").documents is taught.documents
