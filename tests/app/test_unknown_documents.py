"""Judged documents that the collection does not have: counted in the plan, or refused where it has none of them."""

from __future__ import annotations

import msgspec

from cerank.app.plans import plan_of
from cerank.errors import UsageError
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
