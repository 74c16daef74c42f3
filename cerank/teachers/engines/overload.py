"""How hard a server may be pressed: the number of calls at once, and the pause before a call is sent again."""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
LONGEST_WAIT = 300.0  # seconds that a server may ask us to wait; more ends the work, which can be continued


class CallLimit:
    """As many calls at once as the server bears: one more after each round without trouble, half after an overload.

    Args:
        ceiling: the most at once, where it begins.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._allowed = float(ceiling)
        self._running = 0
        self._halved_at = 0  # calls that were begun when it was halved last: one overload is reported by many
        self._begun = 0
        self._changed = asyncio.Condition()

    @property
    def allowed(self) -> int:
        """Return how many calls may run at the same time at present."""
        return max(1, int(self._allowed))

    async def __aenter__(self) -> int:
        """Wait for a place; return the number of the call, for `overloaded`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._running < self.allowed)
            self._running += 1
            self._begun += 1
            return self._begun

    async def __aexit__(self, *_error: object) -> None:
        async with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def succeeded(self) -> None:
        """Count an answer; so many of them as may run at once allow one more."""
        self._allowed = min(self._ceiling, self._allowed + 1.0 / self._allowed)

    def overloaded(self, call: int) -> None:
        """Halve the number, unless the call was begun before the last halving could help.

        Args:
            call: its number, as entering returned it.
        """
        if call > self._halved_at:
            self._allowed = max(1.0, self._allowed / 2)
            self._halved_at = self._begun


def pause_before(attempt: int, generator: random.Random) -> float:
    """Return the seconds to wait before the attempt of that number, from 2: doubled each time, with jitter.

    Between half and the whole of .5, 1, 2 ... 60 s, so that calls that failed together do not come back together.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 2))
    return longest * generator.uniform(0.5, 1.0)


def asked_to_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a server asks to wait by `retry-after-ms` or `Retry-After`, or None."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            until = _date(text)
            if until is None:
                continue
            seconds = (until - now).total_seconds()
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


def _date(text: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
