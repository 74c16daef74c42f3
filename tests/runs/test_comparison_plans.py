"""A declared plan's hash covers all of it; one that was changed is refused."""

from __future__ import annotations

import msgspec
import pytest

from cerank.errors import UsageError
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.runs.comparison_plans import ComparisonPlan, find, load_all, save, with_hash
from tests.refusals import refused

PLAN = ComparisonPlan(title="one", measures=("nDCG@10",), margins={"nDCG@10": 0.02})


@pytest.mark.parametrize(
    "changes",
    [
        {"declared": "2026-01-02T00:00:00+00:00"},
        {"qrels_sha256": "b"},
        {"plan": msgspec.structs.replace(PLAN, margins={"nDCG@10": 0.03})},
    ],
)
def test_the_hash_covers_plan_time_and_judgments(changes):
    whole = with_hash(PLAN, "2026-01-01T00:00:00+00:00", "a")
    assert whole.content_sha256 == whole.sha256
    assert msgspec.structs.replace(whole, **changes).content_sha256 != whole.sha256


def test_a_plan_that_was_changed_afterwards_is_no_plan(tmp_path):
    path = save(tmp_path, with_hash(PLAN, "2026-01-01T00:00:00+00:00", "a"))
    later = save(tmp_path, with_hash(msgspec.structs.replace(PLAN, title="two"), "2026-02-01T00:00:00+00:00", "a"))
    assert [whole.plan.title for whole in load_all(tmp_path)[0]] == ["one", "two"]
    other = json_records.load_if_there(path, type(with_hash(PLAN, "", "")))
    json_records.save(path, msgspec.structs.replace(other, declared="2025-01-01T00:00:00+00:00"))
    later.write_text("{")
    plans, problems = load_all(tmp_path)
    assert plans == ()
    assert len(problems) == 2
    with pytest.raises(DamagedError):
        find(tmp_path, "one")


def test_a_plan_is_found_by_title_or_hash_and_a_missing_one_is_named(tmp_path):
    whole = with_hash(PLAN, "2026-01-01T00:00:00+00:00", "a")
    with pytest.raises(UsageError) as caught:
        find(tmp_path, "one")
    assert "cerank declare" in caught.value.hint
    save(tmp_path, whole)
    assert find(tmp_path, "one") == find(tmp_path, whole.sha256[:8]) == whole
    with pytest.raises(UsageError) as caught:
        find(tmp_path, "onee")
    assert "one" in caught.value.hint
    with refused(UsageError, "plan-declared"):
        save(tmp_path, whole)
