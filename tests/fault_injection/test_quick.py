"""Each promise tried a few times; the long form is `python -m tests.fault_injection`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .__main__ import tried
from .promises import PROMISES
from .warm import Warm


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    process = Warm()
    yield process
    process.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "promise", [one for one in PROMISES if one.quick is not None], ids=lambda one: f"{one.fault}, {one.promise}"
)
def test_a_promise_holds(warm: Warm, promise) -> None:
    found = tried(warm, promise.how, promise.quick)
    assert not found["bad"]
    assert found["held"] == found["tried"]
