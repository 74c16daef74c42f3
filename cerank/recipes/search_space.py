"""The values that a sweep tries of one key: choices or a range, on a grid or sampled; and which keys may be searched.

Invariant: pure functions; the same declaration gives the same values in the same order everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import msgspec

from cerank.core.decode import help_text, merge_tables
from cerank.core.seeds import derive

EVERY_STAGE = "*"  # in place of a stage's name in a key path
_UNIT = 2.0**63
_DIGITS = 4  # significant ones of a sampled number, so that a recipe shows what was tried
_REDRAWS = 1000  # of a setting that was drawn before
MOST_POINTS = 1000  # of one range on a grid


class SearchRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values of one key: exactly one of choices and the four kinds of ranges, whose ends are included."""

    choices: Annotated[tuple[object, ...], help_text("the values; a list in place of the table means the same")] = ()
    uniform: Annotated[tuple[float, float] | None, help_text("any number from the first to the second")] = None
    log_uniform: Annotated[tuple[float, float] | None, help_text("... each factor alike, as for learning rates")] = None
    integer: Annotated[tuple[int, int] | None, help_text("any whole number from the first to the second")] = None
    log_integer: Annotated[tuple[int, int] | None, help_text("... each factor alike, as for sizes")] = None
    points: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=MOST_POINTS)] | None,
        help_text("on a grid alone: how many values of a range, at equal distances"),
    ] = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Return the ends of the range; None for choices."""
        return self.uniform or self.log_uniform or self.integer or self.log_integer

    @property
    def is_log(self) -> bool:
        """Return whether equal factors are equally likely."""
        return self.log_uniform is not None or self.log_integer is not None

    @property
    def is_whole(self) -> bool:
        """Return whether only whole numbers are values."""
        return self.integer is not None or self.log_integer is not None

    def at(self, share: float) -> object:
        """Return the value at a share of the range, from 0 for its low end to 1 for its high end.

        >>> SearchRange(log_uniform=(1e-6, 1e-4)).at(0.5), SearchRange(choices=("lce", "hinge")).at(0.9)
        (1e-05, 'hinge')
        """
        if self.bounds is None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = self.bounds
        if self.is_whole:  # each whole number has a unit of its own
            low, high = low - 0.5, high + 0.5
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low))) if self.is_log else 0.0
        value = value if self.is_log else low + share * (high - low)
        return self.rounded(value)

    def rounded(self, value: float) -> float | int:
        """Return the value of the range that is nearest to a number: whole, or of four significant digits."""
        low, high = self.bounds or (value, value)
        if self.is_whole:
            return min(max(round(value), round(low)), round(high))
        return min(max(float(f"{value:.{_DIGITS}g}"), float(low)), float(high))

    def grid(self) -> list[object]:
        """Return the values on a grid, ascending, each once."""
        if self.bounds is None:
            return list(self.choices)
        low, high = self.bounds
        if self.points is None:
            return [*range(round(low), round(high) + 1)]
        shares = [place / (self.points - 1) for place in range(self.points)]
        if self.is_log:
            each = [math.exp(math.log(low) + share * (math.log(high) - math.log(low))) for share in shares]
        else:
            each = [low + share * (high - low) for share in shares]
        return list(dict.fromkeys(self.rounded(value) for value in each))

    def ends(self) -> list[object]:
        """Return the values that show whether all of the range fits a key: its ends, or every choice."""
        return list(self.choices) if self.bounds is None else list(dict.fromkeys(map(self.rounded, self.bounds)))

    def edge_of(self, value: object) -> str:
        """Return "low" or "high" where a value lies at that end of the range, or of a list of numbers, else "".

        In the outermost twentieth of a range a better value may lie beyond; of a list, the smallest and the largest are
        its ends. Choices that are no numbers have no order, and so no end.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ""
        if self.bounds is None:
            numbers = [each for each in self.choices if isinstance(each, int | float) and not isinstance(each, bool)]
            if len(numbers) < len(self.choices) or len(set(numbers)) < 2:  # "auto" beside numbers has no place
                return ""
            return "low" if value == min(numbers) else "high" if value == max(numbers) else ""
        low, high = self.bounds
        if low == high:
            return ""
        share = (value - low) / (high - low)
        if self.is_log:
            share = math.log(value / low) / math.log(high / low)
        return "low" if share <= 0.05 else "high" if share >= 0.95 else ""

    @property
    def size(self) -> float:
        """Return the number of values; infinite for a range of numbers that are not whole."""
        if self.bounds is None:
            return len(self.choices)
        low, high = self.bounds
        return high - low + 1 if self.is_whole else 1 if low == high else math.inf


