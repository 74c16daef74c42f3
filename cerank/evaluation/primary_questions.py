"""Which rows of a comparison are primary: those that verdicts are about, adjusted together as one family.

A question is written `MEASURE`, `RIGHT against LEFT`, or `MEASURE: RIGHT against LEFT`. Rows that no question names are
descriptive: they have figures and an interval of their own, but no verdict, and cost the primary rows nothing. Without
questions every row is primary, but for two kinds: in a chain a stage against anything but the one before it, and a
measure over judged documents only beside the plain one, which is an analysis of sensitivity.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.measures import canonical, condensed

EXAMPLE = "such as nDCG@10: distill against contrastive"


class PrimaryQuestion(msgspec.Struct, frozen=True):
    """One primary question; an empty part leaves it open."""

    measure: str = ""  # canonical
    right: str = ""
    left: str = ""

    def __str__(self) -> str:
        couple = f"{self.right} against {self.left}" if self.right else ""
        return ": ".join(part for part in (self.measure, couple) if part)

    def names(self, measure: str, right: Collection[str], left: Collection[str]) -> bool:
        """Return whether a row is what the question asks; each side may be known by several names."""
        return (
            self.measure in {"", measure}
            and (not self.right or self.right in right)
            and (not self.left or self.left in left)
        )


def questions(texts: Sequence[str], where: str) -> tuple[PrimaryQuestion, ...]:
    """Return the questions that were written, in their order.

    Args:
        texts: see the module.
        where: the option or key they come from, for errors.

    Raises:
        UsageError: a text is no question, or its measure is not known.
    """
    return tuple(_question(text, where) for text in texts)


def _question(text: str, where: str) -> PrimaryQuestion:
    measure, colon, couple = (part.strip() for part in text.rpartition(": "))
    if not colon:
        measure, couple = (text.strip(), "") if " against " not in text else ("", text.strip())
    right, against, left = (part.strip() for part in couple.partition(" against "))
    is_half = bool(couple) and not (right and against and left)
    if is_half or not (measure or couple) or (colon and not measure):
        raise UsageError(f"'{text}' is not a question", where=where, hint=f"MEASURE: RIGHT against LEFT, {EXAMPLE}")
    return PrimaryQuestion(canonical(measure, where) if measure else "", right, left)


def is_sensitivity(measure: str, measures: Collection[str]) -> bool:
    """Return whether a measure is a plain one of the comparison over judged documents only."""
    return any(measure == condensed(plain) and measure != plain for plain in measures)
