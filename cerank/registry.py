"""Named things a recipe may ask for (losses, schedules, bases), found by name or refused with the nearest names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from cerank.errors import UsageError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a wrong name: the nearest known one, or all of them."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"


class Registry(Mapping[str, T]):
    """A read-only mapping that fills by decoration and refuses unknown names with a hint."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its target under `name`.

        Raises:
            ValueError: the name is taken; a fault of the program or a plugin.
        """

        def enter(item: T) -> T:
            if name in self._items:
                raise ValueError(f"two {self.kind} entries are called '{name}'")
            self._items[name] = item
            return item

        return enter

    def find(self, name: str, where: str = "") -> T:
        """Return the item called `name`.

        Raises:
            UsageError: there is none; the hint names the nearest.
        """
        if name not in self._items:
            raise UsageError(f"no {self.kind} is called '{name}'", where=where, hint=nearest(name, self._items))
        return self._items[name]

    def __getitem__(self, name: str) -> T:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
