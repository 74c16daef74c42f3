"""Factors of a matrix: settings that are varied by name, and which of their combinations are run.

A full design runs every combination. A fraction, of factors with two levels each, sets the last factors by
products of the first (Box, Hunter and Hunter, Statistics for Experimenters, 2005, chapter 6), so that a half or a
quarter of the runs still holds every factor at both levels equally often, whatever the level of any other.

Invariant: pure functions of the declaration; the combination of all reference levels is always among those run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from math import prod
from typing import Literal

Fraction = Literal["full", "half", "quarter"]
Levels = Mapping[str, Sequence[str]]  # factor -> its levels, the reference first

# of a quarter: which of the first factors each of the last two is the product of, by the number of factors
_QUARTERS: Mapping[int, tuple[tuple[int, ...], ...]] = {
    5: ((0, 1), (0, 2)),
    6: ((0, 1, 2), (1, 2, 3)),
    7: ((0, 1, 2, 3), (0, 1, 3, 4)),
    8: ((0, 1, 2, 3), (0, 1, 4, 5)),
}
FEWEST_OF_HALF = 3


def fraction_mistake(levels: Levels, fraction: Fraction) -> str:
    """Return why there is no such fraction of a design; "" where there is one."""
    if fraction == "full":
        return ""
    uneven = [name for name, names in levels.items() if len(names) != 2]
    if uneven:
        return f"a {fraction} takes factors with two levels each; {', '.join(uneven)} has another number"
    if fraction == "half" and len(levels) < FEWEST_OF_HALF:
        return f"a half takes at least {FEWEST_OF_HALF} factors; there are {len(levels)}"
    if fraction == "quarter" and len(levels) not in _QUARTERS:
        return f"a quarter takes 5 to 8 factors; there are {len(levels)}"
    return ""


def design(levels: Levels, fraction: Fraction = "full") -> list[dict[str, str]]:
    """Return the combinations that are run, the one of all reference levels first.

    Args:
        levels: factor -> its levels, the reference first; no factors are one combination, which is empty.
        fraction: "half" and "quarter" as `fraction_mistake` allows them.

    Example:
        >>> design({"a": ("no", "yes"), "b": ("no", "yes"), "c": ("no", "yes")}, "half")[1]
        {'a': 'no', 'b': 'yes', 'c': 'yes'}
    """
    names = list(levels)
    last = _generators(len(names), fraction)
    first = names[: len(names) - len(last)]
    rows = []
    for places in product(*(range(len(levels[name])) for name in first)):
        # An even number of factors off their reference leaves the new one at its own: so all references are one row.
        derived = [sum(places[at] for at in factors) % 2 for factors in last]
        rows.append({name: levels[name][place] for name, place in zip(names, (*places, *derived), strict=True)})
    return rows


def mixed_effects(names: Sequence[str], fraction: Fraction) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return each factor whose effect a fraction cannot tell from an interaction of two others, with those pairs."""
    last = _generators(len(names), fraction)
    words = [{*factors, len(names) - len(last) + at} for at, factors in enumerate(last)]
    if len(words) == 2:
        words.append(words[0] ^ words[1])
    return {
        name: pairs
        for place, name in enumerate(names)
        if (
            pairs := tuple(
                (names[left], names[right])
                for left, right in combinations(range(len(names)), 2)
                if {place, left, right} in words
            )
        )
    }


def count(levels: Levels, fraction: Fraction) -> int:
    """Return the number of combinations that are run."""
    return prod(len(names) for names in levels.values()) // {"full": 1, "half": 2, "quarter": 4}[fraction]


def _generators(factors: int, fraction: Fraction) -> tuple[tuple[int, ...], ...]:
    """Return, for each of the last factors of a fraction, the first factors of whose levels it is the product."""
    if fraction == "full":
        return ()
    return (tuple(range(factors - 1)),) if fraction == "half" else _QUARTERS[factors]