# Keys that no sweep may set, by the beginning of their path -> why.
_REFUSED = {
    "seed": "the seed is chance; a search over it picks the luckiest run",
    "name": "trials are named by the sweep",
    "description": "trials are named by the sweep",
    "tuned": "the sweep writes it",
    "chain": "list a recipe for each chain as an arm, so that each gets the same number of trials",
    "force": "a search must not switch checks off",
    "baselines": "finished re-rankers are not trained, so that no trial would change them",
    "evaluate": "it decides what is measured on the test side, which a sweep never looks at",
    "data.test": "a sweep never looks at the test side",
    "data.depth": "it decides how much of the test side is re-ranked, which a sweep never looks at",
    "data.first_stages": "it decides what is re-ranked on the test side; set stages.NAME.first_stage",
    "data.folds": "it decides what is tested on, and a sweep never looks at the test side",
    "compute": "it decides where the weights lie, and not what they become",
    "data.validation": "trials could not be compared if each were measured on other queries",
    "data.validation_first_stage": "trials could not be compared if each were measured on other candidates",
}
_REFUSED_OF_STAGE = {
    "validation": "trials could not be compared if each were measured on other queries",
    "validation_queries": "trials could not be compared if each were measured on other queries",
    "validation_depth": "trials could not be compared if each were measured on other candidates",
    "validation_measure": "trials could not be compared by different measures; the sweep's `measure` sets it",
    "validation_loss": "it changes what is shown, and not what is trained",
    "keep_best": "it keeps more weights, and changes none",
    "checkpoint_every": "it decides from where a run resumes, and not what is trained",
    "gradient_cosine_every": "it changes what is shown, and not what is trained",
    "warn_after": "it changes what is shown, and not what is trained",
    "least_spread": "it changes what is shown, and not what is trained",
    "least_loss_change": "it changes what is shown, and not what is trained",
    "microbatch": "it decides memory and speed; weights differ by rounding alone, which is chance",
    "gradient_checkpointing": "it decides memory and speed, and not what is trained",
}


def refused_key(path: str) -> str:
    """Return why no sweep may set a key; "" for one that it may."""
    keys = path.split(".")
    if keys[0] == "stages" and len(keys) > 2 and all(keys):
        return _REFUSED_OF_STAGE.get(keys[2], "")
    if keys[0] == "stages":
        return "a whole stage is no setting; name one of its keys, such as stages.NAME.learning_rate"
    if path in {"data", "passages", "teachers"}:
        return "a whole table is no setting; name one of its keys"
    return next((why for key, why in _REFUSED.items() if path == key or path.startswith(f"{key}.")), "")


def refused_setting(path: str) -> str:
    """Return why a sweep may not lay a key over all of its arms; "" for one that it may."""
    keys = path.split(".")
    is_stage_key = keys[0] != "stages" or (len(keys) > 2 and all(keys))
    return "" if is_stage_key and keys[0] not in {"name", "tuned", "chain"} else refused_key(path)


def range_mistakes(path: str, entry: SearchRange, *, is_grid: bool) -> list[str]:
    """Return what is wrong with the range of a key, as `key.path: what`."""
    at = f"search.{path}"
    given = [name for name in ("choices", "uniform", "log_uniform", "integer", "log_integer") if getattr(entry, name)]
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else "empty"
        return [f"{at}: {what}; give exactly one of choices, uniform, log_uniform, integer and log_integer"]
    if entry.bounds is None:
        twice = [choice for place, choice in enumerate(entry.choices) if choice in entry.choices[:place]]
        mistakes = [f"{at}: {choice!r} appears twice" for choice in twice[:1]]
        if len(entry.choices) == 1:
            mistakes.append(f"{at}: one value is nothing to choose from; set it in [settings]")
        return mistakes + ([f"{at}.points: choices are their own points; leave it out"] if entry.points else [])
    what = _bounds_mistake(entry, entry.bounds) or _points_mistake(entry, entry.bounds, is_grid=is_grid)
    return [f"{at}: {what}"] if what else []


def _bounds_mistake(entry: SearchRange, bounds: tuple[float, float]) -> str:
    low, high = bounds
    checks = (
        (not (math.isfinite(low) and math.isfinite(high)), f"its ends are numbers; given: {low:g} and {high:g}"),
        (low > high, f"its low end {low:g} lies above its high end {high:g}"),
        (low == high, "its ends are the same number, which is nothing to choose from; set it in [settings]"),
        (entry.is_log and low <= 0, f"a logarithmic range begins above 0; given: {low:g}"),
    )
    return next((what for is_wrong, what in checks if is_wrong), "")


