from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest

from cerank.teachers.engines.overload import LONGEST_PAUSE, CallLimit, asked_to_wait, pause_before

_NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Sat, 28 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 28 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_a_server_says_how_long_to_wait_in_three_ways(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_to_wait(headers, _NOW) == seconds


def test_pauses_double_with_jitter_up_to_a_minute() -> None:
    generator = random.Random(1)
    for attempt in range(2, 30):
        longest = min(LONGEST_PAUSE, 0.5 * 2.0 ** (attempt - 2))
        pauses = {pause_before(attempt, generator) for _ in range(20)}
        assert len(pauses) > 1
        assert all(longest / 2 <= pause <= longest for pause in pauses)


def test_an_overload_halves_the_calls_at_once_however_many_report_it_and_they_grow_back() -> None:
    async def go() -> list[int]:
        limit = CallLimit(8)
        seen = []
        numbers = [await limit.__aenter__() for _ in range(8)]
        for number in numbers:
            limit.overloaded(number)  # all eight were out when it was overloaded
            await limit.__aexit__()
        seen.append(limit.allowed)
        for _ in range(6):
            number = await limit.__aenter__()
            limit.overloaded(number)
            await limit.__aexit__()
        seen.append(limit.allowed)
        for _ in range(60):
            limit.succeeded()
        seen.append(limit.allowed)
        return seen

    assert asyncio.run(go()) == [4, 1, 8]


def test_never_more_calls_run_at_once_than_are_allowed() -> None:
    async def go() -> int:
        limit, running, most = CallLimit(3), 0, 0

        async def call() -> None:
            nonlocal running, most
            async with limit:
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(call() for _ in range(20)))
        return most

    assert asyncio.run(go()) == 3
