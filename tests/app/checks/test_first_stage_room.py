"""A plan says before it runs that nothing can be gained over a first stage that is perfect already."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.app.checks import first_stage_room
from cerank.datasets.open_datasets import open_dataset
from tests.worker.small import small_plan


def test_a_first_stage_with_every_relevant_document_on_top_is_told_and_no_other(tmp_path):
    plan, settings = small_plan(tmp_path)
    (test,) = plan.recipe.data.test
    perfect = tmp_path / "perfect.run"
    lines = []
    for query, grades in open_dataset(test, settings.cache).qrels.items():
        ranked = [*grades, *(doc for doc in ("d0", "d1", "d2") if doc not in grades)]
        lines += [f"{query} Q0 {doc} {rank} {9 - rank} t\n" for rank, doc in enumerate(ranked, 1)]
    perfect.write_text("".join(lines))
    assert not first_stage_room.sentences(plan)
    assert len(first_stage_room.sentences(over(plan, "bm25", "oracle", str(perfect)))) == 1
    (sentence,) = first_stage_room.sentences(over(plan, str(perfect)))
    assert "1.0000" in sentence
    assert Path(perfect).stem in sentence


def over(plan, *first_stages):
    data = msgspec.structs.replace(plan.recipe.data, first_stages=first_stages)
    return msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, data=data))
