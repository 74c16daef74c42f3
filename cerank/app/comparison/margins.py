"""Which margins judge a comparison, and whether they were declared before its numbers could be known.

Invariant: a margin counts as declared beforehand only where each pair of systems has a run whose plan declares one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cerank.errors import UsageError
from cerank.recipes.plan import Plan

if TYPE_CHECKING:
    from cerank.evaluation.verdicts import Margin

Pairs = Sequence[tuple[Sequence[Plan], Sequence[Plan]]]  # the plans behind either side of each row; a file has none


def typed(texts: Sequence[str]) -> dict[str, float]:
    """`nDCG@10=.02` each, as measure -> margin, in the names that were typed; the last `=` ends the name.

    Raises:
        UsageError: a text is not MEASURE=NUMBER with a number above 0, or a measure is given twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, raw = (part.strip() for part in text.rpartition("="))
        is_number = re.fullmatch(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?|[0-9]+\.", raw) is not None
        if not name or not equals or not is_number or not 0 < float(raw) < float("inf"):
            hint = "MEASURE=NUMBER with a number above 0, such as nDCG@10=.02"
            raise UsageError(f"'{text}' is not a margin", where="--margin", hint=hint)
        if name in found:
            raise UsageError(f"two margins for {name}", where="--margin", hint="give one")
        found[name] = float(raw)
    return found


def declared(measures: Sequence[str], pairs: Pairs) -> dict[str, Margin]:
    """The margins that the plans of compared runs declare, by measure.

    Where runs declare different ones the smallest is taken, and its source says so: what lies within it lies within
    the others, so nobody gains by declaring another. It is `before` where every pair has a run that declares one, for
    then no difference was known when its margin was said.
    """
    from cerank.evaluation.verdicts import Margin

    found: dict[str, Margin] = {}
    for measure in measures:
        said = [
            (plan.recipe.evaluate.margins[measure], plan.created)
            for pair in pairs
            for side in pair
            for plan in side
            if measure in plan.recipe.evaluate.margins
        ]
        if not said:
            continue
        values = sorted({value for value, _ in said})
        others = ", ".join(f"±{value:g}" for value in values[1:])
        is_before = all(
            any(measure in plan.recipe.evaluate.margins for side in pair for plan in side) for pair in pairs
        )
        source = f"recipe; the smallest of those declared, others {others}" if others else "recipe"
        if not is_before:
            source += ", but not of every pair's runs"
        found[measure] = Margin(
            value=values[0],
            source=source,
            declared=max(when for value, when in said if value == values[0]),
            before=is_before,
        )
    return found


def chosen(given: Mapping[str, float], found: Mapping[str, Margin], *, now: str = "") -> dict[str, Margin]:
    """The declared margins with those of the command line laid over them.

    A margin that repeats the declared one stays declared; any other was chosen afterwards and says what it replaces.

    Args:
        given: by canonical measure.
        now: when they are given, UTC, ISO 8601.
    """
    from cerank.evaluation.verdicts import Margin

    out = dict(found)
    for measure, value in given.items():
        old = found.get(measure)
        if old is not None and old.value == value:
            continue
        source = "command line" + (f", in place of ±{old.value:g} from the {old.source}" if old else "")
        out[measure] = Margin(value=value, source=source, declared=now)
    return out


def carried(found: Mapping[str, Margin], to: Mapping[str, str]) -> dict[str, Margin]:
    """Margins for measures over condensed lists: the plain measure's, chosen afterwards, for it was said of another.

    Args:
        to: plain measure -> condensed measure.
    """
    from cerank.evaluation.verdicts import Margin

    return {
        condensed: Margin(value=found[plain].value, source=f"that of {plain}", declared=found[plain].declared)
        for plain, condensed in to.items()
        if plain in found and condensed != plain
    }
