"""How a mixture of training sets is written: `NAME * 2 + OTHER`, or in a recipe as a list of tables.

A weight of 1 is left out; both forms are one name, so that equal mixtures are one dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cerank.errors import UsageError
from cerank.text.safe_text import shown

_PLUS, _TIMES = " + ", " * "
_WEIGHT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?|\.[0-9]{1,6}")


class WeightedSet(msgspec.Struct, frozen=True):
    """A training set by name, and how much it weighs in a mixture."""

    name: str
    weight: float = 1.0

    def __str__(self) -> str:
        return self.name if self.weight == 1 else f"{self.name}{_TIMES}{self.weight:g}"


def is_mixture(name: str) -> bool:
    """Return whether the name of a dataset names several sets, or one with a weight."""
    return _PLUS in name or _TIMES in name


def sets_of(name: str) -> tuple[WeightedSet, ...]:
    """Return the sets of a mixture with their weights.

    Raises:
        UsageError: a weight is no number above 0, a set has no name or appears twice, or there is only one.

    >>> sets_of("ours * 2 + ./theirs[:80%]")
    (WeightedSet(name='ours', weight=2.0), WeightedSet(name='./theirs[:80%]', weight=1.0))
    """
    sets = []
    for part in name.split(_PLUS):
        called, times, weight = part.strip().partition(_TIMES)
        if not called.strip() or (times and not (_WEIGHT.fullmatch(weight.strip()) and float(weight))):
            hint = "such as 'ours * 2 + ./theirs[:80%]'; weights are above 0"
            raise UsageError(
                f"'{shown(part, 120)}' is no set with a weight", where=name, hint=hint, code="mixture-syntax"
            )
        sets.append(WeightedSet(called.strip(), float(weight) if times else 1.0))
    names = [entry.name for entry in sets]
    twice = next((called for called in names if names.count(called) > 1), "")
    if twice or len(sets) < 2:
        what = f"'{shown(twice, 120)}' appears twice" if twice else "a mixture needs two sets or more"
        raise UsageError(what, where=name, hint="give one set its whole weight", code="mixture-syntax")
    return tuple(sets)


def name_of(sets: Sequence[WeightedSet]) -> str:
    """Return the name of the mixture of some sets."""
    return _PLUS.join(map(str, sets))


def numbers_of(name: str, sets: Sequence[str]) -> frozenset[str]:
    """Return the numbers, from 1, that some sets of a mixture have in it, and so their queries.

    >>> sorted(numbers_of("ours * 2 + theirs", ["theirs"]))
    ['2']
    """
    places = {entry.name: str(number) for number, entry in enumerate(sets_of(name), 1)}
    return frozenset(places[of_set] for of_set in sets)


def with_names(name: str, change: Callable[[str], str]) -> str:
    """Return the name of a mixture with each set's own name changed, such as a path made absolute."""
    return name_of([WeightedSet(change(entry.name), entry.weight) for entry in sets_of(name)])


def name_of_tables(value: object) -> object:
    """Return the name of a mixture that is given as a list of tables; any other value as it is, for checks to come.

    >>> name_of_tables([{"set": "ours", "weight": 2}, {"set": "theirs"}])
    'ours * 2 + theirs'
    """
    if not isinstance(value, list) or not value:
        return value
    sets = []
    for entry in value:
        if (
            not isinstance(entry, Mapping)
            or not entry.keys() <= {"set", "weight"}
            or not isinstance(entry.get("set"), str)
        ):
            return value
        weight = entry.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            return value
        sets.append(WeightedSet(str(entry["set"]), float(weight)))
    return name_of(sets) if len(sets) > 1 else sets[0].name
