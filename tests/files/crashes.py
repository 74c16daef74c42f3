"""A stand-in for `kill -9` at each disk operation in turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from cerank.files import disk


class Crash(BaseException):
    """The process is dead: raised at the chosen operation and at every later one, so nothing cleans up."""


def crash_points(act: Callable[[], object], before: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Runs `before` and then `act`, killed at operation 0, 1, 2 ...; yields after each kill, until `act` completes."""
    for point in itertools.count():
        before()
        left = iter(range(point))

        def kill(name: str, path: Path, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Crash(f"{name} {path}")

        with disk.observe(kill):
            try:
                act()
            except Crash:
                pass
            else:
                assert point > 1, "nothing passed through the seam"
                return
        yield point
