"""A plan to store, and a fixed time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cerank.recipes.plan import Input, Plan
from cerank.recipes.recipe_checks import recipe_from

NOW = datetime(2026, 11, 23, 10, 43, 31, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def plan() -> Plan:
    values = {"name": "contrastive", "chain": ["contrastive"], "stages": {"contrastive": {"steps": 10}}}
    inputs = (Input("base", "minilm", "ab" * 32, "/models/minilm"), Input("dataset", "pydocs", "cd" * 32))
    return Plan(
        recipe=recipe_from(values, "test"),
        inputs=inputs,
        device="cpu",
        threads=2,
        cache="/tmp/cache",
        label="first try",
    )
