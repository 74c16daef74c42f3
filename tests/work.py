"""How much work a call does, in steps that no other program on the machine changes: what tests assert in place of time.

Invariant: the same call does the same number of steps on every processor, however busy it is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class TooManyStepsError(BaseException):
    """A call went past its budget; no reader that catches every Exception can pass over it."""


def steps_of(call: Callable[[], T], at_most: float = math.inf) -> tuple[T, int]:
    """Return what `call` returns, and how many lines of Python it ran in this thread, its callees' included.

    A loop in a library written in C counts as the one line that called it.

    Raises:
        TooManyStepsError: it ran more lines than `at_most`; it is stopped there.
    """
    count = 0

    def step(_: FrameType, event: str, __: Any) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        if count > at_most:
            raise TooManyStepsError(f"more than {at_most:,} lines of Python")
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        found = call()
    finally:
        sys.settrace(before)
    return found, count
