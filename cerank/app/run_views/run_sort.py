"""Entries in the order the user asks for; what an entry does not have comes last, either way round."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import UsageError
from cerank.registry import nearest

_Value = str | float | None

_STATES = ("running", "stopping", "queued", "waiting", "paused", "lost", "failed", "damaged", "finished")

_KEYS: dict[str, Callable[[RunEntry], _Value]] = {
    "created": lambda entry: entry.name,
    "state": lambda entry: float(_STATES.index(entry.state)) + entry.place / 1e6,
    "run": lambda entry: (entry.label or entry.title).lower(),
    "recipe": lambda entry: entry.recipe.lower() or None,
    "base": lambda entry: entry.base.lower() or None,
    "at": lambda entry: entry.at or None,
    "left": lambda entry: entry.seconds_left or None,
    "pairs/s": lambda entry: entry.pairs_per_second or None,
    "dev": lambda entry: entry.validated[1] if entry.validated else None,
    "test": lambda entry: entry.final[1] if entry.final else None,
}

KEYS = tuple(_KEYS)


def ordered(entries: Iterable[RunEntry], key: str, *, is_falling: bool = False) -> list[RunEntry]:
    """Return the entries by one of `KEYS`; equal ones stay in the order they came.

    Raises:
        UsageError: nothing is sorted by that.
    """
    if key not in _KEYS:
        raise UsageError(f"runs cannot be sorted by '{key}'", hint=nearest(key, KEYS))
    with_value: list[tuple[str | float, RunEntry]] = []
    absent = []
    for entry in entries:
        value = _KEYS[key](entry)
        if value is None:
            absent.append(entry)
        else:
            with_value.append((value, entry))
    with_value.sort(key=lambda pair: pair[0], reverse=is_falling)
    return [entry for _, entry in with_value] + absent