def _points_mistake(entry: SearchRange, bounds: tuple[float, float], *, is_grid: bool) -> str:
    """Return what is wrong with the number of a range's points, whose ends are right."""
    if not is_grid:
        return (
            "points = N is for a grid; values are drawn from all of the range here: leave it out"
            if entry.points
            else ""
        )
    if entry.points is None:
        if not entry.is_whole:
            return "a grid needs choices, or points = N for a range"
        return "too many whole numbers for a grid; give points = N" if bounds[1] - bounds[0] >= MOST_POINTS else ""
    different = len(entry.grid())
    if different == entry.points:
        return ""
    numbers = "whole numbers" if entry.is_whole else f"numbers of {_DIGITS} digits"
    return f"points = {entry.points}, and they come to {different} {numbers}; take no more points than that"


def paths_in(path: str, chain: Sequence[str]) -> list[str]:
    """Return the keys of a recipe that a path of the search means: of every stage of its chain for `stages.*.KEY`.

    >>> paths_in("stages.*.learning_rate", ["cl", "kd"]), paths_in("stages.cl.loss", ["kd"])
    (['stages.cl.learning_rate', 'stages.kd.learning_rate'], [])
    """
    keys = path.split(".")
    if keys[0] != "stages":
        return [path]
    names = chain if keys[1] == EVERY_STAGE else [name for name in chain if name == keys[1]]
    return [".".join(["stages", name, *keys[2:]]) for name in names]


def spelled_out(settings: Mapping[str, object], chain: Sequence[str]) -> dict[str, object]:
    """Return settings by the key paths of a recipe with this chain; those that it has no place for are left out."""
    return {key: value for path, value in settings.items() for key in paths_in(path, chain)}


def nested(settings: Mapping[str, object]) -> dict[str, object]:
    """Return settings by key path as the table that a recipe's file would hold.

    >>> nested({"stages.cl.steps": 9, "data.train": "x"})
    {'stages': {'cl': {'steps': 9}}, 'data': {'train': 'x'}}
    """
    table: dict[str, object] = {}
    for path, value in settings.items():
        inner: object = value
        for key in reversed(path.split(".")):
            inner = {key: inner}
        table = merge_tables(table, inner) if isinstance(inner, dict) else table
    return table


def changed_settings(table: object, settings: Mapping[str, object], chain: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a recipe that do not have the values which these settings give them.

    Args:
        table: the recipe as its file would hold it, complete.
        settings: key path as the search names it -> value.
        chain: the recipe's stages.
    """
    return tuple(
        key for key, value in spelled_out(settings, chain).items() if not _is_same(value_at(table, key), value)
    )


def value_at(table: object, path: str) -> object:
    """Return what a recipe's table holds at a key path; None for nothing."""
    for key in path.split("."):
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def _is_same(own: object, chosen: object) -> bool:
    """Return whether a value is the chosen one; a chosen table may leave out what the recipe fills in."""
    if isinstance(chosen, dict) and isinstance(own, dict):
        return all(_is_same(own.get(key), value) for key, value in chosen.items())
    if isinstance(chosen, list | tuple) and isinstance(own, list | tuple):
        return len(chosen) == len(own) and all(map(_is_same, own, chosen))
    return own == chosen


def grid(search: Mapping[str, SearchRange]) -> list[dict[str, object]]:
    """Return every combination of values; the last key varies fastest."""
    rows = itertools.product(*(entry.grid() for entry in search.values()))
    return [dict(zip(search, row, strict=True)) for row in rows]


def draws(search: Mapping[str, SearchRange], seed: int) -> Iterator[dict[str, object]]:
    """Yield settings drawn at random, none twice, without end unless the space is used up.

    A key's values depend on nothing but the seed, the key and how many were drawn before, so that two arms with the
    same keys get the same settings.
    """
    seen: set[str] = set()
    for number in itertools.count(1):
        for redraw in range(_REDRAWS):
            row = {
                path: entry.at(derive(seed, "sweep", path, number, redraw) / _UNIT) for path, entry in search.items()
            }
            if repr(row) not in seen:
                break
        else:
            return
        seen.add(repr(row))
        yield row


def size_of(search: Mapping[str, SearchRange]) -> float:
    """Return the number of different settings."""
    return math.prod(entry.size for entry in search.values())


def short_paths(paths: Sequence[str]) -> list[str]:
    """Return the last key of each path, with as much before it as tells the paths apart.

    >>> short_paths(["stages.cl.learning_rate", "stages.kd.learning_rate", "base"])
    ['cl.learning_rate', 'kd.learning_rate', 'base']
    """
    names = []
    for path in paths:
        keys = path.split(".")
        taken = [other.split(".")[-1] for other in paths if other != path]
        names.append(".".join(keys[-2:]) if keys[-1] in taken else keys[-1])
    return names


def value_text(value: object) -> str:
    """Return a value as tables show it: a number with six digits at most."""
    return f"{value:g}" if isinstance(value, float) else str(value)
