"""What a comparison is asked for with: margins, rows, and the terms on which verdicts are given.

Invariant: frozen values that say nothing of any system; what cannot be used is refused here, before anything is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.measures import limits as limits_of
from cerank.evaluation.multiple_testing import Correction
from cerank.evaluation.secondary_tests import ROUNDS
from cerank.evaluation.systems import Condition


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """The largest difference of a measure that does not matter, and when that was said."""

    value: float
    source: str = "command line"  # "recipe", "matrix", "command line"
    declared: str = ""  # UTC, ISO 8601
    before: bool = False  # declared before the run whose numbers it judges
    because: str = ""  # why this size, as the recipe or the user says; free text
    share: float | None = (
        None  # of the baseline's mean, where it was given so: a row's `value` is that part of its mean
    )

    @property
    def shown(self) -> str:
        """Return its size in words."""
        return f"{self.value:g}" if self.share is None else f"{100 * self.share:g} % of the baseline's mean"


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """One row to be: which two systems, by what measure, where."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str
    is_primary: bool = True  # else it has no verdict, and is outside the family


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How systems are compared; everything but the values that a comparison is a function of."""

    confidence: float = 0.95  # of intervals; verdicts are at 1 - confidence after correction
    margins: dict[str, Margin] = {}  # measure -> the largest difference that does not matter
    worth: dict[str, Margin] = {}  # measure -> the gain that would pay for a system
    harm: dict[str, Margin] = {}  # measure -> the largest loss that would not matter; else the margin
    primary: tuple[str, ...] = ()  # the questions that verdicts are about; see `primary_questions`
    correction: Correction = "auto"  # max-t where several rows share their queries, else Holm's
    family: int = 0  # comparisons declared; 0 takes those shown
    pairs: Literal["baseline", "all", "stages"] = "baseline"  # stages: each against the one before it and the first
    claim: Literal["checkpoints", "recipes"] = "checkpoints"  # recipes: seeds are a sample, too
    pairs_seeds: bool = True  # seeds of two recipes that share their draws count as pairs
    with_secondary: bool = False
    rounds: int = ROUNDS  # random flips and resamples
    seed: int = 42

    @property
    def alpha(self) -> float:
        """Return the error rate of the family's verdicts."""
        return round(1 - self.confidence, 12)


def width_of(measure: str) -> float | None:
    """Return how far two values of a measure can lie apart; None where it has no known range."""
    limits = limits_of(measure)
    return None if limits is None else limits[1] - limits[0]


def checked_margin(margin: Margin, measure: str = "", width: float | None = None, what: str = "margin") -> Margin:
    """Return the margin itself.

    Args:
        margin: of a difference, in the measure's units.
        measure: the measure it is for.
        width: of the measure's range; None where it has no known one.
        what: its name in errors.

    Raises:
        UsageError: it is not above 0, or so large that no two systems could differ by it.
    """
    if margin.share is not None:
        if not 0 < margin.share < 1:
            wrong = f"a {what} of {margin.shown}: a share lies between 0 % and 100 %"
            raise UsageError(
                wrong, where=margin.source, hint=f"such as {measure or 'nDCG@10'}=5%", code="margin-out-of-range"
            )
        return margin
    if not 0 < margin.value < float("inf"):
        raise UsageError(
            f"a {what} is a number above 0, not {margin.value}", where=margin.source, code="margin-out-of-range"
        )
    if width is not None and margin.value >= width:
        why = f"calls any two systems equivalent: {measure}" if what == "margin" else f"cannot be reached: {measure}"
        raise UsageError(
            f"a {what} of {margin.value:g} for {measure} {why} spans {width:g}",
            where=margin.source,
            hint=f"such as {measure}=.02",
            code="margin-too-large",
        )
    return margin


def check_worth(measures: Sequence[str], terms: Terms) -> None:
    """Refuse gains and harm margins that no comparison could use.

    Raises:
        UsageError: one of a measure not compared or out of its range; a gain that the margin calls no difference.
    """
    for what, chosen in (("gain that is worth it", terms.worth), ("harm margin", terms.harm)):
        for name, margin in chosen.items():
            if name not in measures:
                raise UsageError(f"a {what} for {name}: it is not compared, {', '.join(measures)} is")
            checked_margin(margin, name, width_of(name), what)
