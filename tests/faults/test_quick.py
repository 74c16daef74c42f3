"""Each promise tried a few times; the long form is `python -m tests.faults`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .__main__ import PROMISES, tried
from .warm import Warm


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    process = Warm()
    yield process
    process.close()


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES, ids=lambda one: f"{one[0]}, {one[1]}")
def test_a_promise_holds(warm: Warm, promise) -> None:
    found = tried(warm, promise[2], promise[4])
    assert not found["bad"]
    assert found["held"] == found["tried"]
